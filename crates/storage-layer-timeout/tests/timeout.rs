//! What is stuck ends, what is slow goes on. Time is virtual.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{num::NonZeroU64, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    BackendInfo, Body, Bytes, DeleteOptions, Entry, ErrorKind, GetOptions, Key, ListOptions, ListStream, Object,
    OrderBy, PutOptions, Query, Result, StatOptions, Storage, StorageBackend, async_trait,
};
use storage_layer::OperationName;
use storage_layer_timeout::{Timeout, TimeoutLayer};
use storage_memory::Memory;
use tokio::time::{Instant, sleep};

const BULK: [&str; 7] = ["get_batch", "put_batch", "delete_batch", "query", "clear", "copy", "rename"];

fn over<B: StorageBackend>(backend: B) -> Storage<Timeout<B>> {
    Storage::typed(backend).layer(TimeoutLayer::new())
}

fn writes(method: &str) -> bool {
    OperationName::ALL.iter().any(|name| name.as_str() == method && name.writes())
}

/// Pieces that come one after the other, each after a wait.
fn slowly(pieces: usize, wait: Duration) -> impl Stream<Item = Result<Bytes>> + Send {
    stream::iter(0..pieces).then(move |_| async move {
        sleep(wait).await;
        Ok(Bytes::from(vec![b'x'; 100]))
    })
}

#[tokio::test(start_paused = true)]
async fn every_method_that_hangs_ends_in_time_and_says_whether_it_may_have_happened() -> Result<()> {
    for method in METHODS {
        let storage = over(Faults::new(Memory::new(), 1).stall(1.0));
        let begun = Instant::now();
        let error = call(&**storage.backend(), method).await.unwrap_err();
        let expected = if BULK.contains(method) { 300 } else { 30 };
        assert_eq!(begun.elapsed().as_secs(), expected, "{method}");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{method}");
        assert_eq!(error.is_ambiguous(), writes(method), "{method}: {error:?}");
        assert!(error.to_string().contains(&format!("{expected}s")), "{error}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_method_that_hangs_in_a_transaction_ends_too() -> Result<()> {
    for method in METHODS.iter().filter(|method| !matches!(**method, "begin" | "disconnect")) {
        let storage = over(Faults::new(Memory::new(), 1).stall(1.0).only([method]));
        let tx = storage.begin().await?;
        call(&**tx.backend(), method).await.unwrap_err();
    }
    let storage = over(Faults::new(Memory::new(), 1).stall(1.0).only(["commit", "rollback"]));
    let error = storage.begin().await?.commit().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.is_ambiguous());
    let error = storage.begin().await?.rollback().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && !error.is_ambiguous());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_answers_passes_once_and_costs_no_time() -> Result<()> {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let storage = over(recorder);
    let begun = Instant::now();
    storage.put("a", "v").await?;
    assert_eq!(log.take(), ["put"]);
    for method in METHODS.iter().filter(|method| !matches!(**method, "rename" | "disconnect")) {
        call(&**storage.backend(), method).await?;
        assert_eq!(log.take()[0], *method);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_moves_may_take_for_ever_and_one_that_hangs_may_not() -> Result<()> {
    let storage = over(Memory::new());
    let begun = Instant::now();
    let slow = storage.put("slow", Body::stream(slowly(100, Duration::from_secs(29)))).await?;
    assert_eq!((slow.size, begun.elapsed().as_secs()), (10_000, 2900));
    let begun = Instant::now();
    let stuck = slowly(3, Duration::from_secs(20)).chain(stream::pending());
    let error = storage.put("stuck", Body::stream(stuck)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.is_ambiguous());
    assert_eq!(begun.elapsed().as_secs(), 90, "30 s after the last byte");
    assert!(!storage.has("stuck").await?);
    Ok(())
}

/// Memory at the end of a slow line: each piece of a value and each item of a listing takes its time. A body is read by a task
/// of its own, and a value that is wanted whole is collected before the call returns.
#[derive(Debug)]
struct Slow(Memory, Duration);

/// Just not stuck.
const STEP: Duration = Duration::from_secs(29);

#[async_trait]
impl StorageBackend for Slow {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let (whole, step) = (options.prefer_buffered, self.1);
        let Some(object) = self.0.get(key, options).await? else {
            return Ok(None);
        };
        let value = object.body.bytes(u64::MAX).await?;
        let pieces: Vec<Bytes> = value.chunks(100).map(Bytes::copy_from_slice).collect();
        let body = Body::from_backend(
            value.len() as u64,
            stream::iter(pieces).then(move |piece| async move { Ok((sleep(step).await, piece).1) }),
        );
        let body = if whole { body.bytes(u64::MAX).await?.into() } else { body };
        Ok(Some(Object::new(object.entry, body)))
    }
    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let (memory, key) = (self.0.clone(), key.clone());
        tokio::spawn(async move { memory.put(&key, body, options).await }).await.unwrap()
    }
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.0.delete(key, options).await
    }
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.0.stat(key, options).await
    }
    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let (items, step) = (self.0.list(options).await?, self.1);
        Ok(items.then(move |item| async move { (sleep(step).await, item).1 }).boxed())
    }
}

#[tokio::test(start_paused = true)]
async fn slow_is_not_stuck_in_whichever_direction_and_whoever_reads() -> Result<()> {
    let storage = over(Slow(Memory::new(), STEP));
    let begun = Instant::now();
    storage.put("key", Body::stream(slowly(20, STEP))).await?;
    assert_eq!(begun.elapsed(), STEP * 20);
    let begun = Instant::now();
    assert_eq!(storage.get("key").await?.unwrap().len(), 2000);
    assert_eq!(begun.elapsed(), STEP * 20);
    storage.put_batch((0..20).map(|i| (format!("k{i}"), "v"))).await?;
    let begun = Instant::now();
    assert_eq!(storage.list("k").await?.try_collect::<Vec<_>>().await?.len(), 21);
    assert_eq!(begun.elapsed(), STEP * 21);
    // What hangs is noticed there too, at the latest after twice the time.
    let begun = Instant::now();
    let stuck = slowly(3, STEP).chain(stream::pending());
    assert_eq!(storage.put("stuck", Body::stream(stuck)).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() <= STEP * 3 + Duration::from_secs(60), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_query_that_scans_for_long_without_a_match_is_not_stuck() -> Result<()> {
    let memory = Memory::new();
    Storage::new(memory.clone()).put_batch((0..100).map(|i| (format!("k{i}"), "v"))).await?;
    let storage = over(Slow(memory.clone(), Duration::from_secs(1)));
    for query in [Query::new().all_tags(["none"]), Query::new().all_tags(["none"]).descending(OrderBy::Key)] {
        let begun = Instant::now();
        let found: Vec<_> = storage.query(query).await?.try_collect().await?;
        assert_eq!((found.len(), begun.elapsed().as_secs()), (0, 100));
    }
    // The limit is the one for such work, and it still ends.
    let layer = TimeoutLayer::new().bulk_timeout(Duration::from_secs(50));
    let storage = Storage::new(Slow(memory, Duration::from_secs(1))).layer(layer);
    let begun = Instant::now();
    let stuck = storage.query(Query::new().all_tags(["none"])).await?.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!((stuck.kind(), begun.elapsed().as_secs()), (ErrorKind::Timeout, 50));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_large_value_in_one_piece_is_given_time_by_its_size() -> Result<()> {
    let layer = TimeoutLayer::new().min_bytes_per_second(NonZeroU64::new(1000).unwrap());
    let storage = Storage::new(Faults::new(Memory::new(), 1).stall(1.0)).layer(layer);
    let begun = Instant::now();
    storage.put("key", vec![0; 70_000]).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 100);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_listing_or_body_that_hangs_ends_and_a_slow_reader_is_not_its_fault() -> Result<()> {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    below.put_batch((0..100).map(|i| (format!("k{i:03}"), vec![b'x'; 1000]))).await?;

    let patient = over(memory.clone());
    let mut listing = patient.list("").await?;
    let mut seen = 0;
    while let Some(entry) = listing.next().await {
        entry?;
        seen += 1;
        sleep(Duration::from_secs(1000)).await;
    }
    assert_eq!(seen, 100);

    for method in ["list", "query", "versions", "get"] {
        let storage = over(Faults::new(memory.clone(), 3).stall_streams(1.0));
        let begun = Instant::now();
        let error = match method {
            "list" => storage.list("").await?.try_collect::<Vec<_>>().await.unwrap_err(),
            "query" => storage.query(Default::default()).await?.try_collect::<Vec<_>>().await.unwrap_err(),
            "versions" => storage.versions("k000").await?.try_collect::<Vec<_>>().await.unwrap_err(),
            _ => storage.get("k000").await.unwrap_err(),
        };
        assert!(error.kind() == ErrorKind::Timeout && !error.is_ambiguous(), "{method}: {error:?}");
        let expected = if method == "query" { 300 } else { 30 };
        assert_eq!(begun.elapsed().as_secs(), expected, "{method}");
    }
    let storage = over(Faults::new(memory, 3).stall_streams(1.0));
    let mut body = storage.open("k001", GetOptions::new()).await?.unwrap().body.into_stream();
    while let Some(Ok(_)) = body.next().await {}
    assert!(body.next().await.is_none(), "the stream ends with its error");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_there_is_does_not_overflow() -> Result<()> {
    let layer = TimeoutLayer::new().timeout(Duration::MAX).bulk_timeout(Duration::MAX);
    let storage = Storage::new(Memory::new()).layer(layer);
    let options = PutOptions::new();
    storage.put_with("key", Body::stream(slowly(3, Duration::from_secs(1))), options).await?;
    assert_eq!(storage.get("key").await?.unwrap().len(), 300);
    Ok(())
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<TimeoutLayer> {
        serde_json::from_str(text)
    }
    assert_eq!(json("{}").unwrap(), TimeoutLayer::new());
    let all = TimeoutLayer::new()
        .timeout(Duration::from_millis(5))
        .bulk_timeout(Duration::from_secs(6))
        .min_bytes_per_second(NonZeroU64::new(7).unwrap());
    let text = r#"{"timeout_ms": 5, "bulk_timeout_ms": 6000, "min_bytes_per_second": 7}"#;
    assert_eq!(json(text).unwrap(), all);
    let text = "timeout_ms = 5\nbulk_timeout_ms = 6000\nmin_bytes_per_second = 7";
    assert_eq!(toml::from_str::<TimeoutLayer>(text).unwrap(), all);
    for name in ["timeout_ms", "bulk_timeout_ms", "min_bytes_per_second"] {
        let error = json(&format!(r#"{{"{name}": 0}}"#)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("leave the layer out"), "{error}");
    }
    for nonsense in [r#"{"timeout": 5}"#, r#"{"timeout_ms": -5}"#, r#"{"timeout_ms": "soon"}"#, "7"] {
        assert!(json(nonsense).is_err(), "{nonsense}");
    }
}
