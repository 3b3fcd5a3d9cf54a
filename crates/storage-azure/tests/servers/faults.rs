//! What an account in trouble says in its own codes, and a broken network: right kinds, no hang, and with the retry layer above,
//! success.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use storage_conformance::{
    proxy::Fault,
    trouble::{Trouble, is_mended_in_uploads, is_told_and_mended},
};
use storage_core::{ErrorKind, Storage};
use storage_layer_retry::RetryLayer;

use crate::container::{Container, is_there};

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
    let storage = container.open().await;
    let retry = RetryLayer::new().retries(3).initial(Duration::from_millis(5));
    let retried = Storage::from_arc(storage.backend().clone()).layer(retry);
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
