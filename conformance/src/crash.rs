//! Kill -9: a process that writes is killed at a random moment, again and again, and what it acknowledged must be there.
//!
//! The test binary runs itself as the process that writes. Through a pipe it says "begin" before each write and "done" after
//! the storage acknowledged it, so the parent knows what must be stored, and what was in flight when the kill came. This is
//! about processes; what survives power loss is a matter of syncs, which no kill can show.

mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use libtest_mimic::{Arguments, Trial};
use serde_json::json;
use storage_core::{FieldValue, GetOptions, Result, Storage, StorageBackend};

use self::writer::{Write, keys, write};
use crate::selection::variable;

/// Says to the process that writes where, with which seed and in which round.
const CHILD: &str = "STORAGE_CONFORMANCE_CHILD";
/// Rounds unless `STORAGE_CONFORMANCE_ROUNDS` says otherwise.
const ROUNDS: u64 = 20;
/// Of so many rounds, one kills while the store is being opened, and not while it is written to.
const OPENING: u64 = 16;
/// How much of a hundred kills must interrupt a write in flight.
const IN_FLIGHT: u64 = 80;
/// How long a process may take for its next step until it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

type Open = dyn Fn(PathBuf) -> BoxFuture<'static, Result<Storage>> + Send + Sync;

/// The test of one backend: the `main` of a test with `harness = false`.
pub struct Crash {
    name: String,
    open: Arc<Open>,
    leftovers: fn(&Path) -> usize,
}

impl Crash {
    /// The test of the backend of this name. `open` opens the store in a directory; the same directory is the same store.
    pub fn new<F, Fut, B>(name: impl Into<String>, open: F) -> Self
    where
        F: Fn(PathBuf) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B>> + Send + 'static,
        B: StorageBackend,
    {
        let open = move |place| {
            let opening = open(place);
            async move { Ok(Storage::new(opening.await?).erase()) }.boxed()
        };
        Self { name: name.into(), open: Arc::new(open), leftovers: |_| 0 }
    }

    /// Counts what unfinished writes left in a directory. It is asked after each kill, and must be 0 when the store has been
    /// opened again.
    #[must_use]
    pub fn leftovers(mut self, count: fn(&Path) -> usize) -> Self {
        self.leftovers = count;
        self
    }

    /// Runs the test, or, in the process that is to be killed, writes.
    ///
    /// `STORAGE_CONFORMANCE_ROUNDS` and `…_SEED` say how often and from which seed, `…_REPORT` where to write the outcome.
    #[must_use]
    pub fn main(self) -> ExitCode {
        if let Ok(task) = env::var(CHILD) {
            return match write(&*self.open, &task) {
                Ok(()) => ExitCode::SUCCESS,
                Err(message) => {
                    eprintln!("the process that writes: {message}");
                    ExitCode::FAILURE
                }
            };
        }
        let name = format!("{}/kill_9_keeps_acknowledged", self.name);
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
        let (rounds, seed) = (number("ROUNDS", ROUNDS)?, number("SEED", u64::from(fastrand::u32(..)))?);
        eprintln!("seed {seed} (set STORAGE_CONFORMANCE_SEED to use it again)");
        let outcome = self.rounds(rounds, seed)?;
        eprintln!("{}: {outcome}", self.name);
        if let Some(path) = variable("REPORT")? {
            let report = outcome.report(&self.name, seed).to_string();
            fs::write(&path, report).map_err(|e| format!("the report cannot be written to {path:?}: {e}"))?;
        }
        outcome.verdict()
    }

    fn rounds(&self, rounds: u64, seed: u64) -> Result<Outcome, String> {
        let directory = tempfile::tempdir().map_err(|e| format!("no temporary directory can be made: {e}"))?;
        let place = directory.path().join("store");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("no runtime can be built: {e}"))?;
        let mut outcome = Outcome::default();
        // What each key holds, as far as is known; `None` if it was deleted or never written.
        let mut known = BTreeMap::new();
        runtime.block_on(async { (self.open)(place.clone()).await }).map_err(|e| format!("cannot open: {e}"))?;
        for round in 0..rounds {
            let mut rng = fastrand::Rng::with_seed(seed ^ round << 32);
            let killed = kill(&place, seed, round, &mut rng)?;
            outcome.count(&killed, (self.leftovers)(&place));
            let checked = runtime.block_on(async {
                let storage = (self.open)(place.clone()).await.map_err(|e| format!("cannot open: {e}"))?;
                let left = (self.leftovers)(&place);
                if left > 0 {
                    outcome.violations.push(format!("round {round}: {left} staged values are left after opening"));
                }
                let found = verify(&storage, seed, &mut known, &killed).await;
                outcome.violations.extend(found.into_iter().map(|what| format!("round {round}: {what}")));
                Ok::<_, String>(())
            });
            checked.map_err(|e| format!("round {round}: {e}"))?;
            if (round + 1) % 50 == 0 {
                eprintln!("{}: {outcome}", self.name);
            }
        }
        Ok(outcome)
    }
}

impl fmt::Debug for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crash").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a killed process had begun and what was acknowledged to it.
#[derive(Debug, Default)]
struct Killed {
    opening: bool,
    begun: Vec<Write>,
    done: Vec<Write>,
}

impl Killed {
    /// The write to this key that was begun and not acknowledged.
    fn in_flight(&self, key: &str) -> Option<Write> {
        self.begun.iter().rfind(|write| write.key() == key).copied().filter(|write| !self.done.contains(write))
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
fn kill(place: &Path, seed: u64, round: u64, rng: &mut fastrand::Rng) -> Result<Killed, String> {
    let mut killed = Killed { opening: round % OPENING == OPENING - 1, ..Killed::default() };
    let task = format!("{seed} {round} {}", place.display());
    let me = env::current_exe().map_err(|e| format!("the test binary is not to be found: {e}"))?;
    let child = Command::new(me).env(CHILD, task).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| format!("the process that writes cannot be started: {e}"))?;
    let lines = listen(&mut child)?;
    if !killed.opening {
        // At least one write is begun, and any number more.
        for _ in 0..2 + rng.u32(..40) {
            let line = lines.recv_timeout(PATIENCE).map_err(|e| match e {
                RecvTimeoutError::Timeout => format!("round {round}: the process that writes hangs"),
                RecvTimeoutError::Disconnected => format!("round {round}: the process that writes ended by itself"),
            });
            match line {
                Ok(line) => killed.note(&line),
                Err(e) => {
                    // It may have ended already.
                    let _ = child.kill();
                    return Err(e);
                }
            }
        }
    }
    thread::sleep(Duration::from_micros(rng.u64(..5_000)));
    child.kill().and_then(|()| child.wait()).map_err(|e| format!("round {round}: cannot be killed: {e}"))?;
    // What it said before is still in the pipe.
    lines.iter().for_each(|line| killed.note(&line));
    Ok(killed)
}

fn listen(child: &mut Child) -> Result<Receiver<String>, String> {
    let out = child.stdout.take().ok_or("the process that writes has no output")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
            // Nobody listens any more once the test has failed.
            let _ = sender.send(line);
        }
    });
    Ok(receiver)
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
    }
    let mut violations = Vec::new();
    let mut present = BTreeSet::new();
    for key in keys() {
        let mut allowed = vec![known.get(&key).copied().flatten()];
        allowed.extend(killed.in_flight(&key).map(|write| (!write.is_delete()).then_some(write)));
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
        let Some(object) = storage.open(key, GetOptions::new().whole(true)).await? else { return Ok(None) };
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
struct Outcome {
    rounds: u64,
    opening: u64,
    in_flight: u64,
    with_leftovers: u64,
    acknowledged: usize,
    violations: Vec<String>,
}

impl Outcome {
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

    fn verdict(&self) -> Result<(), String> {
        if let Some(first) = self.violations.first() {
            return Err(format!("{} violations, the first: {first}", self.violations.len()));
        }
        if self.in_flight * 100 < self.rounds * IN_FLIGHT {
            return Err(format!("of {} kills only {} interrupted a write", self.rounds, self.in_flight));
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
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
        let storage = Storage::new(Memory::new()).erase();
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
}
