//! What the stores hold, and what becomes of the whole when one of them is gone, slow, full, emptied or wrong.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_config::Clock;
use storage_core::{Body, Bytes, ErrorKind, ListItem, ListOptions, Metadata, PutOptions, Result, Storage};
use storage_memory::Memory;
use storage_multi::{Redundant, RedundantOptions, Store};
use support::{How, Part};

const NAMES: [&str; 3] = ["a", "b", "c"];
const GONE: How = How { gone: true, paused: false, full: false, delay: 0, listed: None, refused: 0, lost: 0 };
const PAUSED: How = How { paused: true, gone: false, ..GONE };
const FULL: How = How { full: true, gone: false, ..GONE };

fn parts() -> Vec<Part> {
    (0..3).map(Part::new).collect()
}

async fn open_with(parts: &[Part], options: RedundantOptions) -> Result<Storage<Redundant>> {
    let stores = NAMES.iter().zip(parts).map(|(name, part)| Store::new(name, Arc::new(part.clone())));
    Redundant::open(stores.collect::<Result<_>>()?, options).await.map(Storage::typed)
}

async fn open(parts: &[Part]) -> Storage<Redundant> {
    open_with(parts, RedundantOptions::new()).await.unwrap()
}

fn raw(part: &Part) -> Storage {
    Storage::new(part.memory.clone())
}

/// Keys, values and metadata with the record.
async fn held(part: &Part) -> Vec<(String, Bytes, String)> {
    let storage = raw(part);
    let items: Vec<_> =
        storage.list_with(ListOptions::new().metadata(true)).await.unwrap().try_collect().await.unwrap();
    let mut held = Vec::new();
    for entry in items.into_iter().filter_map(ListItem::into_entry) {
        if !entry.key.as_str().starts_with(".storage-multi/m") {
            let value = storage.get(&entry.key).await.unwrap().unwrap();
            held.push((entry.key.to_string(), value, entry.metadata.unwrap().to_json()));
        }
    }
    held
}

async fn equal(parts: &[Part]) {
    let first = held(&parts[0]).await;
    for part in &parts[1..] {
        assert_eq!(held(part).await, first);
    }
}

async fn keys(storage: &Storage<Redundant>) -> Vec<String> {
    let items: Vec<_> = storage.list("").await.unwrap().try_collect().await.unwrap();
    items.iter().map(|entry| entry.key.to_string()).collect()
}

/// Until the last store has what a quorum had.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn every_store_holds_the_plain_value_under_its_own_key() {
    let parts = parts();
    let storage = open(&parts).await;
    let metadata = Metadata::new().field("n", 1).field("storage.multi", "a user's");
    let put = storage.put_with("k", "value", PutOptions::new().metadata(metadata.clone())).await.unwrap();
    storage.put(".storage-multi/x", "escaped").await.unwrap();
    settle().await;
    for part in &parts {
        assert_eq!(raw(part).get("k").await.unwrap().unwrap(), "value");
        assert_eq!(raw(part).get(".storage-multi/u/x").await.unwrap().unwrap(), "escaped");
    }
    equal(&parts).await;
    assert_eq!(keys(&storage).await, [".storage-multi/x", "k"]);
    let entry = storage.stat("k").await.unwrap().unwrap();
    assert_eq!((entry.metadata.as_deref(), &entry.etag), (Some(&metadata), &put.etag));
}

#[tokio::test(start_paused = true)]
async fn one_store_of_three_may_be_gone_paused_or_full() {
    for (how, reads) in [(GONE, true), (PAUSED, true), (FULL, true)] {
        for at in 0..3 {
            let parts = parts();
            let storage = open(&parts).await;
            storage.put("before", "1").await.unwrap();
            storage.put("kept", "1").await.unwrap();
            settle().await;
            parts[at].set(how);
            storage.put("after", "2").await.unwrap();
            storage.put("kept", "2").await.unwrap();
            storage.delete("before").await.unwrap();
            assert_eq!(storage.get("kept").await.unwrap().unwrap(), "2");
            assert_eq!(storage.get("before").await.unwrap(), None);
            if reads && !how.paused {
                assert_eq!(keys(&storage).await, ["after", "kept"]);
                storage.health().await.unwrap();
                assert!(storage.backend().status()[at].failures > 0, "{how:?} {at}");
            }
            parts[at].set(How::default());
            // Longer than a store is waited for.
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(keys(&storage).await, ["after", "kept"]);
            let report = storage.backend().repair().await.unwrap();
            assert_eq!((report.failed, report.unreachable.len()), (0, 0), "{report:?}");
            equal(&parts).await;
            let again = storage.backend().repair().await.unwrap();
            assert_eq!((again.keys, again.written, again.removed), (3, 0, 0));
        }
    }
}

/// One store whose listing breaks off is replaced by another, in the middle of it; with two the listing fails.
#[tokio::test(start_paused = true)]
async fn a_listing_goes_on_when_a_store_breaks_off() {
    for at in 0..3 {
        let parts = parts();
        let storage = open(&parts).await;
        for n in 0..50 {
            storage.put(format!("k{n:02}"), "v").await.unwrap();
        }
        settle().await;
        let broken = How { listed: Some(20), ..How::default() };
        parts[at].set(broken);
        for _ in 0..5 {
            assert_eq!(keys(&storage).await.len(), 50);
        }
        parts[(at + 1) % 3].set(broken);
        let listed = storage.list("").await.unwrap().try_collect::<Vec<_>>().await;
        let e = listed.unwrap_err();
        assert!(e.kind() == ErrorKind::Unavailable && !e.is_ambiguous(), "{e:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_writes_fail_and_what_became_of_them_is_settled_later() {
    let parts = parts();
    let storage = open(&parts).await;
    storage.put("k", "old").await.unwrap();
    settle().await;
    parts[0].set(How { full: true, ..How::default() });
    parts[1].set(How { full: true, ..How::default() });
    let e = storage.put("k", "new").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.is_ambiguous(), "{e:?}");
    parts.iter().for_each(|part| part.set(How::default()));
    let seen = storage.get("k").await.unwrap().unwrap();
    for _ in 0..20 {
        assert_eq!(storage.get("k").await.unwrap().unwrap(), if seen == "new" { "new" } else { "old" });
        if seen == "new" {
            break;
        }
    }
    storage.backend().repair().await.unwrap();
    equal(&parts).await;
    let after = storage.get("k").await.unwrap().unwrap();
    assert!(after == "new" || (after == "old" && seen == "old"));
    parts[0].set(GONE);
    parts[1].set(GONE);
    let e = storage.get("k").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && !e.is_ambiguous(), "{e:?}");
    let e = storage.put("k", "x").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && !e.is_ambiguous(), "{e:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_is_fenced_until_it_is_rebuilt() {
    let mut parts = parts();
    let storage = open(&parts).await;
    for n in 0..50 {
        storage.put(format!("k{n:02}"), format!("{n}")).await.unwrap();
    }
    settle().await;
    // What is put now the third store has not, and what is deleted it still has.
    parts[2].set(GONE);
    storage.delete("k07").await.unwrap();
    storage.put("k08", "newer").await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    drop(storage);
    // Another store in its place: one without a marker that holds what was deleted, and a value that the others never had.
    let exchanged = Part::new(9);
    for key in ["k07", "k08", "k09"] {
        let metadata = raw(&parts[2]).stat(key).await.unwrap().unwrap().metadata.unwrap();
        let value = raw(&parts[2]).get(key).await.unwrap().unwrap();
        raw(&exchanged).put_with(key, value, PutOptions::new().metadata(metadata)).await.unwrap();
    }
    raw(&exchanged).put("stray", "x").await.unwrap();
    parts[2] = exchanged;
    let storage = open(&parts).await;
    assert!(storage.backend().status()[2].fenced && !storage.backend().status()[1].fenced);
    assert_eq!(storage.get("k07").await.unwrap(), None);
    assert_eq!(storage.get("k08").await.unwrap().unwrap(), "newer");
    assert_eq!(storage.get("stray").await.unwrap(), None);
    assert_eq!(keys(&storage).await.len(), 49);
    // It counts for no quorum.
    parts[1].set(GONE);
    assert_eq!(storage.get("k01").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(storage.put("k01", "x").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(storage.backend().repair().await.unwrap_err().kind(), ErrorKind::Unavailable);
    parts[1].set(How::default());
    let report = storage.backend().repair().await.unwrap();
    assert_eq!((report.failed, report.removed), (0, 1), "{report:?}");
    assert!(!storage.backend().status()[2].fenced);
    equal(&parts).await;
    parts[1].set(GONE);
    assert_eq!(storage.get("k07").await.unwrap(), None);
    assert_eq!(storage.get("k08").await.unwrap().unwrap(), "newer");
    parts[1].set(How::default());
    assert!(!open(&parts).await.backend().status()[2].fenced);
}

#[tokio::test]
async fn a_value_that_is_not_what_was_written_is_found_and_another_store_asked() {
    let parts = parts();
    let storage = open(&parts).await;
    storage.put("k", "right").await.unwrap();
    settle().await;
    let metadata = raw(&parts[1]).stat("k").await.unwrap().unwrap().metadata.unwrap();
    raw(&parts[1]).put_with("k", "wrong", PutOptions::new().metadata(metadata)).await.unwrap();
    for _ in 0..50 {
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "right");
    }
    let wrong: Vec<u64> = storage.backend().status().iter().map(|store| store.wrong_values).collect();
    assert!(wrong[1] > 0 && wrong[0] == 0 && wrong[2] == 0, "{wrong:?}");
}

/// A value that others stored in one of the stores becomes a write.
#[tokio::test]
async fn what_others_store_is_taken_in() {
    let parts = parts();
    let storage = open(&parts).await;
    raw(&parts[0]).put_with("k", "theirs", PutOptions::new().metadata(Metadata::new().tag("t"))).await.unwrap();
    storage.backend().repair().await.unwrap();
    settle().await;
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "theirs");
    equal(&parts).await;
}

#[derive(Debug)]
struct Later(Mutex<Duration>);

impl Clock for Later {
    fn now(&self) -> SystemTime {
        SystemTime::now() + *self.0.lock().unwrap()
    }
}

#[tokio::test]
async fn deletions_are_forgotten_after_their_time_by_a_repair_of_all() {
    let parts = parts();
    let clock = Arc::new(Later(Mutex::default()));
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let options = RedundantOptions::new().clock(clock.clone()).tombstone_lifetime(days(10));
    let storage = open_with(&parts, options).await.unwrap();
    storage.put("k", "v").await.unwrap();
    storage.delete("k").await.unwrap();
    settle().await;
    assert_eq!(storage.backend().repair().await.unwrap().forgotten, 0);
    assert_eq!(held(&parts[0]).await.len(), 1);
    *clock.0.lock().unwrap() = days(9);
    assert_eq!(storage.backend().repair().await.unwrap().forgotten, 0);
    *clock.0.lock().unwrap() = days(11);
    parts[2].set(GONE);
    assert_eq!(storage.backend().repair().await.unwrap().forgotten, 0);
    parts[2].set(How::default());
    assert_eq!(storage.backend().repair().await.unwrap().forgotten, 1);
    for part in &parts {
        assert!(held(part).await.is_empty());
    }
    // A clock that goes back that far may not make a write older than what is there.
    storage.put("k", "v").await.unwrap();
    *clock.0.lock().unwrap() = Duration::ZERO;
    let behind = open(&parts).await;
    let e = behind.put("k", "w").await.unwrap_err();
    assert!(e.message().contains("more than 60 seconds ahead"), "{e}");
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_goes_to_all_and_a_store_that_stops_is_left_behind() {
    let parts = parts();
    let storage = open(&parts).await;
    let pieces = |n: usize| stream::iter((0..n).map(|n| Ok(Bytes::from(vec![n as u8; 100_000]))));
    storage.put("whole", Body::stream(pieces(50))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    equal(&parts).await;
    // One that is broken off leaves nothing, in no store.
    let broken = pieces(30).chain(stream::iter([Err(storage_core::Error::new(ErrorKind::InvalidInput, "broken"))]));
    assert_eq!(storage.put("broken", Body::stream(broken)).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    parts[1].set(PAUSED);
    storage.put("two", Body::stream(pieces(50))).await.unwrap();
    assert_eq!(storage.get("two").await.unwrap().unwrap().len(), 5_000_000);
    parts[1].set(How::default());
    tokio::time::sleep(Duration::from_secs(60)).await;
    storage.backend().repair().await.unwrap();
    equal(&parts).await;
    assert_eq!(keys(&storage).await, ["two", "whole"]);
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let refused = |opened: Result<Storage<Redundant>>, why: &str| {
        let e = opened.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.message().contains(why), "{e}");
    };
    let parts = parts();
    refused(open_with(&parts, RedundantOptions::new().write_quorum(4)).await, "at most the 3 stores");
    refused(open_with(&parts, RedundantOptions::new().write_quorum(0)).await, "at least 1");
    let short = RedundantOptions::new().tombstone_lifetime(Duration::from_secs(60));
    refused(open_with(&parts, short).await, "at least an hour");
    let twice = [parts[0].clone(), parts[1].clone(), parts[0].clone()];
    refused(open_with(&twice, RedundantOptions::new()).await, "one and the same");
    open(&parts).await;
    refused(open_with(&twice, RedundantOptions::new()).await, "one and the same");
    refused(open_with(&parts[..2], RedundantOptions::new()).await, "the set is of the stores");
    let others = self::parts();
    open(&others).await;
    let mixed = [parts[0].clone(), parts[1].clone(), others[2].clone()];
    refused(open_with(&mixed, RedundantOptions::new()).await, "another set");
    let full = self::parts();
    raw(&full[1]).put("k", "v").await.unwrap();
    refused(open_with(&full, RedundantOptions::new()).await, "`b` holds values already");
    let mut small = storage_memory::Config::default();
    small.max_value = Some(1000);
    let small: Vec<_> = [Memory::new(), Memory::with_config(small), Memory::new()]
        .into_iter()
        .zip(NAMES)
        .map(|(memory, name)| Store::new(name, Arc::new(memory)).unwrap())
        .collect();
    let storage = Storage::new(Redundant::open(small, RedundantOptions::new()).await.unwrap());
    assert_eq!(storage.info().limits.value, 1000);
    assert_eq!(storage.put("k", vec![0; 1001]).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

/// A store may be away while the others are connected to, but for the first time.
#[tokio::test]
async fn it_opens_without_one_of_its_stores() {
    let parts = parts();
    parts[0].set(GONE);
    assert_eq!(open_with(&parts, RedundantOptions::new()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    parts[0].set(How::default());
    open(&parts).await.put("k", "v").await.unwrap();
    settle().await;
    for at in 0..3 {
        parts[at].set(GONE);
        let storage = open(&parts).await;
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        storage.put("k", "v").await.unwrap();
        parts[at].set(How::default());
        storage.backend().repair().await.unwrap();
        equal(&parts).await;
    }
}
