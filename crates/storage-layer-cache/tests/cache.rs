//! A hit is as good as a read, whoever writes, fails or goes away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gate;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all, stream};
use gate::Gate;
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    BackendInfo, Body, Bytes, Condition, Consistency, CopyOptions, DeleteOptions, Entry, ErrorKind, GetOptions, Key,
    ListOptions, ListStream, Metadata, Object, PutOptions, Result, StatOptions, Storage, StorageBackend, async_trait,
};
use storage_layer::OperationName;
use storage_layer_cache::{CacheLayer, Cached};
use storage_memory::Memory;
use tokio::sync::Notify;

fn over<B: StorageBackend>(backend: B) -> Storage<Cached<B>> {
    Storage::new(backend).layer(CacheLayer::new())
}

fn counts<B: StorageBackend>(storage: &Storage<Cached<B>>) -> (u64, u64) {
    let stats = storage.backend().stats();
    (stats.hits, stats.misses)
}

async fn text<B: StorageBackend + ?Sized>(storage: &Storage<B>, key: &str) -> Option<String> {
    let value = storage.get(key).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[tokio::test]
async fn what_was_read_or_written_is_answered_from_memory() -> Result<()> {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let storage = over(recorder);
    let metadata = Metadata::new().tag("t");
    let written = storage.put_with("a", "0123456789", PutOptions::new().metadata(metadata)).await?;
    assert_eq!(log.take(), ["put"]);
    assert_eq!(text(&storage, "a").await.unwrap(), "0123456789");
    let range = GetOptions::new().range(2..5);
    assert_eq!(storage.get_with("a", range).await?.unwrap(), "234");
    let seen = storage.stat("a").await?.unwrap();
    assert_eq!((&seen.etag, seen.metadata.as_ref().unwrap().tags.len()), (&written.etag, 1));
    let unless = GetOptions::new().if_none_match(written.etag.clone().unwrap());
    assert_eq!(storage.get_with("a", unless).await.unwrap_err().kind(), ErrorKind::NotModified);
    let beyond = storage.get_with("a", GetOptions::new().range(11..)).await;
    assert_eq!(beyond.unwrap_err().kind(), ErrorKind::RangeNotSatisfiable);
    assert_eq!(storage.get_batch(["a", "missing"]).await?.len(), 1);
    assert_eq!((log.take(), counts(&storage)), (vec!["get_batch"], (6, 1)));
    // What the layer says is what the backend says.
    let below = Storage::from_arc(storage.backend().get_ref().clone());
    assert_eq!(below.stat("a").await?.unwrap(), seen);

    below.put("b", "below").await?;
    let _ = log.take();
    for _ in 0..3 {
        assert_eq!(text(&storage, "b").await.unwrap(), "below");
    }
    assert_eq!(log.take(), ["get"]);
    for _ in 0..2 {
        assert_eq!(text(&storage, "missing").await, None);
    }
    assert_eq!(log.take(), ["get", "get"], "that there is nothing is not kept");
    Ok(())
}

#[tokio::test]
async fn every_method_reaches_the_backend_unless_it_is_a_hit() -> Result<()> {
    for method in METHODS {
        let memory = Memory::new();
        Storage::new(memory.clone()).put("a", "v").await?;
        let recorder = Recorder::new(memory);
        let log = recorder.log();
        call(&**over(recorder).backend(), method).await?;
        assert_eq!(log.take()[0], *method);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_readers_cost_one_load() -> Result<()> {
    let memory = Memory::new();
    Storage::new(memory.clone()).put("a", "v").await?;
    let gate = Gate::before(OperationName::Get);
    let storage = Storage::new(memory).layer(gate.clone()).layer(CacheLayer::new());
    let begun = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let (storage, begun) = (storage.clone(), begun.clone());
            tokio::spawn(async move {
                let mut get = Box::pin(storage.get("a"));
                let early = (&mut get).now_or_never();
                begun.fetch_add(1, Ordering::SeqCst);
                match early {
                    Some(done) => done,
                    None => get.await,
                }
            })
        })
        .collect();
    while begun.load(Ordering::SeqCst) < 1000 {
        tokio::task::yield_now().await;
    }
    gate.open(1);
    for reader in readers {
        assert_eq!(reader.await.unwrap()?.unwrap(), "v");
    }
    assert_eq!((gate.calls(), counts(&storage)), (1, (0, 1000)));
    assert_eq!(text(&storage, "a").await.unwrap(), "v");
    assert_eq!(gate.calls(), 1);
    Ok(())
}

#[tokio::test]
async fn a_reader_that_goes_away_strands_nobody() -> Result<()> {
    let memory = Memory::new();
    Storage::new(memory.clone()).put("a", "v").await?;
    let gate = Gate::before(OperationName::Get);
    let storage = Storage::new(memory).layer(gate.clone()).layer(CacheLayer::new());
    let mut first = Box::pin(storage.get("a"));
    assert!((&mut first).now_or_never().is_none());
    let other = storage.clone();
    let second = tokio::spawn(async move { other.get("a").await });
    tokio::task::yield_now().await;
    drop(first);
    gate.open(1);
    assert_eq!(second.await.unwrap()?.unwrap(), "v");
    assert_eq!(gate.calls(), 1);
    // When all go away the load ends, and the next reader begins a new one.
    storage.delete("a").await?;
    storage.put("a", Body::stream(stream::iter([Ok(Bytes::from_static(b"w"))]))).await?;
    assert!(storage.get("a").now_or_never().is_none());
    gate.open(1);
    assert_eq!(text(&storage, "a").await.unwrap(), "w");
    assert_eq!(gate.calls(), 3);
    Ok(())
}

#[tokio::test]
async fn a_failed_load_fails_for_all_and_is_not_kept() -> Result<()> {
    let memory = Memory::new();
    Storage::new(memory.clone()).put("a", "v").await?;
    let gate = Gate::before(OperationName::Get);
    let faults = Faults::new(memory, 1).before(1.0).only(["get"]);
    let storage = Storage::new(faults).layer(gate.clone()).layer(CacheLayer::new());
    gate.open(2);
    let (one, two) = (storage.get("a"), storage.get("a"));
    let (one, two) = tokio::join!(one, two);
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!((error.kind(), error.key().unwrap().as_str()), (ErrorKind::Unavailable, "a"));
        assert_eq!(error.message(), "a planted fault before the call; try again");
    }
    assert_eq!(storage.backend().stats().values, 0);
    Ok(())
}

#[tokio::test]
async fn a_load_never_overwrites_what_was_written_meanwhile() -> Result<()> {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    below.put("a", "old").await?;
    let gate = Gate::after(OperationName::Get);
    let storage = Storage::new(memory).layer(gate.clone()).layer(CacheLayer::new());
    let other = storage.clone();
    let early = tokio::spawn(async move { text(&other, "a").await });
    // The load has read the old value, and is held up with it.
    gate.arrival().await;
    storage.put("a", Body::stream(stream::iter([Ok(Bytes::from_static(b"new"))]))).await?;
    // Who comes now does not get its answer.
    let other = storage.clone();
    let late = tokio::spawn(async move { text(&other, "a").await });
    gate.arrival().await;
    gate.open(2);
    assert_eq!(early.await.unwrap().unwrap(), "old");
    assert_eq!(late.await.unwrap().unwrap(), "new");
    assert_eq!(text(&storage, "a").await.unwrap(), "new");
    assert_eq!((gate.calls(), counts(&storage)), (2, (1, 2)));
    Ok(())
}

/// The ways to write the key `a`, which has the value `old`, so that it has another or none.
async fn write<B: StorageBackend + ?Sized>(storage: &Storage<B>, way: usize) -> Result<()> {
    match way {
        0 => storage.put("a", "new").await.map(drop),
        1 => storage.put("a", Body::stream(stream::iter([Ok(Bytes::from_static(b"new"))]))).await.map(drop),
        2 => storage.delete("a").await,
        3 => storage.copy("b", "a").await.map(drop),
        4 => storage.rename("b", "a").await.map(drop),
        5 => storage.rename("a", "c").await.map(drop),
        6 => storage.put_batch([("a", "new"), ("d", "new")]).await.map(drop),
        7 => storage.delete_batch(["a", "d"]).await,
        8 => storage.clear().await,
        9 => storage.clear_prefix("a").await,
        10 => storage.copy_with("a", "a", CopyOptions::new().metadata(Metadata::new().tag("new"))).await.map(drop),
        _ => {
            let version = storage.stat("a").await?.unwrap().version.unwrap();
            storage.delete_with("a", DeleteOptions::new().version(version)).await
        }
    }
}

const WAYS: usize = 12;

#[tokio::test]
async fn no_way_to_write_leaves_an_older_value_in_memory() -> Result<()> {
    for way in 0..WAYS {
        for fault in 0..3 {
            let memory = Memory::new();
            let below = Storage::new(memory.clone());
            below.put_batch([("a", "old"), ("b", "b"), ("c", "c")]).await?;
            let faults =
                Faults::new(memory, 1).only(["put", "delete", "copy", "rename", "put_batch", "delete_batch", "clear"]);
            let storage = over(match fault {
                0 => faults,
                1 => faults.before(1.0),
                _ => faults.after(1.0),
            });
            for key in ["a", "b", "c"] {
                storage.get(key).await?;
            }
            assert_eq!(write(&storage, way).await.is_ok(), fault == 0, "{way}");
            for key in ["a", "b", "c"] {
                assert_eq!(text(&storage, key).await, text(&below, key).await, "way {way}, fault {fault}, {key}");
                assert_eq!(storage.stat(key).await?, below.stat(key).await?, "way {way}, fault {fault}, {key}");
            }
        }
        // In a transaction nothing is seen before the commit, and everything after it.
        let memory = Memory::new();
        let below = Storage::new(memory.clone());
        below.put_batch([("a", "old"), ("b", "b"), ("c", "c")]).await?;
        let storage = over(memory);
        storage.get("a").await?;
        let tx = storage.begin().await?;
        write(&tx, way).await?;
        assert_eq!(text(&storage, "a").await.unwrap(), "old", "{way}");
        assert_eq!(storage.backend().stats().hits, 1);
        let inside = text(&tx, "a").await;
        tx.commit().await?;
        assert_eq!((text(&storage, "a").await, text(&below, "a").await), (inside.clone(), inside), "{way}");
    }
    Ok(())
}

/// Memory whose writes happen only when they are told to, even if nobody waits for them any more.
#[derive(Clone, Debug)]
struct Lagging(Memory, Arc<Notify>, Arc<Notify>);

#[async_trait]
impl StorageBackend for Lagging {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.0.get(key, options).await
    }
    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let (this, key) = (self.clone(), key.clone());
        let late = tokio::spawn(async move {
            this.1.notified().await;
            let entry = this.0.put(&key, body, options).await;
            this.2.notify_one();
            entry
        });
        late.await.unwrap()
    }
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.0.delete(key, options).await
    }
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.0.stat(key, options).await
    }
    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.0.list(options).await
    }
}

#[tokio::test]
async fn a_cancelled_write_that_happens_later_is_seen() -> Result<()> {
    let (memory, go, done) = (Memory::new(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    Storage::new(memory.clone()).put("a", "old").await?;
    let storage = over(Lagging(memory, go.clone(), done.clone()));
    assert_eq!(text(&storage, "a").await.unwrap(), "old");
    assert!(storage.put("a", "new").now_or_never().is_none());
    // The caller has gone away; the write is still on its way. What is read now must not be kept.
    assert_eq!(text(&storage, "a").await.unwrap(), "old");
    go.notify_one();
    done.notified().await;
    assert_eq!(text(&storage, "a").await.unwrap(), "new");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_readers_never_see_an_older_value_than_was_acknowledged_or_seen() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for validate in [false, true] {
        let faults = Faults::new(Memory::new(), seed).latency(3).before(0.1).after(0.1).only(["put", "delete", "get"]);
        // What was cancelled in memory never happens later.
        let layer = CacheLayer::new().validate(validate).uncertain(Duration::from_millis(1)).unwrap();
        let storage = Storage::new(faults).layer(layer);
        // The numbers written go up: whatever was acknowledged, or read by anybody, is the least that who begins to read now may see.
        let least = Arc::new(AtomicU64::new(0));
        while storage.put("n", "0").await.is_err() {}
        let writer = tokio::spawn({
            let (storage, least) = (storage.clone(), least.clone());
            async move {
                for n in 1..3000_u64 {
                    let body = Bytes::from(n.to_string());
                    let body = if n % 2 == 0 { body.into() } else { Body::stream(stream::iter([Ok(body)])) };
                    if n % 7 == 0 {
                        // Cancelled somewhere on its way.
                        let mut put = Box::pin(storage.put("n", body));
                        for _ in 0..n % 5 {
                            if let Some(done) = (&mut put).now_or_never() {
                                least.fetch_max(if done.is_ok() { n } else { 0 }, Ordering::SeqCst);
                                break;
                            }
                            tokio::task::yield_now().await;
                        }
                    } else if storage.put("n", body).await.is_ok() {
                        least.fetch_max(n, Ordering::SeqCst);
                    }
                }
            }
        });
        let readers = (0..6).map(|reader| {
            let (storage, least) = (storage.clone(), least.clone());
            let stop = writer.abort_handle();
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !stop.is_finished() {
                    let bound = least.load(Ordering::SeqCst);
                    let seen = match reader % 3 {
                        0 => storage.get_with("n", GetOptions::new().range(0..)).await.map(Option::unwrap),
                        1 => storage.get_batch(["n"]).await.map(|mut found| found.pop_first().unwrap().1),
                        _ => storage.get("n").await.map(Option::unwrap),
                    };
                    if let Ok(seen) = seen {
                        let seen: u64 = std::str::from_utf8(&seen).unwrap().parse().unwrap();
                        assert!(seen >= bound, "saw {seen} after {bound}");
                        least.fetch_max(seen, Ordering::SeqCst);
                        reads += 1;
                    }
                    tokio::task::yield_now().await;
                }
                reads
            })
        });
        let readers: Vec<_> = readers.collect();
        writer.await.unwrap();
        let reads: u64 = join_all(readers).await.into_iter().map(|reads| reads.unwrap()).sum();
        let hits = storage.backend().stats().hits;
        assert!(reads > 100 && hits > 100, "{reads} reads, {hits} hits");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_keys_many_writers_and_at_the_end_memory_and_store_agree() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    let faults = Faults::new(memory, seed).latency(2).before(0.05).after(0.05);
    let storage = Storage::new(faults).layer(CacheLayer::new().uncertain(Duration::from_millis(1)).unwrap());
    let tasks = (0..8).map(|task| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed ^ task);
            for step in 0..1500 {
                let (a, b) = (format!("k{}", rng.u8(..12)), format!("k{}", rng.u8(..12)));
                let value = format!("{task} {step}");
                match rng.u8(..12) {
                    0..2 => drop(storage.put(&a, value).await),
                    2 => drop(storage.delete(&a).await),
                    3 => drop(storage.copy(&a, &b).await),
                    4 => drop(storage.rename(&a, &b).await),
                    5 => drop(storage.put_batch([(a, value.clone()), (b, value)]).await),
                    6 if rng.u8(..10) == 0 => drop(storage.clear_prefix("k1").await),
                    7 => {
                        if let Ok(tx) = storage.begin().await {
                            let _ = tx.put(&a, value).await;
                            let _ = tx.delete(&b).await;
                            let _ = tx.commit().await;
                        }
                    }
                    _ => drop(storage.get(&a).await),
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert!(storage.backend().stats().hits > 100, "{:?}", storage.backend().stats());
    for i in 0..12 {
        let key = format!("k{i}");
        let above = loop {
            if let Ok(value) = storage.get(&key).await {
                break value;
            }
        };
        assert_eq!(above, below.get(&key).await.unwrap(), "{key}");
    }
}

#[tokio::test]
async fn bytes_and_time_are_limited_and_what_is_dropped_is_counted() -> Result<()> {
    let layer = CacheLayer::new().max_bytes(100_000)?;
    let storage = Storage::new(Memory::new()).layer(layer);
    for i in 0..500 {
        let key = format!("k{i}");
        storage.put(&key, vec![0; 1000]).await?;
        storage.get(&key).await?;
    }
    let stats = storage.backend().stats();
    assert!(stats.bytes <= 100_000 && stats.values > 20, "{stats:?}");
    assert!(stats.evictions >= 500 - stats.values - 1, "{stats:?}");
    // Too large for one value: it passes, and is not kept.
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let storage = Storage::new(recorder).layer(CacheLayer::new().max_bytes(100_000)?);
    storage.put("large", vec![0; 12_501]).await?;
    storage.get("large").await?;
    storage.get("large").await?;
    assert_eq!((log.take(), storage.backend().stats().values), (vec!["put", "get", "get"], 0));
    storage.put("fits", vec![0; 12_500]).await?;
    assert_eq!(storage.backend().stats().values, 1);

    let memory = Memory::new();
    let storage = Storage::new(memory.clone()).layer(CacheLayer::new().ttl(Duration::from_millis(20))?);
    storage.put("a", "old").await?;
    Storage::new(memory).put("a", "new, past the layer").await?;
    // It is seen in the end: the event is the end of the time.
    while text(&storage, "a").await.unwrap() == "old" {
        tokio::task::yield_now().await;
    }
    assert_eq!(storage.backend().stats().evictions, 1);
    Ok(())
}

#[tokio::test]
async fn with_validation_what_others_write_is_seen_at_once() -> Result<()> {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let storage = Storage::new(recorder).layer(CacheLayer::new().validate(true));
    let past = Storage::from_arc(storage.backend().get_ref().clone());
    assert_eq!(storage.info().consistency, Consistency::Store);
    assert_eq!(over(Memory::new()).info().consistency, Consistency::Instance);
    storage.put("a", "1").await?;
    let _ = log.take();
    assert_eq!(text(&storage, "a").await.unwrap(), "1");
    assert_eq!((log.take(), counts(&storage)), (vec!["get"], (1, 0)));
    past.put("a", "2").await?;
    assert_eq!(text(&storage, "a").await.unwrap(), "2");
    assert_eq!(text(&storage, "a").await.unwrap(), "2");
    assert_eq!(counts(&storage), (2, 1));
    assert_eq!(storage.get_with("a", GetOptions::new().range(0..1)).await?.unwrap(), "2");
    past.delete("a").await?;
    assert_eq!(text(&storage, "a").await, None);
    let stale = GetOptions::new().if_match(storage.put("a", "3").await?.etag.unwrap());
    past.put("a", "4").await?;
    assert_eq!(storage.get_with("a", stale).await.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    Ok(())
}

#[tokio::test]
async fn after_disconnecting_memory_does_not_answer() -> Result<()> {
    let storage = over(Memory::new());
    storage.put("a", "v").await?;
    let other = Storage::from_arc(storage.backend().clone());
    storage.disconnect().await?;
    assert_eq!(other.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.stat("a").await.unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}

#[tokio::test]
async fn a_condition_that_fails_changes_nothing() -> Result<()> {
    let storage = over(Memory::new());
    storage.put("a", "v").await?;
    let once = PutOptions::new().condition(Condition::IfAbsent);
    assert_eq!(storage.put_with("a", "w", once).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(text(&storage, "a").await.unwrap(), "v");
    // A definite failure leaves no doubt: the value is kept again.
    assert_eq!(text(&storage, "a").await.unwrap(), "v");
    assert_eq!(counts(&storage), (1, 1));
    Ok(())
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<CacheLayer> {
        serde_json::from_str(text)
    }
    assert_eq!(json("{}").unwrap(), CacheLayer::new());
    let all = CacheLayer::new()
        .max_bytes(1000)
        .and_then(|layer| layer.max_value_bytes(500))
        .and_then(|layer| layer.ttl(Duration::from_secs(1)))
        .and_then(|layer| layer.uncertain(Duration::from_secs(2)))
        .unwrap()
        .validate(true);
    let text = r#"{"max_bytes": 1000, "max_value_bytes": 500, "ttl_ms": 1000, "uncertain_ms": 2000, "validate": true}"#;
    assert_eq!(json(text).unwrap(), all);
    let text = "max_bytes = 1000\nmax_value_bytes = 500\nttl_ms = 1000\nuncertain_ms = 2000\nvalidate = true";
    assert_eq!(toml::from_str::<CacheLayer>(text).unwrap(), all);
    for (nonsense, says) in [
        (r#"{"max_bytes": 0}"#, "`max_bytes` must not be 0"),
        (r#"{"max_bytes": 10, "max_value_bytes": 11}"#, "must not be more than `max_bytes`"),
        (r#"{"ttl_ms": 0}"#, "`ttl_ms` must not be 0"),
        (r#"{"ttl_ms": 18446744073709551615}"#, "nor more than a year"),
        (r#"{"uncertain_ms": 0}"#, "`uncertain_ms` must not be 0"),
        (r#"{"size": 1}"#, "unknown field `size`"),
        (r#"{"max_bytes": -1}"#, "invalid value"),
    ] {
        let error = json(nonsense).unwrap_err().to_string();
        assert!(error.contains(says), "{nonsense}: {error}");
    }
}
