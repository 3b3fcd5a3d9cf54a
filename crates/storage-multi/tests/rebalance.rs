//! Values that are moved while they are read and written, in virtual time: instances that know each other through the stores alone, stores that
//! are slow, stop, refuse and lose answers, and whoever moves the values killed between any two steps. Everything follows from a seed, which
//! a failure names.
//!
//! `STORAGE_MULTI_REBALANCES` says how many schedules (600 unless set), `STORAGE_MULTI_SEED` with which to begin.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use futures_util::TryStreamExt;
use storage_core::{Error, PutOptions, Result, Storage};
use storage_multi::{RebalanceOptions, Sharded, ShardedOptions, Store};
use support::{How, Part};
use tokio::time::{Instant, sleep, timeout};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: usize = 12;
const CLIENTS: usize = 3;

type Weights = [Option<u32>; 4];

/// A write of a key by the one client that writes it: the value, or `None` for a delete.
#[derive(Clone, Debug)]
struct Write {
    value: Option<String>,
    begun: Instant,
    /// When it was acknowledged.
    done: Option<Instant>,
    /// It took no effect.
    failed: bool,
}

/// All writes of each key, in order.
type Log = Arc<Mutex<Vec<Vec<Write>>>>;

async fn open(parts: &[Part], weights: &Weights, killed: &Arc<Mutex<bool>>) -> Result<Sharded> {
    let mut stores = Vec::new();
    for ((name, part), weight) in NAMES.iter().zip(parts).zip(weights) {
        if let Some(weight) = weight {
            stores.push(Store::new(name, Arc::new(part.for_instance(killed)))?.with_weight(*weight)?);
        }
    }
    Sharded::open_with(stores, ShardedOptions::new().rebalance(true)).await
}

fn name(key: usize) -> String {
    format!("dir{}/k{key}", key % 3)
}

/// Whether a read between two times may have seen this.
fn check(log: &[Write], seen: Option<&str>, begun: Instant, ended: Instant, what: &str) {
    let overtaken = |at: usize| log[at + 1..].iter().any(|later| later.done.is_some_and(|done| done < begun));
    let possible = log
        .iter()
        .enumerate()
        .any(|(at, write)| write.value.as_deref() == seen && write.begun <= ended && !write.failed && !overtaken(at));
    let never = seen.is_none() && !log.iter().any(|write| write.done.is_some_and(|done| done < begun));
    assert!(possible || never, "{what} saw {seen:?} from {begun:?} to {ended:?} of {log:#?}");
}

/// What every read must have seen of a key: it was that before, and nobody wrote it.
fn stable(log: &[Write], begun: Instant, ended: Instant) -> Option<Option<String>> {
    let last = log.iter().rposition(|write| write.begun <= ended && !write.failed)?;
    log[last].done.is_some_and(|done| done < begun).then(|| log[last].value.clone())
}

async fn client(storage: Storage<Sharded>, who: usize, mut rng: Rng, log: Log, once: Log) {
    for n in 0..rng.usize(20..60) {
        sleep(Duration::from_millis(rng.u64(0..1500))).await;
        let begun = Instant::now();
        let own = who + CLIENTS * rng.usize(..KEYS / CLIENTS);
        let write = |value: Option<String>| {
            let mut log = log.lock().unwrap();
            log[own].push(Write { value, begun: Instant::now(), done: None, failed: false });
            log[own].len() - 1
        };
        let close = |at: usize, done: std::result::Result<(), Error>| {
            let write = &mut log.lock().unwrap()[own][at];
            match done {
                Ok(()) => write.done = Some(Instant::now()),
                Err(e) => write.failed = !e.is_ambiguous(),
            }
        };
        let value = format!("{who}-{n}");
        match rng.usize(..12) {
            0..=2 => {
                let at = write(Some(value.clone()));
                close(at, storage.put(name(own), value).await.map(drop));
            }
            3 | 4 => {
                let at = write(None);
                close(at, storage.delete(name(own)).await);
            }
            5 => {
                let Ok(entry) = storage.stat(name(own)).await else { continue };
                let options = match entry {
                    Some(entry) => PutOptions::new().if_match(&entry.etag.unwrap()),
                    None => PutOptions::new().if_absent(),
                };
                let at = write(Some(value.clone()));
                close(at, storage.put_with(name(own), value, options).await.map(drop));
            }
            6 => {
                // Of all who write it on condition that there is nothing, one succeeds.
                let key = rng.usize(..4);
                let done = storage.put_with(format!("once/{key}"), value.clone(), PutOptions::new().if_absent()).await;
                let (ended, failed) = match done {
                    Ok(_) => (Some(Instant::now()), false),
                    Err(e) => (None, !e.is_ambiguous()),
                };
                once.lock().unwrap()[key].push(Write { value: Some(value), begun, done: ended, failed });
            }
            7 => {
                let Ok(listed) = storage.list("dir").await else { continue };
                let listed: Result<Vec<_>> = listed.map_ok(|entry| entry.key.to_string()).try_collect().await;
                let (Ok(listed), ended) = (listed, Instant::now()) else { continue };
                assert!(listed.windows(2).all(|pair| pair[0] < pair[1]), "{listed:?}");
                for (key, log) in log.lock().unwrap().iter().enumerate() {
                    match stable(log, begun, ended) {
                        Some(Some(_)) => {
                            assert!(listed.contains(&name(key)), "{} is not in {listed:?}: {log:#?}", name(key))
                        }
                        Some(None) => assert!(!listed.contains(&name(key)), "{} is in {listed:?}: {log:#?}", name(key)),
                        None => {}
                    }
                }
            }
            _ => {
                let key = rng.usize(..KEYS);
                if let Ok(found) = storage.get(name(key)).await {
                    let found = found.map(|value| String::from_utf8(value.to_vec()).unwrap());
                    check(&log.lock().unwrap()[key], found.as_deref(), begun, Instant::now(), &name(key));
                }
            }
        }
    }
}

async fn schedule(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    fastrand::seed(seed);
    let parts: Vec<Part> = (0..4)
        .map(|_| {
            let part = Part::new(rng.u64(..));
            if seed % 4 == 3 { part.without_conditional_delete() } else { part }
        })
        .collect();
    let (before, after): (Weights, Weights) = match rng.usize(..4) {
        0 | 1 => ([Some(1), Some(1), Some(1), None], [Some(1), Some(1), Some(1), Some(1)]),
        2 => ([Some(1), Some(1), Some(1), Some(1)], [Some(1), Some(1), Some(0), Some(1)]),
        _ => ([Some(1), Some(1), Some(1), None], [Some(3), Some(1), Some(0), Some(2)]),
    };
    let alive: Arc<Mutex<bool>> = Arc::default();
    open(&parts, &before, &alive).await.unwrap();
    let log: Log = Arc::new(Mutex::new(vec![Vec::new(); KEYS]));
    let once: Log = Arc::new(Mutex::new(vec![Vec::new(); 4]));
    let mut running = Vec::new();
    for who in 0..CLIENTS {
        let storage = Storage::typed(open(&parts, &after, &alive).await.unwrap());
        running.push(tokio::spawn(client(storage, who, rng.fork(), log.clone(), once.clone())));
    }
    sleep(Duration::from_millis(rng.u64(0..10_000))).await;
    for _ in 0..rng.usize(1..5) {
        let mut how = How { delay: rng.u64(0..200), ..How::default() };
        match rng.usize(..6) {
            0 => how.gone = true,
            1 => (how.refused, how.lost) = (rng.u32(..200), rng.u32(..200)),
            _ => {}
        }
        parts[rng.usize(..4)].set(how);
        // Whoever moves the values, until he is killed.
        let killed = Arc::default();
        if let Ok(mover) = open(&parts, &after, &killed).await {
            let moving = tokio::spawn(async move { mover.rebalance(RebalanceOptions::new().at_once(2)).await });
            sleep(Duration::from_millis(rng.u64(0..20_000))).await;
            *killed.lock().unwrap() = true;
            sleep(Duration::from_millis(rng.u64(0..2000))).await;
            moving.abort();
        }
        parts.iter().for_each(|part| part.set(How { delay: rng.u64(0..100), ..How::default() }));
    }
    let two = rng.bool();
    let mover = open(&parts, &after, &alive).await.unwrap();
    let other = mover.clone();
    let also =
        tokio::spawn(
            async move { if two { other.rebalance(RebalanceOptions::new()).await.map(drop) } else { Ok(()) } },
        );
    let begun = Instant::now();
    timeout(Duration::from_secs(600), mover.rebalance(RebalanceOptions::new())).await.unwrap().unwrap();
    also.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(300));
    for client in running {
        timeout(Duration::from_secs(3600), client).await.unwrap().unwrap();
    }
    let (log, once) = (log.lock().unwrap().clone(), once.lock().unwrap().clone());
    settled(&parts, &after, &mover, &log, &once).await;
}

/// Everything is at its new home and nowhere else, and is what was written.
async fn settled(parts: &[Part], after: &Weights, mover: &Sharded, log: &[Vec<Write>], once: &[Vec<Write>]) {
    let storage = Storage::typed(mover.clone());
    let now = Instant::now();
    let mut expected = 0;
    for (key, log) in log.iter().enumerate() {
        let found = storage.get(name(key)).await.unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap());
        check(log, found.as_deref(), now, now, &name(key));
        expected += usize::from(found.is_some());
    }
    for (key, writes) in once.iter().enumerate() {
        let found = storage.get(format!("once/{key}")).await.unwrap();
        let acknowledged: Vec<_> = writes.iter().filter(|write| write.done.is_some()).collect();
        assert!(acknowledged.len() <= 1, "{writes:#?}");
        let found = found.map(|value| String::from_utf8(value.to_vec()).unwrap());
        if let Some(one) = acknowledged.first() {
            assert_eq!(found, one.value, "{writes:#?}");
        }
        expected += usize::from(found.is_some());
    }
    let mut held = 0;
    for (part, weight) in parts.iter().zip(after) {
        let raw = Storage::new(part.memory.clone());
        let keys: Vec<_> = raw.list("").await.unwrap().try_collect().await.unwrap();
        let own = keys.iter().filter(|entry| !entry.key.as_str().starts_with(".storage-multi/")).count();
        assert!(own == 0 || *weight != Some(0), "{keys:?}");
        held += own;
    }
    assert_eq!(held, expected, "something is in two stores, or where nobody finds it");
    // It is opened without the store that was emptied, and without the option.
    let without: Vec<_> = NAMES.iter().zip(parts).zip(after).filter(|(_, weight)| **weight != Some(0)).collect();
    let stores = without.into_iter().map(|((name, part), weight)| {
        Store::new(name, Arc::new(part.memory.clone())).unwrap().with_weight(weight.unwrap()).unwrap()
    });
    Sharded::open(stores.collect()).await.unwrap();
}

#[test]
fn nothing_is_lost_and_nothing_comes_back_while_values_are_moved() {
    support::each_schedule("rebalance", "STORAGE_MULTI_REBALANCES", 600, schedule);
}
