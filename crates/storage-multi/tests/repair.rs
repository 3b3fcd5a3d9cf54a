//! What a repair reads, and how it goes on where it was broken off.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{ListItem, ListOptions, Storage};
use storage_multi::{Redundant, RedundantOptions, RepairOptions, Store};
use support::{How, Part};
use tokio::time::{sleep, timeout};

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn open(parts: &[Part]) -> Storage<Redundant> {
    let stores = NAMES.iter().zip(parts).map(|(name, part)| Store::new(name, Arc::new(part.clone())).unwrap());
    Storage::typed(Redundant::open(stores.collect(), RedundantOptions::new()).await.unwrap())
}

async fn fill(storage: &Storage<Redundant>, keys: usize, value: &str) {
    let puts = (0..keys).map(|n| storage.put(format!("k{n:07}"), value.to_owned()));
    stream::iter(puts).buffer_unordered(64).try_for_each(|_| std::future::ready(Ok(()))).await.unwrap();
}

async fn held(part: &Part) -> Vec<(String, String)> {
    let raw = Storage::new(part.memory.clone());
    let items: Vec<_> = raw.list_with(ListOptions::new().metadata(true)).await.unwrap().try_collect().await.unwrap();
    let entries = items.into_iter().filter_map(ListItem::into_entry);
    let users = entries.filter(|entry| !entry.key.as_str().starts_with(".storage-multi/"));
    users.map(|entry| (entry.key.to_string(), entry.metadata.unwrap().to_json())).collect()
}

fn calls(parts: &[Part], method: &str) -> (u64, u64) {
    let of = |part: &Part| part.calls.lock().unwrap().get(method).copied().unwrap_or_default();
    parts.iter().map(of).fold((0, 0), |(times, bytes), (t, b)| (times + t, bytes + b))
}

/// `STORAGE_MULTI_KEYS` says how many keys there are (10,000 unless set); 100 of them differ.
#[tokio::test(start_paused = true)]
async fn beside_the_listings_little_is_read() {
    let keys: usize = env::var("STORAGE_MULTI_KEYS").map_or(10_000, |text| text.parse().unwrap());
    let parts: Vec<Part> = (0..3).map(Part::new).collect();
    let storage = open(&parts).await;
    fill(&storage, keys, &"v".repeat(200)).await;
    parts[1].set(How { gone: true, ..How::default() });
    for n in 0..100 {
        let key = format!("k{:07}", n * (keys / 100));
        if n % 4 == 0 {
            storage.delete(key).await.unwrap()
        } else {
            storage.put(key, "w".repeat(200)).await.map(drop).unwrap()
        }
    }
    sleep(Duration::from_secs(60)).await;
    parts[1].set(How::default());
    parts.iter().for_each(|part| part.calls.lock().unwrap().clear());
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let options = RepairOptions::new().progress(move |report| tell.lock().unwrap().push(report.clone()));
    let report = storage.backend().repair_with(options).await.unwrap();
    assert_eq!((report.keys, report.written, report.failed), (keys as u64, 100, 0), "{report:?}");
    assert_eq!(report.bytes, 75 * 200);
    let told = told.lock().unwrap().clone();
    assert!(told.len() == keys / 1000 + 1 && told.windows(2).all(|pair| pair[0].keys <= pair[1].keys));
    assert_eq!(told.last(), Some(&report));
    let (times, bytes) = calls(&parts, "get");
    let all = (keys * 200) as u64;
    assert!(bytes * 100 <= all, "{bytes} of {all} bytes were read, by {times} reads");
    // The markers, the notes and what differs are asked for.
    assert!(times <= 220 && calls(&parts, "stat").0 <= 600, "{times}, {:?}", calls(&parts, "stat"));
    assert!(calls(&parts, "list").0 <= 9);
    let (a, b, c) = (held(&parts[0]).await, held(&parts[1]).await, held(&parts[2]).await);
    assert!(a.len() == keys && a == b && a == c);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_broken_off_is_gone_on_with() {
    let mut parts: Vec<Part> = (0..3).map(Part::new).collect();
    let storage = open(&parts).await;
    fill(&storage, 5000, "v").await;
    sleep(Duration::from_secs(20)).await;
    // The third store is lost, and another is in its place.
    drop(storage);
    parts[2] = Part::new(7);
    let broken_off = async |after: u64| {
        let storage = open(&parts).await;
        assert!(storage.backend().status()[2].fenced);
        let part = parts[2].clone();
        let options = RepairOptions::new().progress(move |report| {
            if report.keys == after {
                part.set(How { paused: true, ..How::default() });
            }
        });
        assert!(timeout(Duration::from_secs(5), storage.backend().repair_with(options)).await.is_err());
        parts[2].set(How::default());
    };
    broken_off(2000).await;
    let storage = open(&parts).await;
    assert!(storage.backend().status()[2].fenced, "a store that is half rebuilt counts");
    let report = storage.backend().repair().await.unwrap();
    assert_eq!(report.resumed_after.as_deref(), Some("k0001999"));
    assert_eq!((report.keys, report.written, report.failed), (3000, 3000, 0), "{report:?}");
    assert!(!storage.backend().status()[2].fenced);
    assert!(held(&parts[0]).await == held(&parts[2]).await && held(&parts[2]).await.len() == 5000);
    // One that is exchanged once more is compared from the beginning, as is everything when that is asked for.
    parts[2] = Part::new(8);
    let broken_off = async |parts: &[Part]| {
        let storage = open(parts).await;
        let part = parts[2].clone();
        let options = RepairOptions::new().progress(move |report| {
            if report.keys == 2000 {
                part.set(How { paused: true, ..How::default() });
            }
        });
        assert!(timeout(Duration::from_secs(5), storage.backend().repair_with(options)).await.is_err());
        parts[2].set(How::default());
    };
    broken_off(&parts).await;
    parts[2] = Part::new(9);
    let report = open(&parts).await.backend().repair().await.unwrap();
    assert_eq!((report.resumed_after, report.keys, report.written), (None, 5000, 5000));
    parts[2] = Part::new(10);
    broken_off(&parts).await;
    let report = open(&parts).await.backend().repair_with(RepairOptions::new().resume(false)).await.unwrap();
    assert_eq!((report.resumed_after, report.keys, report.written), (None, 5000, 3000));
    assert!(held(&parts[0]).await == held(&parts[2]).await);
}
