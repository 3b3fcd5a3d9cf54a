//! Kill -9: a process that writes is killed at a random moment, again and again, and what it acknowledged must be there.
//!
//! The test binary runs itself as the process that writes. Through a pipe it says "begin" before each write and "done" after
//! the storage acknowledged it, so the parent knows what must be stored, and what was in flight when the kill came. This is
//! about processes; what survives power loss is a matter of syncs, which no kill can show.

pub(crate) mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use futures_util::TryStreamExt;
use libtest_mimic::{Arguments, Trial};
use serde_json::json;
use storage_core::{FieldValue, GetOptions, Result, Storage, StorageBackend};

use self::writer::{Write, keys};
use crate::{
    Namespace, Target, answer,
    process::Process,
    selection::{report_file, variable},
};

/// Rounds unless `STORAGE_CONFORMANCE_ROUNDS` says otherwise.
const ROUNDS: u64 = 20;
/// Of so many rounds, one kills while the store is being opened, and not while it is written to.
const OPENING: u64 = 16;
/// How much of a hundred kills must interrupt a write in flight.
const IN_FLIGHT: u64 = 80;

/// The test of one backend: the `main` of a test with `harness = false`.
#[derive(Debug)]
pub struct Crash(Target);

impl Crash {
    /// The test of the backend of this name. `open` opens the store in a directory; the same directory is the same store.
    pub fn new<F, Fut, B>(name: impl Into<String>, open: F) -> Self
    where
        F: Fn(PathBuf) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B>> + Send + 'static,
        B: StorageBackend,
    {
        Self(Target::new(name, move |namespace: Namespace| open(namespace.dir().to_owned())))
    }

    /// Counts what unfinished writes left in a directory. It is asked after each kill, and must be 0 when the store has been
    /// opened again.
    #[must_use]
    pub fn leftovers(self, count: fn(&Path) -> usize) -> Self {
        Self(self.0.leftovers(count))
    }

    /// Runs the test, or, in the process that is to be killed, writes.
    ///
    /// `STORAGE_CONFORMANCE_ROUNDS` and `…_SEED` say how often and from which seed, `…_REPORT` where to write the outcome.
    #[must_use]
    pub fn main(self) -> ExitCode {
        if let Some(code) = answer(std::slice::from_ref(&self.0)) {
            return code;
        }
        let name = format!("{}/kill_9_keeps_acknowledged", self.0.name());
        let trial = Trial::test(name, move || self.test().map_err(Into::into));
        libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
    }

    fn test(&self) -> Result<(), String> {
        let number = |name: &str, default: u64| {
            let text = variable(name)?;
            text.map_or(Ok(default), |text| {
                text.parse().map_err(|_| format!("STORAGE_CONFORMANCE_{name} is {text:?}, which is no number"))
            })
        };
        let (count, seed) = (number("ROUNDS", ROUNDS)?, number("SEED", u64::from(fastrand::u32(..)))?);
        eprintln!("seed {seed} (set STORAGE_CONFORMANCE_SEED to use it again)");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("no runtime can be built: {e}"))?;
        let namespace = Namespace::new();
        let killed = runtime.block_on(rounds(&self.0, &namespace, count, seed))?;
        let name = self.0.name();
        eprintln!("{name}: {killed}");
        if let Some(path) = report_file(&format!("kill9-{name}"))? {
            let report = killed.report(name, seed).to_string();
            fs::write(&path, report).map_err(|e| format!("the report cannot be written to {path:?}: {e}"))?;
        }
        killed.verdict(IN_FLIGHT)
    }
}

/// Starts and kills so many processes that write.
pub(crate) async fn rounds(target: &Target, place: &Namespace, rounds: u64, seed: u64) -> Result<Kills, String> {
    let open = || async { target.open(place).await.map_err(|e| format!("cannot open: {e}")).map(Storage::from_arc) };
    let mut kills = Kills::default();
    // What each key holds, as far as is known; `None` if it was deleted or never written.
    let mut known = BTreeMap::new();
    open().await?;
    for round in 0..rounds {
        let mut rng = fastrand::Rng::with_seed(seed ^ round << 32);
        let killed = kill(target, place, seed, round, &mut rng).await.map_err(|e| format!("round {round}: {e}"))?;
        kills.count(&killed, target.left(place));
        let storage = open().await.map_err(|e| format!("round {round}: {e}"))?;
        let left = target.left(place);
        if left > 0 {
            kills.violations.push(format!("round {round}: {left} staged values are left after opening"));
        }
        let found = verify(&storage, seed, &mut known, &killed).await;
        kills.violations.extend(found.into_iter().map(|what| format!("round {round}: {what}")));
        if (round + 1) % 50 == 0 {
            eprintln!("{}: {kills}", target.name());
        }
    }
    Ok(kills)
}

/// What a killed process had begun and what was acknowledged to it.
#[derive(Debug, Default)]
struct Killed {
    opening: bool,
    begun: Vec<Write>,
    done: Vec<Write>,
}

impl Killed {
    /// What the write that was begun and not acknowledged can have left under this key; `None` for no value.
    fn in_flight(&self, key: &str) -> Vec<Option<Write>> {
        let begun = |under: fn(&Write, &str) -> bool| {
            self.begun.iter().rfind(|write| under(write, key)).copied().filter(|write| !self.done.contains(write))
        };
        let written = begun(|write, key| write.key() == key).map(|write| (!write.is_delete()).then_some(write));
        let renamed = begun(|write, key| write.is_rename() && write.spare() == key);
        written.into_iter().chain(renamed.into_iter().flat_map(|write| [Some(write), None])).collect()
    }

    fn note(&mut self, line: &str) {
        match line.split_once(' ').and_then(|(word, write)| Some((word, Write::parse(write)?))) {
            Some(("begin", write)) => self.begun.push(write),
            Some(("done", write)) => self.done.push(write),
            _ => {}
        }
    }
}

/// Starts a process that writes, and kills it at a random moment.
async fn kill(
    target: &Target,
    place: &Namespace,
    seed: u64,
    round: u64,
    rng: &mut fastrand::Rng,
) -> crate::Outcome<Killed> {
    let mut killed = Killed { opening: round % OPENING == OPENING - 1, ..Killed::default() };
    let mut process = Process::start(target, place.place(), "write", round, seed)?;
    if !killed.opening {
        process.expect("ready").await?;
        // At least one write is begun, and any number more.
        for _ in 0..1 + rng.u32(..40) {
            killed.note(&process.hear().await?);
        }
    }
    tokio::time::sleep(Duration::from_micros(rng.u64(..5_000))).await;
    // What it said before is still in the pipe.
    process.kill().await?.iter().for_each(|line| killed.note(line));
    Ok(killed)
}

/// Compares the store with what must be in it, and notes what is.
async fn verify(
    storage: &Storage,
    seed: u64,
    known: &mut BTreeMap<String, Option<Write>>,
    killed: &Killed,
) -> Vec<String> {
    for write in &killed.done {
        known.insert(write.key(), (!write.is_delete()).then_some(*write));
        if write.is_rename() {
            known.insert(write.spare(), None);
        }
    }
    let mut violations = Vec::new();
    let mut present = BTreeSet::new();
    for key in keys() {
        let mut allowed = vec![known.get(&key).copied().flatten()];
        allowed.extend(killed.in_flight(&key));
        match stored(storage, seed, &key).await {
            Err(what) => violations.push(format!("{key:?}: {what}")),
            Ok(found) => {
                if !allowed.contains(&found) {
                    violations.push(format!("{key:?} holds {found:?}, and must hold one of {allowed:?}"));
                }
                if found.is_some() {
                    present.insert(key.clone());
                }
                known.insert(key, found);
            }
        }
    }
    let listed = async { storage.keys().await?.map_ok(|key| key.as_str().to_owned()).try_collect().await };
    match listed.await {
        Ok::<Vec<String>, _>(listed) if listed.iter().eq(&present) => {}
        Ok(listed) => violations.push(format!("{listed:?} are listed, and {present:?} are there")),
        Err(e) => violations.push(format!("a listing fails: {e}")),
    }
    violations
}

/// The write whose value and metadata a key has; or what is wrong with them.
async fn stored(storage: &Storage, seed: u64, key: &str) -> Result<Option<Write>, String> {
    let read = async {
        let Some(object) = storage.open(key, GetOptions::new().prefer_buffered(true)).await? else { return Ok(None) };
        Ok(Some((object.entry, object.body.bytes(u64::MAX).await?)))
    };
    let read: Result<_> = read.await;
    let Some((entry, value)) = read.map_err(|e| format!("cannot be read: {e}"))? else { return Ok(None) };
    let metadata = entry.metadata.unwrap_or_default();
    let write = match metadata.fields.get("write") {
        Some(FieldValue::String(text)) => Write::parse(text),
        _ => None,
    };
    let write = write.ok_or_else(|| format!("{} bytes without their metadata", value.len()))?;
    if *metadata != write.metadata() {
        return Err(format!("the metadata of {write} is not whole: {metadata:?}"));
    }
    if value != write.value(seed) {
        return Err(format!("{} bytes with the metadata of {write} are not its value", value.len()));
    }
    Ok(Some(write))
}

/// What all rounds came to.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    rounds: u64,
    opening: u64,
    in_flight: u64,
    with_leftovers: u64,
    acknowledged: usize,
    violations: Vec<String>,
}

impl Kills {
    fn count(&mut self, killed: &Killed, leftovers: usize) {
        self.rounds += 1;
        self.opening += u64::from(killed.opening);
        self.in_flight += u64::from(killed.begun.len() > killed.done.len());
        self.with_leftovers += u64::from(leftovers > 0);
        self.acknowledged += killed.done.len();
    }

    fn report(&self, name: &str, seed: u64) -> serde_json::Value {
        json!({
            "backend": name, "rounds": self.rounds, "opening": self.opening, "in_flight": self.in_flight,
            "with_leftovers": self.with_leftovers, "acknowledged": self.acknowledged,
            "violations": self.violations.len(), "seed": seed,
        })
    }

    /// Whether nothing was lost, and so much of a hundred kills interrupted a write.
    pub(crate) fn verdict(&self, in_flight: u64) -> Result<(), String> {
        if let Some(first) = self.violations.first() {
            return Err(format!("{} violations, the first: {first}", self.violations.len()));
        }
        if self.in_flight * 100 < self.rounds * in_flight {
            return Err(format!("of {} kills only {} interrupted a write", self.rounds, self.in_flight));
        }
        Ok(())
    }
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} with a write in flight, {} while opening, {} left something staged; {} writes acknowledged; {} \
             violations",
            self.rounds,
            self.in_flight,
            self.opening,
            self.with_leftovers,
            self.acknowledged,
            self.violations.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use storage_core::{PutOptions, Storage};
    use storage_memory::Memory;

    use super::{Killed, Write, verify};

    const SEED: u64 = 7;

    fn write(number: u64) -> Write {
        Write { round: 0, writer: 0, number }
    }

    /// Stores the value of one write with the metadata of another, and says whether that is found right.
    async fn is_right(stored: Option<(u64, u64)>, killed: &Killed) -> bool {
        let storage = Storage::new(Memory::new());
        if let Some((value, metadata)) = stored {
            let put = PutOptions::new().metadata(write(metadata).metadata());
            storage.put_with(write(0).key(), write(value).value(SEED), put).await.unwrap();
        }
        verify(&storage, SEED, &mut BTreeMap::new(), killed).await.is_empty()
    }

    #[tokio::test]
    async fn finds_what_is_lost_torn_or_made_up() {
        // The writes 0, 5 and 10 are of the same key.
        let killed = Killed { opening: false, begun: [0, 5].map(write).into(), done: vec![write(0)] };
        assert!(is_right(Some((0, 0)), &killed).await, "the old value");
        assert!(is_right(Some((5, 5)), &killed).await, "the new value");
        assert!(!is_right(None, &killed).await, "a lost value");
        assert!(!is_right(Some((0, 5)), &killed).await, "one value with the other's metadata");
        assert!(!is_right(Some((10, 10)), &killed).await, "a value that was never written");
    }

    #[tokio::test]
    async fn a_rename_in_flight_leaves_the_value_under_one_of_its_keys_or_both() {
        // The writes 3 and 8 are of the same key, 3 by a rename.
        let killed = Killed { opening: false, begun: [3].map(write).into(), done: Vec::new() };
        for (spare, target, acknowledged, right) in [
            (false, false, false, true),
            (true, false, false, true),
            (true, true, false, true),
            (false, true, false, true),
            (true, false, true, false),
            (false, false, true, false),
            (true, true, true, false),
            (false, true, true, true),
        ] {
            let storage = Storage::new(Memory::new());
            for key in [(spare, write(3).spare()), (target, write(3).key())].into_iter().filter(|key| key.0) {
                let put = PutOptions::new().metadata(write(3).metadata());
                storage.put_with(key.1, write(3).value(SEED), put).await.unwrap();
            }
            let done = if acknowledged { vec![write(3)] } else { Vec::new() };
            let killed = Killed { done, begun: killed.begun.clone(), ..Killed::default() };
            let found = verify(&storage, SEED, &mut BTreeMap::new(), &killed).await;
            assert_eq!(found.is_empty(), right, "{spare} {target} {acknowledged}: {found:?}");
        }
        // A value that was there before, and is renamed over another, is lost under neither.
        let mut known = BTreeMap::from([(write(8).key(), Some(write(8)))]);
        let found = verify(&Storage::new(Memory::new()), SEED, &mut known, &killed).await;
        assert!(!found.is_empty(), "the old value is gone, and the new one is not there");
    }
}
