//! What the network and a server in trouble do, as a proxy plays it: right kinds, nothing half-written, no hang, and with the
//! retry layer above, success.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, stream};
use storage_conformance::proxy::{Fault, Proxy};
use storage_core::{Body, ErrorKind, PutOptions, Storage, StorageBackend};
use storage_layer_retry::RetryLayer;

use crate::bucket::{Bucket, Server};

const VALUE: usize = 200_000;
/// No operation may take longer than the client's timeout and a good deal more.
const PATIENCE: Duration = Duration::from_secs(20);

fn value(seed: u8) -> Vec<u8> {
    (0..VALUE).map(|i| (i % 251) as u8 ^ seed).collect()
}

fn busy(status: &str, code: &str) -> Fault {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>busy</Message></Error>");
    Fault::answer(status, "content-type: application/xml\r\nretry-after: 1\r\n", &body)
}

/// Faults, the kind that a read gets, and whether the server may have done its work.
fn faults() -> Vec<(Fault, ErrorKind, bool)> {
    vec![
        (busy("500 Internal Server Error", "InternalError"), ErrorKind::Unavailable, true),
        (busy("503 Service Unavailable", "ServiceUnavailable"), ErrorKind::Unavailable, true),
        (busy("503 Slow Down", "SlowDown"), ErrorKind::RateLimited, false),
        (busy("429 Too Many Requests", "TooManyRequests"), ErrorKind::RateLimited, false),
        (Fault::Reset(0), ErrorKind::Unavailable, true),
        (Fault::Reset(90), ErrorKind::Unavailable, true),
        (Fault::Truncate(90), ErrorKind::Unavailable, true),
        (Fault::Silence, ErrorKind::Timeout, true),
    ]
}

async fn in_time<T>(what: &str, operation: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let ended = tokio::time::timeout(PATIENCE, operation).await;
    ended.unwrap_or_else(|_| panic!("{what}: no end after {:?}", begun.elapsed()))
}

fn retried<B: StorageBackend>(storage: &Storage<B>) -> Storage<impl StorageBackend> {
    let layer = RetryLayer::new().retries(3).initial(Duration::from_millis(5));
    Storage::from_arc(storage.backend().clone()).layer(layer)
}

#[tokio::test]
async fn reads_fail_as_they_must_and_the_retry_layer_mends_them() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let mended = retried(&storage);
        storage.put("k", value(1)).await.unwrap();
        for (fault, kind, _) in faults() {
            bucket.proxy.spoil(0, 1, fault.clone());
            let error = in_time("get", storage.get("k")).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
            assert!(error.is_retryable());
            if let Fault::Answer(_) = fault {
                assert_eq!(error.retry_after(), Some(Duration::from_secs(1)), "{error:?}");
            }
            for read in ["get", "stat", "list"] {
                bucket.proxy.spoil(0, 1, fault.clone());
                let whole = in_time(read, async {
                    match read {
                        "get" => mended.get("k").await.unwrap().unwrap() == value(1),
                        "stat" => mended.stat("k").await.unwrap().unwrap().size == VALUE as u64,
                        _ => mended.keys().await.unwrap().try_collect::<Vec<_>>().await.unwrap().len() == 1,
                    }
                });
                assert!(whole.await, "{read} after {fault:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_value_and_is_resumed() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let mended = retried(&storage);
        storage.put("k", value(2)).await.unwrap();
        for fault in [Fault::Reset(100_000), Fault::Truncate(100_000)] {
            bucket.proxy.spoil(0, 1, fault.clone());
            let error = in_time("get", storage.get("k")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}: {error:?}");
            bucket.proxy.spoil(0, 1, fault.clone());
            assert_eq!(in_time("get", mended.get("k")).await.unwrap().unwrap(), value(2), "{fault:?}");
        }
        bucket.proxy.spoil(0, 1, Fault::Trickle(4096, Duration::from_millis(5)));
        assert_eq!(in_time("get", storage.get("k")).await.unwrap().unwrap(), value(2));
    }
}

#[tokio::test]
async fn writes_are_whole_or_not_at_all_and_say_which_they_do_not_know() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let mended = retried(&storage);
        for (i, (fault, _, ambiguous)) in faults().into_iter().enumerate() {
            let key = format!("k{i}");
            storage.put(&key, value(3)).await.unwrap();
            bucket.proxy.spoil(0, 1, fault.clone());
            let result = in_time("put", storage.put(&key, value(4))).await;
            let stored = storage.get(&key).await.unwrap().unwrap();
            // An answer without a body may be there as a whole before it breaks off.
            match result {
                Ok(_) => assert_eq!(stored, value(4), "{fault:?}"),
                Err(e) => {
                    assert!(e.is_retryable() && e.is_ambiguous() == ambiguous, "{fault:?}: {e:?}");
                    assert!(stored == value(3) || (ambiguous && stored == value(4)), "{fault:?}");
                }
            }
            bucket.proxy.spoil(0, 1, fault.clone());
            in_time("put", mended.put(&key, value(5))).await.unwrap();
            assert_eq!(storage.get(&key).await.unwrap().unwrap(), value(5), "{fault:?}");
            bucket.proxy.spoil(0, 1, fault.clone());
            in_time("delete", mended.delete(&key)).await.unwrap();
            assert_eq!(storage.get(&key).await.unwrap(), None, "{fault:?}");
        }
    }
}

/// Whichever request of an upload by parts it is.
#[tokio::test]
async fn an_upload_that_breaks_off_stores_nothing() {
    const REQUESTS: usize = 5;
    let large = |byte: u8| vec![byte; 12 << 20];
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let mended = retried(&storage);
        storage.put("old", "old").await.unwrap();
        for fault in [Fault::Reset(0), busy("503 Slow Down", "SlowDown")] {
            for request in 0..REQUESTS {
                bucket.proxy.spoil(request, 1, fault.clone());
                let pieces = large(1).chunks(1 << 20).map(|piece| Ok(piece.to_vec().into())).collect::<Vec<_>>();
                let result = in_time("upload", storage.put("old", Body::stream(stream::iter(pieces)))).await;
                let stored = storage.get("old").await.unwrap().unwrap();
                match result {
                    Ok(_) => panic!("request {request} was not spoilt"),
                    // Only the last request makes it visible.
                    Err(e) if e.is_ambiguous() => assert_eq!(request, REQUESTS - 1, "{e:?}"),
                    Err(_) => assert_eq!(stored, "old", "request {request}, {fault:?}"),
                }
                storage.put("old", "old").await.unwrap();
                bucket.proxy.spoil(request, 1, fault.clone());
                in_time("upload", mended.put("new", large(2))).await.unwrap();
                assert_eq!(storage.get("new").await.unwrap().unwrap(), large(2));
                storage.delete("new").await.unwrap();
            }
        }
    }
}

/// Answers that Amazon documents for conditional writes that meet, which neither server gives.
#[tokio::test]
async fn a_conditional_write_that_met_another_is_made_again() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let create = || PutOptions::new().condition(storage_core::Condition::IfAbsent);
        let meets = busy("409 Conflict", "ConditionalRequestConflict");
        bucket.proxy.spoil(0, 2, meets.clone());
        storage.put_with("k", "v", create()).await.unwrap();
        bucket.proxy.spoil(0, 2, meets.clone());
        let exists = storage.put_with("k", "w", create()).await.unwrap_err();
        assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
        bucket.proxy.spoil(0, 100, meets);
        let never = storage.put_with("other", "v", create()).await.unwrap_err();
        assert!(never.kind() == ErrorKind::Conflict && !never.is_ambiguous(), "{never:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        bucket.proxy.set(storage_conformance::proxy::Mode::Cut);
        let error = in_time("put", storage.put("k", "v")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!storage.is_connected().await);
        let batch = in_time("batch", storage.delete_batch(["a", "b"])).await.unwrap_err();
        assert_eq!(batch.kind(), ErrorKind::Unavailable, "{batch:?}");
        let nobody = Proxy::start("127.0.0.1:1").unwrap();
        let mut config = bucket.config();
        config.endpoint = Some(format!("http://{}", nobody.address()));
        let error = in_time("connect", storage_s3::connect(config)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
}
