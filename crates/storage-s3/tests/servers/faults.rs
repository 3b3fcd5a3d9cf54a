//! What a server in trouble says in its own codes, and a broken network: right kinds, no hang, and with the retry layer above,
//! success.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use storage_conformance::{
    proxy::{Fault, Mode, Proxy},
    trouble::{Trouble, is_mended_in_uploads, is_never_taken_for_a_copy, is_told_and_mended},
};
use storage_core::{Condition, ErrorKind, PutOptions, Storage};
use storage_layer_retry::RetryLayer;

use crate::bucket::{Bucket, MOTO, Server};

/// No operation may take longer than the client's timeout and a good deal more.
const PATIENCE: Duration = Duration::from_secs(20);

fn busy(status: &str, code: &str) -> Fault {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>busy</Message></Error>");
    Fault::answer(status, "content-type: application/xml\r\nretry-after: 1\r\n", &body)
}

async fn in_time<T>(what: &str, operation: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let ended = tokio::time::timeout(PATIENCE, operation).await;
    ended.unwrap_or_else(|_| panic!("{what}: no end after {:?}", begun.elapsed()))
}

#[tokio::test]
async fn troubles_are_told_and_the_retry_layer_mends_them() {
    let at_once = Server::all().into_iter().map(|server| async move {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await.erase();
        let retry = RetryLayer::new().retries(3).initial(Duration::from_millis(5));
        let retried = storage.clone().layer(retry);
        let mut troubles = Trouble::of_networks();
        troubles.extend([
            Trouble::new(busy("500 Internal Server Error", "InternalError"), ErrorKind::Unavailable, true),
            Trouble::new(busy("503 Service Unavailable", "ServiceUnavailable"), ErrorKind::Unavailable, true),
            Trouble::new(busy("503 Slow Down", "SlowDown"), ErrorKind::RateLimited, false),
            Trouble::new(busy("429 Too Many Requests", "TooManyRequests"), ErrorKind::RateLimited, false),
        ]);
        is_told_and_mended(&bucket.proxy, &storage, &retried, troubles).await.unwrap();
        for fault in [Fault::Reset(0), busy("503 Slow Down", "SlowDown")] {
            is_mended_in_uploads(&bucket.proxy, &retried, fault).await.unwrap();
        }
    });
    futures_util::future::join_all(at_once).await;
}

/// Answers that Amazon documents for conditional writes that meet, which neither server gives.
#[tokio::test]
async fn a_conditional_write_that_met_another_is_made_again() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let create = || PutOptions::new().condition(Condition::IfAbsent);
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

/// What S3 may say behind a status that it sent before it knew better, which neither server does.
#[tokio::test]
async fn an_error_behind_a_good_status_is_one() {
    let late = |code| busy("200 OK", code);
    for server in Server::all() {
        for (code, kind, ambiguous) in [
            ("SlowDown", ErrorKind::RateLimited, false),
            ("InternalError", ErrorKind::Unavailable, true),
            ("Mystery", ErrorKind::Unavailable, true),
        ] {
            let bucket = Bucket::new(server, false).await;
            let storage = bucket.open().await;
            storage.put("from", "v").await.unwrap();
            bucket.proxy.spoil(0, 1, late(code));
            let copy = storage.copy("from", "to").await.unwrap_err();
            bucket.proxy.spoil(0, 1, late(code));
            let batch = storage.delete_batch(["a", "b"]).await.unwrap_err();
            // The upload begins with one request and has two parts. What may be complete is looked at and left alone; else it is aborted in
            // the background.
            bucket.proxy.spoil(3, 1, late(code));
            let before = bucket.proxy.requests();
            let put = storage.put("large", vec![1; 6 << 20]).await.unwrap_err();
            tokio::time::sleep(Duration::from_millis(300)).await;
            // moto does not say that an answer to HEAD is its own.
            let again = u64::from(ambiguous && server == MOTO);
            assert_eq!(bucket.proxy.requests() - before, 5 + again, "{code}");
            for error in [copy, put, batch] {
                assert_eq!((error.kind(), error.is_ambiguous()), (kind, ambiguous), "{code}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        bucket.proxy.set(Mode::Cut);
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

#[tokio::test]
async fn another_write_is_never_taken_for_a_copy() {
    for server in Server::all() {
        for versions in [false, true] {
            let bucket = Bucket::new(server, versions).await;
            let storage = bucket.open().await.erase();
            let other = storage_s3::connect(server.config(&bucket.name)).await.unwrap();
            is_never_taken_for_a_copy(&bucket.proxy, &storage, &Storage::new(other)).await.unwrap();
        }
    }
}
