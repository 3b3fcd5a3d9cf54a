//! The whole over three stores, in virtual time: two instances whose clocks differ, stores that are slow, stop, refuse and lose answers, and
//! writers that are killed between any two steps. Everything follows from a seed, which a failure names.
//!
//! `STORAGE_MULTI_SCHEDULES` says how many (1,000 unless set), `STORAGE_MULTI_SEED` with which to begin.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use futures_util::{TryStreamExt, future::join_all};
use storage_config::Clock;
use storage_core::{ListItem, ListOptions, Result, Storage};
use storage_multi::{Redundant, RedundantOptions, Store};
use support::{How, Part};
use tokio::time::{Instant, sleep};

const NAMES: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 2] = ["x", "y"];

/// Virtual time, and how far this instance is from it.
#[derive(Debug)]
struct Skewed {
    begun: Instant,
    millis: i64,
}

impl Clock for Skewed {
    fn now(&self) -> SystemTime {
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.begun.elapsed();
        let skew = Duration::from_millis(self.millis.unsigned_abs());
        if self.millis < 0 { base - skew } else { base + skew }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Put,
    Delete,
    Read,
}

/// One call: when, and what came of it.
#[derive(Clone, Debug)]
struct Call {
    key: usize,
    what: What,
    value: String,
    begun: Duration,
    /// Never, if its outcome is not known.
    ended: Option<Duration>,
    /// The id of what was written or read; `None` for an absent value and for a write whose outcome is not known.
    id: Option<String>,
    /// A write that took no effect, or a read that failed.
    failed: bool,
}

type Calls = Arc<Mutex<Vec<Call>>>;

async fn open(parts: &[Part], killed: &Arc<Mutex<bool>>, clock: Skewed) -> Result<Storage<Redundant>> {
    let stores = NAMES.iter().zip(parts).map(|(name, part)| Store::new(name, Arc::new(part.for_instance(killed))));
    let options = RedundantOptions::new().clock(Arc::new(clock));
    Redundant::open(stores.collect::<Result<_>>()?, options).await.map(Storage::typed)
}

/// A client that makes some calls, one after the other.
async fn client(storage: Storage<Redundant>, mut rng: Rng, begun: Instant, calls: Calls, who: String) {
    for n in 0..rng.usize(3..9) {
        sleep(Duration::from_millis(rng.u64(0..200))).await;
        let key = rng.usize(..KEYS.len());
        let what = [What::Put, What::Put, What::Delete, What::Read, What::Read][rng.usize(..5)].clone();
        let value = format!("{who}{n}");
        let at = {
            let mut calls = calls.lock().unwrap();
            let begun = begun.elapsed();
            let value = value.clone();
            calls.push(Call { key, what: what.clone(), value, begun, ended: None, id: None, failed: false });
            calls.len() - 1
        };
        let name = KEYS[key];
        let done = match what {
            What::Put => {
                storage.put(name, value).await.map(|entry| Some((entry.etag.unwrap().to_string(), String::new())))
            }
            What::Delete => storage.delete(name).await.map(|()| None),
            What::Read => storage.get_with_entry(name, Default::default()).await.map(|found| {
                found
                    .map(|(value, entry)| (entry.etag.unwrap().to_string(), String::from_utf8(value.to_vec()).unwrap()))
            }),
        };
        let call = &mut calls.lock().unwrap()[at];
        match done {
            Ok(found) => {
                call.ended = Some(begun.elapsed());
                if what == What::Read {
                    call.value = found.as_ref().map(|(_, value)| value.clone()).unwrap_or_default();
                }
                call.id = found.map(|(id, _)| id);
            }
            Err(e) if what == What::Read || !e.is_ambiguous() => call.failed = true,
            Err(_) => {}
        }
    }
}

async fn schedule(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    fastrand::seed(seed);
    let begun = Instant::now();
    let parts: Vec<Part> = (0..3).map(|_| Part::new(rng.u64(..))).collect();
    let calls: Calls = Arc::default();
    let mut running = Vec::new();
    let mut killed = Vec::new();
    for instance in 0..2 {
        let kill = Arc::new(Mutex::new(false));
        let clock = Skewed { begun, millis: rng.i64(-5_000..=5_000) };
        let storage = open(&parts, &kill, clock).await.unwrap();
        for client_of in 0..2 {
            let who = format!("{instance}{client_of}-");
            running.push(tokio::spawn(client(storage.clone(), rng.fork(), begun, calls.clone(), who)));
        }
        killed.push(kill);
    }
    let faults = {
        let (parts, mut rng) = (parts.clone(), rng.fork());
        async move {
            let delay = rng.u64(0..60);
            parts.iter().for_each(|part| part.set(How { delay, ..How::default() }));
            for _ in 0..rng.usize(2..7) {
                sleep(Duration::from_millis(rng.u64(0..400))).await;
                let mut how = How { delay: rng.u64(0..300), ..How::default() };
                match rng.usize(..6) {
                    0 => how.gone = true,
                    1 => how.paused = true,
                    2 => how.full = true,
                    3 => (how.refused, how.lost) = (rng.u32(..400), rng.u32(..400)),
                    _ => {}
                }
                parts[rng.usize(..3)].set(how);
                if rng.u8(..6) == 0 {
                    *killed[rng.usize(..2)].lock().unwrap() = true;
                }
            }
            sleep(Duration::from_secs(rng.u64(0..30))).await;
            parts.iter().for_each(|part| part.set(How::default()));
            killed
        }
    };
    let killed = faults.await;
    // Those of a killed instance never end.
    sleep(Duration::from_secs(200)).await;
    for (client, instance) in running.into_iter().zip([0, 0, 1, 1]) {
        if *killed[instance].lock().unwrap() {
            client.abort();
        } else {
            client.await.unwrap();
        }
    }
    let storage = open(&parts, &Arc::default(), Skewed { begun, millis: 0 }).await.unwrap();
    for round in 0..2 {
        client_of_all(&storage, begun, &calls).await;
        if round == 0 {
            let report = storage.backend().repair().await.unwrap();
            assert_eq!(report.failed, 0, "{report:?}");
            let held = join_all(parts.iter().map(held)).await;
            assert!(held[0] == held[1] && held[0] == held[2], "after repair the stores differ: {held:?}");
        }
    }
    check(&calls.lock().unwrap());
}

/// Reads everything.
async fn client_of_all(storage: &Storage<Redundant>, begun: Instant, calls: &Calls) {
    for (key, name) in KEYS.iter().enumerate() {
        let at = begun.elapsed();
        let found = storage.get_with_entry(*name, Default::default()).await.unwrap();
        let value = found.as_ref().map(|(value, _)| String::from_utf8(value.to_vec()).unwrap()).unwrap_or_default();
        let id = found.map(|(_, entry)| entry.etag.unwrap().to_string());
        let ended = Some(begun.elapsed());
        calls.lock().unwrap().push(Call { key, what: What::Read, value, begun: at, ended, id, failed: false });
        sleep(Duration::from_millis(1)).await;
    }
}

async fn held(part: &Part) -> Vec<String> {
    let storage = Storage::new(part.memory.clone());
    let items: Vec<_> =
        storage.list_with(ListOptions::new().metadata(true)).await.unwrap().try_collect().await.unwrap();
    let mut held = Vec::new();
    for entry in items.into_iter().filter_map(ListItem::into_entry).filter(|entry| !entry.key.as_str().starts_with('.'))
    {
        let value = storage.get(&entry.key).await.unwrap().unwrap();
        held.push(format!("{} {value:?} {}", entry.key, entry.metadata.unwrap().to_json()));
    }
    held
}

/// No read sees less than what an acknowledged write or another read had before it began, nor what nobody wrote, nor what was written
/// without effect.
fn check(calls: &[Call]) {
    for read in calls.iter().filter(|call| call.what == What::Read && !call.failed && call.ended.is_some()) {
        let of_key: Vec<&Call> =
            calls.iter().filter(|call| call.key == read.key && !std::ptr::eq(*call, read)).collect();
        if read.id.is_some() {
            let written = of_key.iter().find(|call| call.what == What::Put && call.value == read.value);
            let written = written.unwrap_or_else(|| panic!("nobody wrote what was read: {read:?}"));
            assert!(!written.failed, "{read:?} saw a write that is said to have done nothing: {written:?}");
            assert!(written.begun <= read.ended.unwrap(), "{read:?} saw the future: {written:?}");
        }
        let before = of_key
            .iter()
            .filter(|call| !call.failed && call.id.is_some() && call.ended.is_some_and(|ended| ended < read.begun));
        for earlier in before {
            match &read.id {
                Some(id) => assert!(Some(id) >= earlier.id.as_ref(), "{read:?} went back behind {earlier:?}"),
                None => {
                    let deleted = of_key.iter().any(|call| {
                        call.what == What::Delete
                            && !call.failed
                            && call.begun <= read.ended.unwrap()
                            && call.ended.is_none_or(|ended| ended >= earlier.begun)
                    });
                    assert!(deleted, "{read:?} lost {earlier:?}");
                }
            }
        }
        // What was deleted does not come back.
        for deleted in
            of_key.iter().filter(|call| call.what == What::Delete && call.ended.is_some_and(|ended| ended < read.begun))
        {
            let (Some(_), false) = (&read.id, deleted.failed) else { continue };
            let written = of_key.iter().find(|call| call.what == What::Put && call.value == read.value).unwrap();
            assert!(written.ended.is_none_or(|ended| ended >= deleted.begun), "{read:?} saw what {deleted:?} removed");
        }
    }
}

#[test]
fn acknowledged_writes_are_kept_and_reads_do_not_go_back() {
    support::each_schedule("simulated", "STORAGE_MULTI_SCHEDULES", 1000, schedule);
}
