//! What a server in trouble says in its own codes, and a broken network: right kinds, no hang, and with the retry layer above,
//! success.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use storage_conformance::{
    proxy::Fault,
    trouble::{Trouble, is_mended_in_uploads, is_never_taken_for_a_copy, is_told_and_mended},
};
use storage_core::{ErrorKind, Storage};
use storage_layer_retry::RetryLayer;

use crate::bucket::{Bucket, config, host, is_there};

fn busy(status: &str, code: &str) -> Fault {
    let body = format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>busy</Message></Error>");
    Fault::answer(status, "content-type: application/xml\r\nretry-after: 1\r\n", &body)
}

#[tokio::test]
async fn troubles_are_told_and_the_retry_layer_mends_them() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let mut config = bucket.config();
    config.http.timeout = Duration::from_secs(5);
    let storage = Storage::new(storage_gcs::connect(config).await.unwrap());
    let retry = RetryLayer::new().retries(3).initial(Duration::from_millis(5));
    let retried = storage.clone().layer(retry);
    let mut troubles = Trouble::of_networks();
    troubles.extend([
        Trouble::new(busy("500 Internal Server Error", "InternalError"), ErrorKind::Unavailable, true),
        Trouble::new(busy("503 Service Unavailable", "ServiceUnavailable"), ErrorKind::Unavailable, true),
        Trouble::new(busy("429 Too Many Requests", "SlowDown"), ErrorKind::RateLimited, false),
    ]);
    is_told_and_mended(&bucket.proxy, &storage, &retried, troubles).await.unwrap();
    for fault in [Fault::Reset(0), busy("429 Too Many Requests", "SlowDown")] {
        is_mended_in_uploads(&bucket.proxy, &retried, fault).await.unwrap();
    }
}

#[tokio::test]
async fn another_write_is_never_taken_for_a_copy() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await.erase();
    let direct = config(&bucket.name, &host().unwrap());
    let other = Storage::new(storage_gcs::connect(direct).await.unwrap());
    is_never_taken_for_a_copy(&bucket.proxy, &storage, &other).await.unwrap();
}
