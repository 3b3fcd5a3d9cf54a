//! What is kept, for how long, how it answers, and what is counted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::stream;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use storage_conformance::{Log, METHODS, Recorder, call};
use storage_core::{
    Body, ByteRange, Bytes, Consistency, ErrorKind, Etag, GetOptions, Key, Metadata, PutOptions, Result, Storage,
    StorageBackend,
};
use storage_fs::Fs;
use storage_layer_cache::{Cache, CacheLayer, Stats};
use storage_memory::Memory;

/// The cache over memory, what reaches the memory, and the memory itself, which has a value under `a`.
async fn over_memory(layer: CacheLayer) -> (Storage<Cache<Recorder<Memory>>>, Log, Storage) {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    let metadata = Metadata::new().content_type("text/plain").tag("t").field("n", 7);
    below.put_with("a", "0123456789", PutOptions::new().metadata(metadata)).await.unwrap();
    let recorder = Recorder::new(memory);
    let log = recorder.log();
    (Storage::typed(recorder).layer(layer), log, below)
}

fn stats<S: StorageBackend>(storage: &Storage<Cache<S>>) -> Stats {
    storage.backend().stats()
}

#[tokio::test]
async fn a_hit_answers_as_the_store_below_would() -> Result<()> {
    let (storage, log, below) = over_memory(CacheLayer::new()).await;
    let etag = below.stat("a").await?.unwrap().etag.unwrap();
    storage.get("a").await?;
    let _ = log.take();
    let ranges = [
        None,
        Some(ByteRange::Bounded(2, 5)),
        Some(ByteRange::Bounded(2, 500)),
        Some(ByteRange::Bounded(3, 3)),
        Some(ByteRange::From(10)),
        Some(ByteRange::From(11)),
        Some(ByteRange::Suffix(0)),
        Some(ByteRange::Suffix(3)),
        Some(ByteRange::Suffix(99)),
    ];
    let etags = [None, Some(etag), Some(Etag::new("other"))];
    let mut tried = 0;
    for range in ranges {
        for if_match in &etags {
            for if_none_match in &etags {
                for whole in [false, true] {
                    let mut options = GetOptions::new().prefer_buffered(whole);
                    options.range = range;
                    options.if_match = if_match.clone();
                    options.if_none_match = if_none_match.clone();
                    let key = Key::parse("a")?;
                    let seen = storage.backend().get(&key, options.clone()).await;
                    let expected = below.backend().get(&key, options.clone()).await;
                    match (seen, expected) {
                        (Ok(Some(seen)), Ok(Some(expected))) => {
                            assert_eq!(seen.entry, expected.entry, "{options:?}");
                            let bytes = expected.body.bytes(u64::MAX).await?;
                            assert_eq!(seen.body.bytes(u64::MAX).await?, bytes, "{options:?}");
                        }
                        (Err(seen), Err(expected)) => {
                            assert_eq!(format!("{seen:?}"), format!("{expected:?}"), "{options:?}");
                        }
                        (seen, expected) => panic!("{options:?}: {seen:?} instead of {expected:?}"),
                    }
                    tried += 1;
                }
            }
        }
    }
    assert_eq!(storage.stat("a").await?, below.stat("a").await?);
    assert_eq!(storage.get_batch(["a"]).await?, below.get_batch(["a"]).await?);
    assert_eq!(log.take(), [""; 0], "nothing was asked below");
    assert_eq!((stats(&storage).hits, stats(&storage).misses), (tried + 2, 1));
    Ok(())
}

#[tokio::test]
async fn what_is_written_in_one_piece_is_kept() -> Result<()> {
    let (storage, log, below) = over_memory(CacheLayer::new()).await;
    let metadata = Metadata::new().field("n", 1);
    storage.put_with("b", "new", PutOptions::new().metadata(metadata)).await?;
    assert_eq!(storage.get("b").await?, Some("new".into()));
    assert_eq!(storage.stat("b").await?, below.stat("b").await?);
    storage.put("b", "newer").await?;
    assert_eq!(storage.get("b").await?, Some("newer".into()));
    assert_eq!(storage.stat("b").await?, below.stat("b").await?);
    assert_eq!(log.take(), ["put", "put"]);
    let streamed = Body::stream(stream::iter([Ok(Bytes::from("stream"))]));
    storage.put("b", streamed).await?;
    storage.put("c", vec![0; (1 << 20) + 1]).await?;
    for _ in 0..2 {
        assert_eq!(storage.get("b").await?, Some("stream".into()));
        assert!(storage.get("c").await?.is_some());
    }
    assert_eq!(log.take(), ["put", "put", "get", "get", "get"]);
    Ok(())
}

#[tokio::test]
async fn what_is_put_agrees_with_a_stat_on_a_directory() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let below = Storage::typed(Fs::open(dir.path()).await?);
    let storage = below.clone().layer(CacheLayer::new());
    for value in ["one", "two"] {
        storage.put_with("key", value, PutOptions::new().metadata(Metadata::new().tag(value))).await?;
        assert_eq!(storage.stat("key").await?, below.stat("key").await?);
        assert_eq!(storage.get("key").await?, Some(value.into()));
    }
    assert_eq!(stats(&storage).misses, 0);
    Ok(())
}

#[tokio::test]
async fn absence_is_not_kept() -> Result<()> {
    let (storage, log, below) = over_memory(CacheLayer::new()).await;
    assert_eq!(storage.get("b").await?, None);
    below.put("b", "from elsewhere").await?;
    assert_eq!(storage.get("b").await?, Some("from elsewhere".into()));
    assert_eq!(log.take(), ["get", "get"]);
    Ok(())
}

#[tokio::test]
async fn a_batch_asks_for_what_is_missing_and_keeps_it() -> Result<()> {
    let (storage, log, below) = over_memory(CacheLayer::new()).await;
    below.put_batch([("b", "1"), ("c", "2")]).await?;
    storage.get("b").await?;
    let _ = log.take();
    let found = storage.get_batch(["c", "nothing", "b", "a", "c"]).await?;
    assert_eq!(found.into_values().collect::<Vec<_>>(), ["0123456789", "1", "2"]);
    assert_eq!(log.take(), ["get_batch"]);
    assert_eq!(storage.get_batch(["a", "b", "c"]).await?.len(), 3);
    assert_eq!(log.take(), [""; 0]);
    let tag = GetOptions::new().if_none_match(Etag::new("old"));
    below.put("d", "3").await?;
    storage.get_with("d", tag.clone()).await?;
    assert_eq!(storage.get_with("d", tag).await?, Some("3".into()));
    assert_eq!(log.take(), ["get"], "a read under a condition keeps what it read");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn values_are_kept_for_their_time() -> Result<()> {
    let (storage, log, below) = over_memory(CacheLayer::new().ttl(Duration::from_secs(10))?).await;
    storage.get("a").await?;
    below.put("a", "from elsewhere").await?;
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(storage.get("a").await?, Some("0123456789".into()));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(storage.stat("a").await?.unwrap().size, 14);
    assert_eq!(storage.get("a").await?, Some("from elsewhere".into()));
    assert_eq!(log.take(), ["get", "stat", "get"]);
    // The longest time that can be said.
    let (storage, log, _) = over_memory(CacheLayer::new().ttl(Duration::MAX)?).await;
    storage.get("a").await?;
    tokio::time::advance(Duration::from_secs(86_400)).await;
    storage.get("a").await?;
    assert_eq!(log.take(), ["get"]);
    Ok(())
}

#[tokio::test]
async fn the_budget_is_kept_and_evictions_are_counted() -> Result<()> {
    let budget = 1 << 20;
    let (storage, log, _) = over_memory(CacheLayer::new().max_bytes(budget)?).await;
    let value = |n: usize| vec![n as u8; 10_000];
    for n in 0..1000 {
        storage.put(format!("{n}"), value(n)).await?;
        if n % 50 == 0 {
            assert!(stats(&storage).bytes <= budget);
        }
    }
    let Stats { evictions, entries, bytes, .. } = stats(&storage);
    assert!(bytes <= budget && entries > 50, "{entries} of {bytes} bytes");
    assert_eq!(evictions + entries, 1000);
    let _ = log.take();
    for n in 0..1000 {
        assert_eq!(storage.get(format!("{n}")).await?.unwrap(), value(n));
    }
    assert!(log.take().len() >= 1000 - entries as usize);
    // What does not fit is not kept.
    let (storage, log, below) = over_memory(CacheLayer::new().max_bytes(585)?).await;
    let long = "k".repeat(100);
    below.put(&long, "1").await?;
    below.put("b", vec![0; 73]).await?;
    below.put("c", vec![0; 74]).await?;
    for key in [long.as_str(), "b", "c"] {
        storage.get(key).await?;
        storage.get(key).await?;
        assert_eq!(log.take(), ["get", "get"]);
    }
    below.put("b", vec![0; 60]).await?;
    storage.get("b").await?;
    storage.get("b").await?;
    assert_eq!(log.take(), ["get"]);
    Ok(())
}

#[tokio::test]
async fn a_small_part_of_something_large_does_not_hold_it() -> Result<()> {
    /// A buffer that tells by the count of its `Arc` whether it is held.
    struct Large(Arc<Vec<u8>>);
    impl AsRef<[u8]> for Large {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::typed(Fs::open(dir.path()).await?).layer(CacheLayer::new());
    let held = Arc::new(vec![1; 4 << 20]);
    let large = Bytes::from_owner(Large(held.clone()));
    storage.put("part", large.slice(..10)).await?;
    drop(large);
    assert_eq!(storage.get("part").await?.unwrap(), vec![1; 10]);
    assert_eq!(stats(&storage).misses, 0);
    assert_eq!(Arc::strong_count(&held), 1);
    Ok(())
}

#[tokio::test]
async fn validation_sees_what_others_wrote() -> Result<()> {
    let (storage, log, below) = over_memory(CacheLayer::new().validate(true)).await;
    for _ in 0..3 {
        assert_eq!(storage.get("a").await?, Some("0123456789".into()));
    }
    assert_eq!((stats(&storage).hits, stats(&storage).misses), (2, 1));
    below.put("a", "from elsewhere").await?;
    assert_eq!(storage.get("a").await?, Some("from elsewhere".into()));
    assert_eq!(storage.stat("a").await?, below.stat("a").await?);
    let range = GetOptions::new().range(5..);
    below.put("a", "once more").await?;
    assert_eq!(storage.get_with("a", range.clone()).await?, Some("more".into()));
    below.put("a", vec![b'x'; 2 << 20]).await?;
    assert_eq!(storage.get_with("a", range).await?.unwrap().len(), (2 << 20) - 5);
    assert_eq!(storage.get("a").await?.unwrap().len(), 2 << 20);
    below.put("a", "small").await?;
    assert_eq!(storage.get("a").await?, Some("small".into()));
    below.delete("a").await?;
    assert_eq!(storage.get("a").await?, None);
    assert_eq!(stats(&storage).entries, 0);
    let (hits, misses) = (stats(&storage).hits, stats(&storage).misses);
    assert_eq!((hits, hits + misses), (2, 9));
    assert!(log.take().iter().all(|name| ["get", "stat"].contains(name)));
    Ok(())
}

#[tokio::test]
async fn every_method_reaches_the_backend() -> Result<()> {
    for validate in [false, true] {
        for method in METHODS {
            let (storage, log, _) = over_memory(CacheLayer::new().validate(validate)).await;
            call(&**storage.backend(), method).await?;
            assert_eq!(log.take()[0], *method);
        }
    }
    Ok(())
}

#[tokio::test]
async fn it_says_what_is_below_and_that_it_is_one_instance() {
    let (storage, _, below) = over_memory(CacheLayer::new()).await;
    let (info, expected) = (storage.info(), below.info());
    assert_eq!(info.consistency, Consistency::ProcessLocal);
    assert_eq!((info.capabilities, info.limits), (expected.capabilities, expected.limits));
    assert_eq!((&info.id, info.isolation), (&expected.id, expected.isolation));
    let tx = storage.begin().await.unwrap();
    assert_eq!(tx.info().consistency, Consistency::ProcessLocal);
    let shown = format!("{storage:?} {tx:?}");
    assert!(!shown.contains("0123"), "{shown}");
}

#[tokio::test]
async fn nothing_is_served_after_disconnect_through_any_handle() -> Result<()> {
    let (storage, _, _) = over_memory(CacheLayer::new()).await;
    storage.get("a").await?;
    let other = Storage::from_arc(storage.backend().clone());
    storage.disconnect().await?;
    assert_eq!(other.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.stat("a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(stats(&storage).entries, 0);
    Ok(())
}

#[test]
fn the_facade_counts_too() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let (storage, ..) = over_memory(CacheLayer::new().max_bytes(8192).unwrap()).await;
            for n in 0..40 {
                storage.put(format!("{n}"), "value").await.unwrap();
                storage.get("a").await.unwrap();
            }
            let mut counted = BTreeMap::new();
            for (key, _, _, value) in seen.snapshot().into_vec() {
                let DebugValue::Counter(n) = value else { panic!("there are counters only") };
                let labels: Vec<_> = key.key().labels().map(|l| (l.key(), l.value())).collect();
                assert_eq!(labels, [("backend", "memory")]);
                counted.insert(key.key().name().to_owned(), n);
            }
            let Stats { hits, misses, evictions, .. } = stats(&storage);
            assert!(hits + misses == 40 && evictions > 10, "{hits} {misses} {evictions}");
            let expected = [("evictions", evictions), ("hits", hits), ("misses", misses)];
            let expected = expected.map(|(name, n)| (format!("storage_cache_{name}_total"), n));
            assert_eq!(counted, BTreeMap::from(expected));
        });
    });
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<CacheLayer> {
        serde_json::from_str(text)
    }
    assert_eq!(json("{}").unwrap(), CacheLayer::new());
    let all = CacheLayer::new().max_bytes(5000).unwrap().max_value(9).unwrap();
    let all = all.ttl(Duration::from_millis(1500)).unwrap().doubt(Duration::from_millis(7)).validate(true);
    assert_eq!(
        json(r#"{"max_bytes": 5000, "max_value": 9, "ttl_ms": 1500, "ambiguous_write_hold_ms": 7, "validate": true}"#)
            .unwrap(),
        all
    );
    let toml = "max_bytes = 5000\nmax_value = 9\nttl_ms = 1500\nambiguous_write_hold_ms = 7\nvalidate = true";
    assert_eq!(toml::from_str::<CacheLayer>(toml).unwrap(), all);
    for (nonsense, says) in [
        (r#"{"max_bytes": 0}"#, "`max_bytes` must not be 0"),
        (r#"{"max_bytes": 584}"#, "`max_bytes` must be at least 585,"),
        (r#"{"max_value": 0}"#, "`max_value` must be 1 to 1073741824"),
        (r#"{"max_value": 11, "max_bytes": 522}"#, "`max_bytes` must be at least 523,"),
        (r#"{"max_value": 1048576, "max_bytes": 1048576}"#, "takes 512 bytes more"),
        (r#"{"max_value": 1073741825, "max_bytes": 10737418240}"#, "`max_value` must be 1 to 1073741824"),
        (r#"{"ttl_ms": 0}"#, "`ttl_ms` must not be 0"),
        (r#"{"max_bytes": -1}"#, "invalid value"),
        (r#"{"ttl_ms": "long"}"#, "invalid type"),
        (r#"{"validate": 1}"#, "invalid type"),
        (r#"{"size": 5}"#, "unknown field `size`"),
        ("7", "invalid type"),
    ] {
        let error = json(nonsense).unwrap_err().to_string();
        assert!(error.contains(says), "{nonsense}: {error}");
    }
    for refused in [
        CacheLayer::new().max_bytes(0),
        CacheLayer::new().max_bytes(400),
        CacheLayer::new().max_value(0),
        CacheLayer::new().ttl(Duration::ZERO),
        CacheLayer::new().max_value(11).unwrap().max_bytes(522),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
    }
    for taken in [CacheLayer::new().max_bytes(585), CacheLayer::new().max_value(11).unwrap().max_bytes(523)] {
        taken.unwrap();
    }
}
