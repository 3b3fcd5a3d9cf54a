//! One load for all who ask at the same time, and no load outlives a write.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gate;

use futures_util::{FutureExt, future::join_all};
use gate::Gate;
use storage_conformance::{Faults, Log, Recorder};
use storage_core::{
    BatchOptions, Body, BoxFuture, ByteRange, Bytes, CopyOptions, DeleteOptions, ErrorKind, GetOptions, PutOptions,
    Result, Storage, StorageBackend,
};
use storage_fs::Fs;
use storage_layer_cache::{Cache, CacheLayer};
use storage_memory::Memory;

/// The cache over a gate over memory, which has `old` under `key`; what reaches the memory; the memory itself.
async fn gated(gate: &Gate) -> (Storage<Cache<impl StorageBackend + use<>>>, Log, Storage) {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    below.put("key", "old").await.unwrap();
    let recorder = Recorder::new(memory);
    let log = recorder.log();
    let storage = Storage::typed(recorder).layer(gate.clone()).layer(CacheLayer::new());
    (storage, log, below)
}

fn hits_and_misses<S: StorageBackend>(storage: &Storage<Cache<S>>) -> (u64, u64) {
    let stats = storage.backend().stats();
    (stats.hits, stats.misses)
}

#[tokio::test]
async fn a_thousand_readers_who_wait_for_a_held_load_make_one() {
    let gate = Gate::new("get");
    let (storage, log, _) = gated(&gate).await;
    let mut readers: Vec<_> = (0..1000).map(|_| Box::pin(storage.get("key"))).collect();
    for reader in &mut readers {
        assert!(reader.now_or_never().is_none());
    }
    assert_eq!(log.take(), ["get"]);
    gate.release(1);
    for read in join_all(readers).await {
        assert_eq!(read.unwrap(), Some("old".into()));
    }
    assert_eq!(log.take(), [""; 0]);
    assert_eq!(hits_and_misses(&storage), (999, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_readers_on_several_threads_make_one_load() {
    for _ in 0..20 {
        let gate = Gate::new("get");
        let (storage, log, _) = gated(&gate).await;
        let readers = (0..1000).map(|_| {
            let storage = storage.clone();
            tokio::spawn(async move { storage.get("key").await })
        });
        let readers: Vec<_> = readers.collect();
        gate.arrived().await;
        // A second load would not be held, only counted.
        gate.release(1000);
        for read in join_all(readers).await {
            assert_eq!(read.unwrap().unwrap(), Some("old".into()));
        }
        assert_eq!(log.take(), ["get"]);
        assert_eq!(hits_and_misses(&storage), (999, 1));
    }
}

#[tokio::test]
async fn a_cancelled_loader_strands_nobody() {
    let gate = Gate::new("get");
    let (storage, log, _) = gated(&gate).await;
    let mut readers: Vec<_> = (0..10).map(|_| Box::pin(storage.get("key"))).collect();
    for reader in &mut readers {
        assert!(reader.now_or_never().is_none());
    }
    // The one that began the load goes, and five others.
    readers.drain(..6);
    gate.release(1);
    for read in join_all(readers).await {
        assert_eq!(read.unwrap(), Some("old".into()));
    }
    assert_eq!(log.take(), ["get"]);

    // When all go, the load goes too, and the next reader begins anew.
    storage.delete("key").await.unwrap();
    storage.put("key", Body::stream(futures_util::stream::iter([Ok(Bytes::from("new"))]))).await.unwrap();
    let mut gone = Box::pin(storage.get("key"));
    assert!((&mut gone).now_or_never().is_none());
    drop(gone);
    gate.release(1);
    assert_eq!(storage.get("key").await.unwrap(), Some("new".into()));
    assert_eq!(storage.get("key").await.unwrap(), Some("new".into()));
    assert_eq!(log.take(), ["delete", "put", "get", "get"]);
}

type Write = fn(Storage) -> BoxFuture<'static, Result<()>>;

/// Each way to change `key` to `new`, or to nothing; what is there afterwards.
const WRITES: [(&str, Write, Option<&str>); 12] = [
    ("put", |s| Box::pin(async move { s.put("key", "new").await.map(drop) }), Some("new")),
    (
        "put of a stream",
        |s| {
            let body = Body::stream(futures_util::stream::iter([Ok(Bytes::from("new"))]));
            Box::pin(async move { s.put("key", body).await.map(drop) })
        },
        Some("new"),
    ),
    ("delete", |s| Box::pin(async move { s.delete("key").await }), None),
    (
        "delete of the version",
        |s| {
            Box::pin(async move {
                let version = s.stat("key").await?.unwrap().version.unwrap();
                s.delete_with("key", DeleteOptions::new().version(version)).await
            })
        },
        None,
    ),
    (
        "put_batch",
        |s| Box::pin(async move { s.put_batch([("other", "x"), ("key", "new")]).await.map(drop) }),
        Some("new"),
    ),
    (
        "atomic put_batch",
        |s| {
            let items = [("key", "new", PutOptions::new())];
            Box::pin(async move { s.put_batch_with(items, BatchOptions::new().atomic(true)).await.map(drop) })
        },
        Some("new"),
    ),
    ("delete_batch", |s| Box::pin(async move { s.delete_batch(["other", "key"]).await }), None),
    ("clear", |s| Box::pin(async move { s.clear_prefix("ke").await }), None),
    ("copy", |s| Box::pin(async move { s.copy("source", "key").await.map(drop) }), Some("new")),
    ("rename to it", |s| Box::pin(async move { s.rename("source", "key").await.map(drop) }), Some("new")),
    ("rename of it", |s| Box::pin(async move { s.rename("key", "elsewhere").await.map(drop) }), None),
    (
        "transaction",
        |s| {
            Box::pin(async move {
                s.transaction(|tx| async move {
                    tx.get("key").await?;
                    tx.copy_with("source", "key", CopyOptions::new()).await.map(drop)
                })
                .await
            })
        },
        Some("new"),
    ),
];

/// The method of the backend with which such a write takes effect.
fn method(what: &'static str) -> &'static str {
    match what {
        "transaction" => "commit",
        "atomic put_batch" => "put_batch",
        _ => what.split(' ').next().unwrap(),
    }
}

#[tokio::test]
async fn a_write_during_a_load_is_never_overwritten_by_it() {
    for (what, write, after) in WRITES {
        let gate = Gate::new("get");
        let (storage, _, below) = gated(&gate).await;
        below.put("source", "new").await.unwrap();
        let mut older = Box::pin(storage.get("key"));
        assert!((&mut older).now_or_never().is_none());
        gate.arrived().await;
        let mut begun_before = Box::pin(storage.get("key"));
        assert!((&mut begun_before).now_or_never().is_none(), "{what}: it joins the older load");
        // The gate holds a transaction's own read too, behind that of the load, which nobody polls before the write is done.
        gate.release(if what == "transaction" { 2 } else { 0 });
        write(storage.clone().erase()).await.unwrap();
        let expected = after.map(Bytes::from);
        gate.release(8);
        let read = storage.get("key").await.unwrap();
        assert_eq!(read, expected, "{what}: a read begun after the write");
        for older in [older, begun_before] {
            assert_eq!(older.await.unwrap(), Some("old".into()), "{what}: their reads began before the write");
        }
        assert_eq!(storage.get("key").await.unwrap(), expected, "{what}: after the older load has ended");
        assert_eq!(storage.stat("key").await.unwrap().is_some(), after.is_some(), "{what}");
    }
}

#[tokio::test]
async fn while_a_write_is_under_way_nothing_is_served_from_memory_or_kept() {
    for (what, write, after) in WRITES {
        for cancelled in [false, true] {
            let gate = Gate::new(method(what));
            let (storage, log, below) = gated(&gate).await;
            below.put("source", "new").await.unwrap();
            storage.get("key").await.unwrap();
            let mut write = write(storage.clone().erase());
            assert!((&mut write).now_or_never().is_none());
            gate.arrived().await;
            // The write has been done below and is not acknowledged yet.
            let _ = log.take();
            let expected = after.map(Bytes::from);
            for _ in 0..2 {
                assert_eq!(storage.get("key").await.unwrap(), expected, "{what}");
                assert_eq!(storage.stat("key").await.unwrap().is_some(), after.is_some(), "{what}");
                assert_eq!(storage.get_batch(["key"]).await.unwrap().into_values().next(), expected, "{what}");
            }
            assert_eq!(log.take(), ["get", "stat", "get_batch", "get", "stat", "get_batch"], "{what}");
            gate.release(1);
            if cancelled {
                drop(write);
            } else {
                write.await.unwrap();
            }
            for _ in 0..2 {
                assert_eq!(storage.get("key").await.unwrap(), expected, "{what}");
            }
            let reads = if cancelled || after.is_none() { 2 } else { usize::from(what != "put") };
            assert_eq!(log.take(), vec!["get"; reads], "{what}");
        }
    }
}

#[tokio::test]
async fn what_was_read_while_a_write_was_under_way_is_for_its_reader_alone() {
    for (what, write, after) in WRITES {
        let (writing, reading) = (Gate::before(method(what)), Gate::new("get"));
        let memory = Memory::new();
        let below = Storage::new(memory.clone());
        below.put("key", "old").await.unwrap();
        below.put("source", "new").await.unwrap();
        let storage = Storage::new(memory).layer(writing.clone()).layer(reading.clone()).layer(CacheLayer::new());
        let mut write = write(storage.clone());
        reading.release(usize::from(what == "transaction"));
        assert!((&mut write).now_or_never().is_none());
        writing.arrived().await;
        let mut older = Box::pin(storage.get("key"));
        assert!((&mut older).now_or_never().is_none(), "{what}: it has read the old value and is held");
        writing.release(1);
        write.await.unwrap();
        reading.release(8);
        let expected = after.map(Bytes::from);
        assert_eq!(storage.get("key").await.unwrap(), expected, "{what}");
        assert_eq!(older.await.unwrap(), Some("old".into()), "{what}");
        assert_eq!(storage.get("key").await.unwrap(), expected, "{what}");
    }
}

#[tokio::test]
async fn of_two_writes_at_once_none_is_kept() {
    for order in [[0, 1], [1, 0]] {
        let gate = Gate::new("put");
        let (storage, log, below) = gated(&gate).await;
        let mut writes = ["one", "two"].map(|value| Some(Box::pin(storage.put("key", value))));
        for write in writes.iter_mut().flatten() {
            assert!(write.now_or_never().is_none());
        }
        gate.release(2);
        for i in order {
            writes[i].take().unwrap().await.unwrap();
        }
        let _ = log.take();
        assert_eq!(storage.get("key").await.unwrap(), below.get("key").await.unwrap());
        assert_eq!(log.take(), ["get"]);
    }
}

#[tokio::test]
async fn a_failed_load_fails_all_who_wait_once_and_is_not_kept() {
    let memory = Memory::new();
    Storage::new(memory.clone()).put("key", "value").await.unwrap();
    let gate = Gate::new("get");
    let failing = Storage::typed(Faults::new(memory.clone(), 1).before(1.0).only(["get"]));
    let faults = failing.backend().clone();
    let storage = failing.layer(gate.clone()).layer(CacheLayer::new());
    let mut readers: Vec<_> = (0..1000).map(|_| Box::pin(storage.get("key"))).collect();
    for reader in &mut readers {
        assert!(reader.now_or_never().is_none());
    }
    gate.release(1);
    let failures: Vec<_> = join_all(readers).await.into_iter().map(Result::unwrap_err).collect();
    assert_eq!(faults.planted(), 1, "one load");
    for e in failures {
        assert_eq!(e.kind(), ErrorKind::Unavailable);
        assert_eq!(e.to_string(), r#"memory: get "key": a planted fault before the call; try again"#);
    }
    gate.release(2);
    for loads in 2..4 {
        assert!(storage.get("key").await.is_err());
        assert_eq!(faults.planted(), loads, "an error is not kept");
    }
}

#[tokio::test]
async fn a_load_that_breaks_off_is_an_error_and_the_next_one_is_made() {
    for short in [true, false] {
        let memory = Memory::new();
        Storage::new(memory.clone()).put("key", vec![7; 100_000]).await.unwrap();
        let faults = Faults::new(memory, 5);
        let faults = if short { faults.short_body(0.5) } else { faults.reset(0.5) };
        let storage = Storage::new(faults).layer(CacheLayer::new());
        let (mut failed, mut read) = (0, 0);
        for _ in 0..30 {
            // Straight to the layer: the handle would notice a short body by itself.
            match storage.backend().get(&storage_core::Key::parse("key").unwrap(), GetOptions::new()).await {
                Ok(object) => {
                    read += 1;
                    assert_eq!(object.unwrap().body.bytes(u64::MAX).await.unwrap(), vec![7; 100_000]);
                    storage.delete("none").await.unwrap();
                    storage.clear_prefix("none").await.unwrap();
                }
                Err(e) => {
                    failed += 1;
                    assert_eq!(e.kind(), ErrorKind::Unavailable);
                }
            }
        }
        assert!(failed > 3 && read > 3, "{failed} failed, {read} did not");
    }
}

#[tokio::test]
async fn large_values_are_streamed_through() {
    let dir = tempfile::tempdir().unwrap();
    let below = Storage::new(Fs::open(dir.path()).await.unwrap());
    below.put("large", vec![1; 3 << 20]).await.unwrap();
    below.put("small", vec![2; 1 << 20]).await.unwrap();
    let recorder = Recorder::new(below.backend().clone());
    let log = recorder.log();
    let storage = Storage::typed(recorder).layer(CacheLayer::new());
    for _ in 0..2 {
        let object = storage.open("large", GetOptions::new()).await.unwrap().unwrap();
        assert!(!object.body.is_in_memory());
        assert_eq!(object.body.bytes(u64::MAX).await.unwrap(), vec![1; 3 << 20]);
    }
    assert_eq!(log.take(), ["get", "get"], "one each: what the load opened goes to the reader");
    let reads = join_all((0..5).map(|_| storage.get("large"))).await;
    assert!(reads.into_iter().all(|read| read.unwrap().unwrap().len() == 3 << 20));
    for _ in 0..2 {
        assert_eq!(storage.get("small").await.unwrap().unwrap(), vec![2; 1 << 20]);
    }
    let range = GetOptions::new().range(ByteRange::Suffix(5));
    assert_eq!(storage.get_with("large", range).await.unwrap().unwrap(), vec![1; 5]);
    assert_eq!(log.take(), ["get"; 7], "five for the large one, one for the small one, one for the range");
    let stats = storage.backend().stats();
    assert_eq!(stats.entries, 1);
    assert!(stats.bytes < (1 << 20) + 2000, "{stats:?}");
}
