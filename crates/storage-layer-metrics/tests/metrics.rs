//! The counts are right, whatever the end of an operation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/prometheus.rs"]
#[allow(dead_code, reason = "the example's main is not called here")]
mod example;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    BatchOptions, Body, Bytes, Condition, Error, ErrorKind, GetOptions, PutOptions, Query, Result, Storage,
    StorageBackend,
};
use storage_layer_metrics::{Metrics, MetricsLayer, names};
use storage_memory::Memory;

fn over<B: StorageBackend>(backend: B) -> Storage<Metrics<B>> {
    Storage::typed(backend).layer(MetricsLayer::new())
}

/// A recorder for this thread.
fn record() -> (Snapshotter, LocalRecorderGuard<'static>) {
    let recorder = Box::leak(Box::new(DebuggingRecorder::new()));
    (recorder.snapshotter(), metrics::set_default_local_recorder(recorder))
}

/// What was counted since the last time: name, operation and kind to count; of histograms the number of samples.
fn taken(seen: &Snapshotter) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (key, _, _, value) in seen.snapshot().into_vec() {
        let label = |name: &str| key.key().labels().find(|l| l.key() == name).map(|l| l.value().to_owned());
        assert_eq!(label("backend").as_deref(), Some("memory"));
        let mut name = format!("{} {}", key.key().name(), label("operation").unwrap());
        if let Some(kind) = label("kind") {
            name += &format!(" {kind}");
        }
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(samples) => {
                assert!(samples.iter().all(|seconds| (0.0..60.0).contains(&seconds.0)));
                samples.len() as u64
            }
            DebugValue::Gauge(_) => panic!("there is no gauge"),
        };
        if count > 0 {
            counts.insert(name, count);
        }
    }
    counts
}

#[track_caller]
fn assert_counted(seen: &Snapshotter, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected.iter().map(|(name, n)| (format!("storage_{name}"), *n)).collect();
    assert_eq!(taken(seen), expected);
}

#[tokio::test]
async fn every_method_is_counted_once_and_reaches_the_backend() -> Result<()> {
    let (seen, _recording) = record();
    // Memory signs no requests.
    for method in METHODS.iter().filter(|method| !matches!(**method, "health" | "presign")) {
        let memory = Memory::new();
        Storage::new(memory.clone()).put("a", "v").await?;
        let recorder = Recorder::new(memory);
        let log = recorder.log();
        call(&**over(recorder).backend(), method).await?;
        assert_eq!(log.take()[0], *method);
        let counts = taken(&seen);
        assert_eq!(counts[&format!("{} {method}", names::DURATION)], 1, "{counts:?}");
        assert_eq!(counts[&format!("{} {method}", names::SUCCESSES)], 1, "{counts:?}");
    }
    let storage = over(Memory::new());
    let tx = storage.begin().await?;
    tx.put("a", "v").await?;
    taken(&seen);
    for method in METHODS.iter().filter(|method| !matches!(**method, "health" | "presign" | "begin" | "disconnect")) {
        tx.put("a", "v").await?;
        taken(&seen);
        call(&**tx.backend(), method).await?;
        assert_eq!(taken(&seen)[&format!("{} {method}", names::SUCCESSES)], 1);
    }
    tx.commit().await?;
    assert_counted(&seen, &[("operation_duration_seconds commit", 1), ("operation_successes_total commit", 1)]);
    Ok(())
}

#[tokio::test]
async fn bytes_are_those_of_the_values() -> Result<()> {
    let (seen, _recording) = record();
    let storage = over(Memory::new());
    storage.put("a", "12345").await?;
    let pieces = ["123", "4567"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
    storage.put("b", Body::stream(stream::iter(pieces))).await?;
    storage.get("a").await?;
    storage.get_with("b", GetOptions::new().range(2..5)).await?;
    storage.get("missing").await?;
    assert_counted(
        &seen,
        &[
            ("operation_duration_seconds put", 2),
            ("operation_successes_total put", 2),
            ("written_bytes_total put", 12),
            ("operation_duration_seconds get", 3),
            ("operation_successes_total get", 3),
            ("read_bytes_total get", 8),
        ],
    );
    let items = [("c", Body::from("1")), ("d", Body::stream(stream::iter([Ok(Bytes::from_static(b"23"))])))];
    storage.put_batch(items).await?;
    storage.get_batch(["c", "d", "e"]).await?;
    storage.delete_batch(["c", "d"]).await?;
    assert_counted(
        &seen,
        &[
            ("operation_duration_seconds put_batch", 1),
            ("operation_successes_total put_batch", 1),
            ("written_bytes_total put_batch", 3),
            ("operation_duration_seconds get_batch", 1),
            ("operation_successes_total get_batch", 1),
            ("read_bytes_total get_batch", 3),
            ("operation_duration_seconds delete_batch", 1),
            ("operation_successes_total delete_batch", 1),
        ],
    );
    Ok(())
}

#[tokio::test]
async fn errors_are_counted_by_kind() -> Result<()> {
    let (seen, _recording) = record();
    let memory = Memory::new();
    let storage = over(memory.clone());
    storage.copy("missing", "a").await.unwrap_err();
    let broken = [Ok(Bytes::from_static(b"123")), Err(Error::new(ErrorKind::Other, "broken"))];
    storage.put("a", Body::stream(stream::iter(broken))).await.unwrap_err();
    assert_counted(
        &seen,
        &[
            ("operation_duration_seconds copy", 1),
            ("operation_errors_total copy not_found", 1),
            ("operation_duration_seconds put", 1),
            ("operation_errors_total put other", 1),
        ],
    );
    let down = over(Faults::new(memory.clone(), 1).before(1.0));
    down.put_batch([("a", "1"), ("b", "2")]).await.unwrap_err();
    let reset = over(Faults::new(memory.clone(), 1).reset(1.0));
    reset.query(Query::new()).await?.try_collect::<Vec<_>>().await.unwrap_err();
    assert_counted(
        &seen,
        &[
            ("operation_duration_seconds put_batch", 1),
            ("operation_errors_total put_batch unavailable", 1),
            ("operation_duration_seconds query", 1),
            ("operation_errors_total query unavailable", 1),
        ],
    );
    // An item whose own answer is final does not make the batch a failure.
    storage.put("a", "1").await?;
    taken(&seen);
    let once = PutOptions::new().condition(Condition::IfAbsent);
    let items = [("a", "0123456789", once.clone()), ("new", "0123456789", once)];
    let results = storage.put_batch_with(items, BatchOptions::new()).await?;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_counted(
        &seen,
        &[
            ("operation_duration_seconds put_batch", 1),
            ("operation_successes_total put_batch", 1),
            ("written_bytes_total put_batch", 10),
        ],
    );
    Ok(())
}

#[tokio::test]
async fn what_is_dropped_before_its_end_is_cancelled() -> Result<()> {
    let (seen, _recording) = record();
    let memory = Memory::new();
    Storage::new(memory.clone()).put_batch([("a", "1"), ("b", "2")]).await?;
    let storage = over(memory.clone());
    let mut listing = storage.list("").await?;
    listing.next().await;
    assert_counted(&seen, &[]);
    drop(listing);
    let cancelled = [("operation_duration_seconds list", 1), ("operation_cancellations_total list", 1)];
    assert_counted(&seen, &cancelled);
    let mut listing = storage.list("").await?;
    while listing.next().await.is_some() {}
    drop(listing);
    assert_counted(&seen, &[("operation_duration_seconds list", 1), ("operation_successes_total list", 1)]);
    let hanging = over(Faults::new(memory, 1).stall(1.0));
    assert!(hanging.put("a", "12").now_or_never().is_none());
    let cancelled = [("operation_duration_seconds put", 1), ("operation_cancellations_total put", 1)];
    assert_counted(&seen, &cancelled);
    Ok(())
}

#[tokio::test]
async fn every_name_is_in_the_readme_and_in_what_prometheus_reads() {
    let readme = include_str!("../README.md");
    let scraped = example::scrape().await.unwrap();
    for name in names::ALL {
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
    for line in [
        "# TYPE storage_operation_duration_seconds histogram",
        "storage_operation_duration_seconds_bucket{operation=\"put\",backend=\"memory\",le=\"+Inf\"} 2",
        "storage_operation_successes_total{operation=\"put\",backend=\"memory\"} 2",
        "storage_operation_errors_total{operation=\"copy\",backend=\"memory\",kind=\"not_found\"} 1",
        "storage_read_bytes_total{operation=\"get\",backend=\"memory\"} 10",
        "storage_written_bytes_total{operation=\"put\",backend=\"memory\"} 19",
    ] {
        assert!(scraped.contains(line), "{line} is not in\n{scraped}");
    }
    let helped: BTreeSet<&str> = scraped.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    assert!(helped.iter().any(|line| line.starts_with(names::DURATION)), "{scraped}");
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<MetricsLayer> {
        serde_json::from_str(text)
    }
    assert_eq!(json("{}").unwrap(), MetricsLayer::new());
    let named = MetricsLayer::new().backend("letters").unwrap();
    assert_eq!(json(r#"{"backend": "letters"}"#).unwrap(), named);
    assert_eq!(toml::from_str::<MetricsLayer>("backend = \"letters\"").unwrap(), named);
    assert!(json(r#"{"backend": ""}"#).unwrap_err().to_string().contains("must not be empty"));
    for nonsense in [r#"{"label": "a"}"#, r#"{"backend": 5}"#, "7"] {
        assert!(json(nonsense).is_err(), "{nonsense}");
    }
}
