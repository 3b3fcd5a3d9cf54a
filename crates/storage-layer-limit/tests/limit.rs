//! Permits are never lost and nobody waits for himself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::join_all, stream};
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    BatchOptions, Body, Bytes, Error, ErrorKind, GetOptions, Layer, PutOptions, Query, Result, Storage, StorageBackend,
};
use storage_layer_limit::{Limit, LimitLayer};
use storage_memory::Memory;
use storage_sql::Sql;
use tokio::sync::Notify;

fn over<B: StorageBackend>(backend: B, concurrency: usize) -> Storage<Limit<B>> {
    Storage::typed(backend).layer(LimitLayer::new().concurrency(concurrency).unwrap())
}

fn free<B: StorageBackend>(storage: &Storage<Limit<B>>) -> usize {
    storage.backend().intercept().available()
}

/// A body that ends when it is told to, and a way to tell it.
fn held() -> (Body, Arc<Notify>) {
    let tell = Arc::new(Notify::new());
    let waiting = tell.clone();
    let body = stream::once(async move {
        waiting.notified().await;
        Ok(Bytes::from_static(b"held"))
    });
    (Body::stream(body), tell)
}

#[tokio::test]
async fn every_method_waits_for_a_permit_and_reaches_the_backend_once() -> Result<()> {
    for method in METHODS {
        let memory = Memory::new();
        Storage::typed(memory.clone()).put("a", "v").await?;
        let recorder = Recorder::new(Faults::new(memory, 1).stall(1.0).only(["put"]));
        let log = recorder.log();
        let storage = over(recorder, 1);
        let mut stuck = Box::pin(storage.put("stuck", "v"));
        assert!((&mut stuck).now_or_never().is_none());
        assert_eq!((log.take(), free(&storage)), (vec!["put"], 0));
        let backend = storage.backend().clone();
        let mut waiting = call(&*backend, method);
        let passes = matches!(*method, "health" | "disconnect");
        assert_eq!((&mut waiting).now_or_never().is_some(), passes, "{method}");
        if passes {
            continue;
        }
        assert!(log.take().is_empty(), "{method} went around the limit");
        drop(stuck);
        if *method == "put" {
            assert!(waiting.now_or_never().is_none());
        } else {
            waiting.await?;
        }
        assert_eq!(log.take()[0], *method);
        assert_eq!(free(&storage), 1, "{method}");
    }
    Ok(())
}

/// Counts who is at work at once.
#[derive(Clone, Debug, Default)]
struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

impl storage_layer::Intercept for Crowd {
    type Guard = ();

    async fn call<'a, T, F>(&'a self, _: storage_layer::Operation<'a>, call: F) -> (Result<T>, ())
    where
        T: storage_layer::Payload + Send + 'a,
        F: Fn() -> storage_core::BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let result = call().await;
        self.0.0.fetch_sub(1, Ordering::SeqCst);
        (result, ())
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Crowd {
    type Backend = storage_layer::Intercepted<S, Self>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        storage_layer::Intercepted::new(inner, self)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_are_never_more_at_work_than_permitted_and_all_get_their_turn() -> Result<()> {
    for limit in [1, 3, 8] {
        let crowd = Crowd::default();
        let below = Storage::typed(Faults::new(Memory::new(), 1).latency(3)).layer(crowd.clone());
        let storage = below.layer(LimitLayer::new().concurrency(limit)?);
        let tasks = (0..50).map(|task| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let key = format!("k{task}");
                storage.put(&key, "v").await?;
                storage.put_batch([(format!("{key}/a"), "1"), (format!("{key}/b"), "2")]).await?;
                storage.copy(&key, format!("{key}/c")).await?;
                let pieces = ["x", "y"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
                storage.put(format!("{key}/d"), Body::stream(stream::iter(pieces))).await?;
                storage.get(&key).await
            })
        });
        for done in join_all(tasks).await {
            assert!(done.unwrap()?.is_some());
        }
        assert_eq!(crowd.0.1.load(Ordering::SeqCst), limit);
        assert_eq!(storage.backend().intercept().available(), limit);
    }
    Ok(())
}

#[tokio::test]
async fn cancelled_calls_and_failed_calls_give_their_permits_back() -> Result<()> {
    let storage = over(Faults::new(Memory::new(), 1).stall(1.0), 2);
    for _ in 0..100 {
        let _ = storage.put("a", "v").now_or_never();
        let _ = storage.get("a").now_or_never();
        let _ = storage.list("").now_or_never();
        let _ = storage.put("a", Body::stream(stream::pending())).now_or_never();
        // Also those that were cancelled in the queue.
        let calls = join_all((0..10).map(|_| storage.stat("a")));
        assert!(calls.now_or_never().is_none());
    }
    assert_eq!(free(&storage), 2);
    let storage = over(Faults::new(Memory::new(), 1).before(1.0), 2);
    for _ in 0..100 {
        assert!(storage.put("a", "v").await.is_err());
        let broken = stream::iter([Err(Error::new(ErrorKind::Other, "broken"))]);
        assert!(storage.put("a", Body::stream(broken)).await.is_err());
    }
    assert_eq!(free(&storage), 2);
    Ok(())
}

#[tokio::test]
async fn streams_hold_a_permit_only_while_they_are_waited_for() -> Result<()> {
    let memory = Memory::new();
    Storage::typed(memory.clone()).put_batch((0..20).map(|i| (format!("k{i:02}"), "v"))).await?;
    let storage = over(memory.clone(), 1);
    // One item at a time, with calls in between.
    let mut listing = storage.list("").await?;
    while let Some(entry) = listing.try_next().await? {
        assert_eq!(free(&storage), 1);
        assert!(storage.get(&entry.key).await?.is_some());
    }
    let gets = storage.list("").await?.map_ok(|entry| {
        let storage = storage.clone();
        async move { storage.get(&entry.key).await }
    });
    assert_eq!(gets.try_buffer_unordered(8).try_collect::<Vec<_>>().await?.len(), 20);
    let mut answers = storage.query(Query::new()).await?;
    answers.try_next().await?;
    assert_eq!(free(&storage), 1);

    let stalling = over(Faults::new(memory, 1).stall_streams(1.0), 1);
    let mut listing = stalling.list("").await?;
    while listing.next().now_or_never().is_some() {}
    assert_eq!(free(&stalling), 0, "it is waited for");
    assert!(stalling.stat("k01").now_or_never().is_none());
    drop(listing);
    assert_eq!(free(&stalling), 1);
    stalling.stat("k01").await?;
    Ok(())
}

/// Reads come as streams of small pieces, as from a store at the end of a network.
fn in_pieces(storage: &Storage<impl StorageBackend>, key: &'static str) -> Body {
    let storage = storage.clone();
    let opened = stream::once(async move {
        tokio::task::yield_now().await;
        let object = storage.open(key, GetOptions::new()).await?.unwrap();
        Ok::<_, Error>(object.body.into_stream())
    });
    Body::stream(opened.try_flatten())
}

#[tokio::test]
async fn a_body_that_comes_from_the_same_store_does_not_wait_for_its_writer() -> Result<()> {
    let storage = over(Memory::new(), 1);
    storage.put("from", "value").await?;
    storage.put("to", in_pieces(&storage, "from")).await?;
    assert_eq!(storage.get("to").await?.as_deref(), Some(&b"value"[..]));
    let items = ["a", "b", "c", "d"].map(|key| (key, in_pieces(&storage, "from"), PutOptions::new()));
    for written in storage.put_batch_with(items, BatchOptions::new()).await? {
        assert_eq!(written?.size, 5);
    }
    assert_eq!(free(&storage), 1);
    Ok(())
}

#[tokio::test]
async fn a_writer_that_waits_for_its_body_lets_others_work_and_queues_again() -> Result<()> {
    let storage = over(Faults::new(Memory::new(), 1).stall(1.0).only(["stat"]), 1);
    let (body, tell) = held();
    let mut put = Box::pin(storage.put("key", body));
    assert!((&mut put).now_or_never().is_none());
    assert_eq!(free(&storage), 1);
    let mut stuck = Box::pin(storage.stat("other"));
    assert!((&mut stuck).now_or_never().is_none());
    assert_eq!(free(&storage), 0);
    tell.notify_one();
    assert!((&mut put).now_or_never().is_none(), "the body is there, the permit is not");
    drop(stuck);
    put.await?;
    assert_eq!(free(&storage), 1);

    // Cancelled while it waits for its body, and while it queues again.
    for tells in [false, true] {
        let (body, tell) = held();
        let mut put = Box::pin(storage.put("key", body));
        assert!((&mut put).now_or_never().is_none());
        let stuck = tells.then(|| {
            let mut stuck = Box::pin(storage.stat("other"));
            assert!((&mut stuck).now_or_never().is_none());
            tell.notify_one();
            assert!((&mut put).now_or_never().is_none());
            stuck
        });
        drop(put);
        drop(stuck);
        assert_eq!(free(&storage), 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_never_waits_for_those_that_wait_for_it() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = Sql::open(&format!("sqlite:{}", dir.path().join("db").display())).await?;
    let storage = over(sqlite, 1);
    storage.put("n", "0").await?;
    let tx = storage.begin().await?;
    tx.put("n", "1").await?;
    // This one takes the only permit and waits for SQLite's write lock, which the transaction holds.
    let other = storage.clone();
    let waiting = tokio::spawn(async move { other.put("n", "2").await });
    while free(&storage) > 0 {
        tokio::task::yield_now().await;
    }
    tx.put("m", "1").await?;
    assert!(tx.get("n").await?.is_some());
    let mut listing = tx.list("").await?;
    while listing.try_next().await?.is_some() {}
    drop(listing);
    tx.commit().await?;
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap()?;
    assert_eq!(storage.get("n").await?.as_deref(), Some(&b"2"[..]));
    assert_eq!(free(&storage), 1);
    // A dropped one leaves nothing behind either.
    drop(storage.begin().await?);
    assert_eq!(free(&storage), 1);
    Ok(())
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<LimitLayer> {
        serde_json::from_str(text)
    }
    assert_eq!(json("{}").unwrap(), LimitLayer::new());
    let nine = LimitLayer::new().concurrency(9).unwrap();
    assert_eq!(json(r#"{"concurrency": 9}"#).unwrap(), nine);
    assert_eq!(toml::from_str::<LimitLayer>("concurrency = 9").unwrap(), nine);
    for nonsense in [r#"{"concurrency": 0}"#, r#"{"concurrency": 18446744073709551615}"#] {
        let error = json(nonsense).unwrap_err().to_string();
        assert!(error.contains("`concurrency` must be 1 to"), "{error}");
    }
    for nonsense in [r#"{"permits": 5}"#, r#"{"concurrency": -5}"#, r#"{"concurrency": "few"}"#, "7"] {
        assert!(json(nonsense).is_err(), "{nonsense}");
    }
    assert_eq!(LimitLayer::new().concurrency(0).unwrap_err().kind(), ErrorKind::Config);
}
