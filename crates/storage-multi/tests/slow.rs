//! What is written down of stores that miss writes, and how a store that is slow or fails is kept from making the whole slow.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use storage_core::{ListOptions, Storage};
use storage_multi::{Redundant, RedundantOptions, RepairOptions, Store};
use support::{How, Part};
use tokio::time::{Instant, sleep};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn parts() -> Vec<Part> {
    (0..3).map(Part::new).collect()
}

async fn open(parts: &[Part]) -> Storage<Redundant> {
    let stores = NAMES.iter().zip(parts).map(|(name, part)| Store::new(name, Arc::new(part.clone())).unwrap());
    Storage::typed(Redundant::open(stores.collect(), RedundantOptions::new()).await.unwrap())
}

async fn notes(parts: &[Part]) -> usize {
    let mut notes = 0;
    for part in parts {
        let options = ListOptions::new().prefix(".storage-multi/missed/");
        let listed = Storage::new(part.memory.clone()).list_with(options).await.unwrap();
        notes += listed.try_collect::<Vec<_>>().await.unwrap().len();
    }
    notes
}

fn calls(parts: &[Part], method: &str) -> u64 {
    parts.iter().map(|part| part.calls.lock().unwrap().get(method).map_or(0, |(times, _)| *times)).sum()
}

#[tokio::test(start_paused = true)]
async fn what_a_store_missed_is_mended_by_another_instance_without_reading_all() {
    for how in [
        How { gone: true, ..How::default() },
        How { paused: true, ..How::default() },
        How { full: true, ..How::default() },
    ] {
        let parts = parts();
        let storage = open(&parts).await;
        for n in 0..2000 {
            storage.put(format!("k{n:04}"), "v").await.unwrap();
        }
        sleep(Duration::from_secs(20)).await;
        assert_eq!(notes(&parts).await, 0);
        parts[2].set(how);
        for n in 0..50 {
            let key = format!("k{:04}", n * 7);
            if n % 5 == 0 { storage.delete(key).await.unwrap() } else { storage.put(key, "w").await.map(drop).unwrap() }
        }
        storage.put("k0007", "x").await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(storage.backend().status()[2].missed, 51);
        drop(storage);
        assert_eq!(notes(&parts).await, 50, "one for each key, whatever how often it was written");
        parts[2].set(How { gone: true, ..How::default() });
        let storage = open(&parts).await;
        let missed_only = || RepairOptions::new().missed_only(true);
        let report = storage.backend().repair_with(missed_only()).await.unwrap();
        assert_eq!((report.keys, report.written, report.unreachable.len()), (50, 0, 1));
        assert_eq!(notes(&parts).await, 50, "what is not mended stays written down");
        parts[2].set(How::default());
        parts.iter().for_each(|part| part.calls.lock().unwrap().clear());
        let report = storage.backend().repair_with(missed_only()).await.unwrap();
        assert_eq!((report.keys, report.written, report.failed), (50, 50, 0), "{report:?}");
        assert_eq!(notes(&parts).await, 0);
        assert!(calls(&parts, "stat") <= 250 && calls(&parts, "list") <= 3);
        assert_eq!(storage.backend().repair_with(missed_only()).await.unwrap().keys, 0);
        assert_eq!(storage.backend().repair().await.unwrap().written, 0, "something else was missed");
    }
}

/// A repair of everything mends what is written down, too.
#[tokio::test(start_paused = true)]
async fn a_whole_repair_clears_what_is_written_down() {
    let parts = parts();
    let storage = open(&parts).await;
    parts[0].set(How { full: true, ..How::default() });
    storage.put("k", "v").await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert_eq!((notes(&parts).await, storage.backend().status()[0].missed), (1, 1));
    parts[0].set(How::default());
    storage.backend().repair().await.unwrap();
    assert_eq!((notes(&parts).await, storage.backend().status()[0].missed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_again_and_again_is_left_alone_for_a_while() {
    let parts = parts();
    let storage = open(&parts).await;
    parts[1].set(How { gone: true, ..How::default() });
    for n in 0..200 {
        storage.put(format!("{n}"), "v").await.unwrap();
        assert_eq!(storage.get(format!("{n}")).await.unwrap().unwrap(), "v");
    }
    let status = &storage.backend().status()[1];
    assert!(status.breaker_open && (5..20).contains(&status.failures), "{status:?}");
    assert!(!storage.backend().status()[0].breaker_open);
    // Of the others both are needed, and one more that fails is too many.
    parts[2].set(How { gone: true, ..How::default() });
    storage.put("k", "v").await.unwrap_err();
    parts.iter().for_each(|part| part.set(How::default()));
    sleep(Duration::from_secs(11)).await;
    storage.put("k", "v").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(storage.backend().status().iter().all(|status| !status.breaker_open && status.failing == 0));
    assert_eq!(Storage::new(parts[1].memory.clone()).get("k").await.unwrap().unwrap(), "v");
}

/// Reads that follow one another: the time that 99 of 100 take at most, and how many requests there are for each.
async fn reads(slow: Option<How>) -> (Duration, f64) {
    let parts = parts();
    let storage = open(&parts).await;
    for n in 0..100 {
        storage.put(format!("{n}"), "v").await.unwrap();
    }
    sleep(Duration::from_secs(20)).await;
    parts.iter().for_each(|part| part.set(How { delay: 5, ..How::default() }));
    if let Some(slow) = slow {
        parts[0].set(slow);
    }
    const READS: usize = 4000;
    let mut took = Vec::new();
    parts.iter().for_each(|part| part.calls.lock().unwrap().clear());
    for n in 0..READS {
        let begun = Instant::now();
        assert_eq!(storage.get(format!("{}", n % 100)).await.unwrap().unwrap(), "v");
        took.push(begun.elapsed());
    }
    sleep(Duration::from_secs(20)).await;
    took.sort();
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let requests = (calls(&parts, "stat") + calls(&parts, "get")) as f64 / READS as f64;
    (took[READS * 99 / 100], requests)
}

#[tokio::test(start_paused = true)]
async fn reads_stay_fast_beside_a_slow_store_with_few_requests_more() {
    let (healthy, needed) = reads(None).await;
    for how in [How { delay: 400, ..How::default() }, How { paused: true, ..How::default() }] {
        let (slow, requests) = reads(Some(how)).await;
        println!(
            "p99 {healthy:?} healthy, {slow:?} with one store that is {how:?}; {needed:.3} and {requests:.3} requests"
        );
        assert!(slow <= healthy.mul_f64(1.2), "{slow:?} beside {healthy:?} with {how:?}");
        assert!(requests <= 3.0 * 1.05, "{requests} requests for a read, {needed} when all are well");
    }
}
