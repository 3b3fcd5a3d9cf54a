//! What the network and a server in trouble do, as a proxy plays it: right kinds, nothing half-written, and with the retry layer
//! above, success.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use storage_conformance::proxy::Fault;
use storage_core::{ErrorKind, Storage, StorageBackend};
use storage_layer_retry::RetryLayer;

use crate::bucket::{Bucket, is_there};

const VALUE: usize = 200_000;

fn value(seed: u8) -> Vec<u8> {
    (0..VALUE).map(|i| (i % 251) as u8 ^ seed).collect()
}

fn busy(status: &str, code: &str) -> Fault {
    let body = format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>busy</Message></Error>");
    Fault::answer(status, "content-type: application/xml\r\nretry-after: 1\r\n", &body)
}

/// Faults, the kind that a read gets, and whether the server may have done its work.
fn faults() -> Vec<(Fault, ErrorKind, bool)> {
    vec![
        (busy("500 Internal Server Error", "InternalError"), ErrorKind::Unavailable, true),
        (busy("503 Service Unavailable", "ServiceUnavailable"), ErrorKind::Unavailable, true),
        (busy("429 Too Many Requests", "SlowDown"), ErrorKind::RateLimited, false),
        (Fault::Reset(0), ErrorKind::Unavailable, true),
        (Fault::Reset(90), ErrorKind::Unavailable, true),
        (Fault::Truncate(90), ErrorKind::Unavailable, true),
    ]
}

fn retried<B: StorageBackend>(storage: &Storage<B>) -> Storage<impl StorageBackend> {
    let layer = RetryLayer::new().retries(3).initial(Duration::from_millis(5));
    Storage::from_arc(storage.backend().clone()).layer(layer)
}

#[tokio::test]
async fn reads_and_writes_fail_as_they_must_and_the_retry_layer_mends_them() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    let mended = retried(&storage);
    for (fault, kind, ambiguous) in faults() {
        storage.put("k", value(1)).await.unwrap();
        bucket.proxy.spoil(0, 1, fault.clone());
        let error = storage.get("k").await.unwrap_err();
        assert!(error.kind() == kind && error.is_retryable(), "{fault:?}: {error:?}");
        bucket.proxy.spoil(0, 1, fault.clone());
        assert_eq!(mended.get("k").await.unwrap().unwrap(), value(1), "{fault:?}");
        bucket.proxy.spoil(0, 1, fault.clone());
        let error = storage.put("k", value(2)).await.err();
        let stored = storage.get("k").await.unwrap().unwrap();
        match error {
            // The answer has no body that could be missing.
            None => assert_eq!(stored, value(2), "{fault:?}"),
            Some(e) => {
                assert!(e.is_retryable() && e.is_ambiguous() == ambiguous, "{fault:?}: {e:?}");
                assert!(stored == value(1) || (ambiguous && stored == value(2)), "{fault:?}");
            }
        }
        bucket.proxy.spoil(0, 1, fault.clone());
        mended.put("k", value(3)).await.unwrap();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), value(3), "{fault:?}");
        bucket.proxy.spoil(0, 1, fault.clone());
        mended.delete("k").await.unwrap();
        assert_eq!(storage.get("k").await.unwrap(), None, "{fault:?}");
    }
}

/// Whichever request of an upload by parts it is.
#[tokio::test]
async fn an_upload_that_breaks_off_stores_nothing() {
    const REQUESTS: usize = 5;
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    let mended = retried(&storage);
    let large = |byte: u8| vec![byte; 12 << 20];
    for request in 0..REQUESTS {
        storage.put("old", "old").await.unwrap();
        bucket.proxy.spoil(request, 1, Fault::Reset(0));
        let error = storage.put("old", large(1)).await.unwrap_err();
        // Only the last request makes it visible.
        assert_eq!(error.is_ambiguous(), request == REQUESTS - 1, "{request}: {error:?}");
        let stored = storage.get("old").await.unwrap().unwrap();
        assert!(stored == "old" || (error.is_ambiguous() && stored == large(1)), "request {request}");
        bucket.proxy.spoil(request, 1, Fault::Reset(0));
        mended.put("new", large(2)).await.unwrap();
        assert!(storage.get("new").await.unwrap().unwrap() == large(2));
    }
}
