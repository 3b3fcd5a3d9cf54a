//! What an account in trouble says in its own codes, and a broken network: right kinds, no hang, and with the retry layer above,
//! success.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use storage_conformance::{
    proxy::Fault,
    trouble::{Trouble, is_mended_in_uploads, is_never_taken_for_a_copy, is_told_and_mended},
};
use storage_core::{Condition, ErrorKind, PutOptions, Storage};
use storage_layer_retry::RetryLayer;

use crate::container::{Container, endpoint, host, is_there};

fn busy(status: &str, code: &str) -> Fault {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>busy</Message></Error>");
    let headers = format!("content-type: application/xml\r\nx-ms-error-code: {code}\r\nretry-after: 1\r\n");
    Fault::answer(status, &headers, &body)
}

#[tokio::test]
async fn troubles_are_told_and_the_retry_layer_mends_them() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await.erase();
    let retry = RetryLayer::new().retries(3).initial(Duration::from_millis(5));
    let retried = storage.clone().layer(retry);
    let mut troubles = Trouble::of_networks();
    troubles.extend([
        Trouble::new(busy("500 Internal Server Error", "InternalError"), ErrorKind::Unavailable, true),
        Trouble::new(busy("500 Operation Timed Out", "OperationTimedOut"), ErrorKind::Timeout, true),
        Trouble::new(busy("503 Server Busy", "ServerBusy"), ErrorKind::RateLimited, false),
        Trouble::new(busy("429 Too Many Requests", "TooManyRequests"), ErrorKind::RateLimited, false),
    ]);
    is_told_and_mended(&container.proxy, &storage, &retried, troubles).await.unwrap();
    for fault in [Fault::Reset(0), busy("503 Server Busy", "ServerBusy")] {
        is_mended_in_uploads(&container.proxy, &retried, fault).await.unwrap();
    }
}

/// What the emulator never says, since it copies at once.
#[tokio::test]
async fn a_copy_is_not_waited_for_without_end() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let mut config = container.config();
    config.http.timeout = Duration::from_secs(1);
    let storage = Storage::new(storage_azure::connect(config).await.unwrap());
    storage.put("from", "v").await.unwrap();
    container.proxy.spoil(0, usize::MAX, Fault::answer("202 Accepted", "x-ms-copy-status: pending\r\n", ""));
    let copy = tokio::time::timeout(Duration::from_secs(40), storage.copy("from", "to")).await.unwrap().unwrap_err();
    assert!(copy.kind() == ErrorKind::Timeout && copy.is_ambiguous(), "{copy:?}");
    container.proxy.spoil(0, 100, busy("409 Conflict", "PendingCopyOperation"));
    let create = PutOptions::new().condition(Condition::IfAbsent);
    let put = storage.put_with("to", "v", create).await.unwrap_err();
    assert!(put.kind() == ErrorKind::Conflict && !put.is_ambiguous(), "{put:?}");
}

/// A conflict that has no name here is no value that exists already, where nobody asked for that.
#[tokio::test]
async fn an_unconditional_write_finds_no_value_in_its_way() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await;
    for (request, size) in [(0, 1), (2, 6 << 20)] {
        container.proxy.spoil(request, 1, busy("409 Conflict", "Mystery"));
        let put = storage.put("k", vec![1; size]).await.unwrap_err();
        assert!(put.kind() == ErrorKind::Conflict && !put.is_ambiguous(), "{size}: {put:?}");
    }
    let create = PutOptions::new().condition(Condition::IfAbsent);
    container.proxy.spoil(0, 1, busy("409 Conflict", "Mystery"));
    let created = storage.put_with("k", "v", create).await.unwrap_err();
    assert_eq!(created.kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn another_write_is_never_taken_for_a_copy() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await.erase();
    let mut direct = container.config();
    direct.endpoint = Some(endpoint(&host()));
    let other = Storage::new(storage_azure::connect(direct).await.unwrap());
    is_never_taken_for_a_copy(&container.proxy, &storage, &other).await.unwrap();
}
