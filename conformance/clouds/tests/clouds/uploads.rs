//! The end of an upload by parts that was done, although the answer says or does something else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use storage_cloud_tests::{Answer, Asked, Cloud, Server};
use storage_core::{Entry, Error, ErrorKind, Metadata, PutOptions, Result, Storage};
use storage_object_store::ObjectStoreBackend;

const LARGE: usize = 6 << 20;

async fn put(storage: &Storage<ObjectStoreBackend>) -> Result<Entry> {
    let options = PutOptions::new().metadata(Metadata::new().tag("mine"));
    storage.put_with("k", vec![7; LARGE], options).await
}

/// What happens to the request that ends an upload.
type End = fn(Cloud, &mut dyn FnMut() -> Answer) -> Answer;

async fn with_end(cloud: Cloud, end: End) -> (Server, Storage<ObjectStoreBackend>) {
    let server = Server::start(cloud).await.unwrap();
    let storage = server.connect().await.unwrap();
    server.answer(move |asked, serve| if asked.completes() { end(cloud, serve) } else { serve() });
    (server, storage)
}

#[tokio::test]
async fn an_upload_that_was_done_is_done() {
    let ends: [(&str, End); 6] = [
        // Something on the way has sent the request again.
        ("the answer to the second", |_, serve| {
            serve();
            serve()
        }),
        ("no answer", |_, serve| {
            serve();
            Answer::lost()
        }),
        ("an error of the store", |cloud, serve| {
            serve();
            cloud.refusal(500, "InternalError")
        }),
        ("a page of a proxy", |_, serve| {
            serve();
            Answer::page(502, "<html>Bad Gateway</html>")
        }),
        ("a page for what is not found", |_, serve| {
            serve();
            Answer::page(404, "<html>Not Found</html>")
        }),
        ("an error behind a good status", |_, serve| {
            serve();
            Answer::xml(200, "<Error><Code>InternalError</Code></Error>")
        }),
    ];
    for cloud in Cloud::ALL {
        for (what, end) in ends {
            let (server, storage) = with_end(cloud, end).await;
            let entry = put(&storage).await.unwrap_or_else(|e| panic!("{cloud:?}, {what}: {e:?}"));
            server.behave();
            let now = storage.stat("k").await.unwrap().unwrap();
            assert_eq!((entry.size, &entry.etag), (LARGE as u64, &now.etag), "{cloud:?}, {what}");
            assert!(now.metadata.unwrap().tags.contains("mine"), "{cloud:?}, {what}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_may_have_been_done_is_not_said_to_be_undone() {
    let ends: [(&str, End, bool); 4] = [
        (
            "no upload",
            |cloud, _| cloud.refusal(404, if cloud == Cloud::Azure { "BlobNotFound" } else { "NoSuchUpload" }),
            true,
        ),
        ("no answer", |_, _| Answer::lost(), true),
        ("an error of the store", |cloud, _| cloud.refusal(500, "InternalError"), true),
        (
            "a refusal",
            |cloud, _| cloud.refusal(403, if cloud == Cloud::Azure { "AuthorizationFailure" } else { "AccessDenied" }),
            false,
        ),
    ];
    for cloud in Cloud::ALL {
        for (what, end, ambiguous) in ends {
            for there in [false, true] {
                let (server, storage) = with_end(cloud, end).await;
                if there {
                    storage.put("k", "of another").await.unwrap();
                }
                let error = put(&storage).await.unwrap_err();
                assert_eq!(error.is_ambiguous(), ambiguous, "{cloud:?}, {what}, {there}: {error:?}");
                server.behave();
                let expected = there.then_some(&b"of another"[..]);
                assert_eq!(storage.get("k").await.unwrap().as_deref(), expected, "{cloud:?}, {what}");
            }
        }
    }
}

/// Done, and replaced by another write before it could be looked at.
#[tokio::test]
async fn an_upload_that_was_replaced_at_once_is_not_said_to_be_undone() {
    for cloud in [Cloud::S3, Cloud::Gcs] {
        let server = Server::start(cloud).await.unwrap();
        let storage = server.connect().await.unwrap();
        let other = server.clone();
        server.answer(move |asked, serve| {
            if !asked.completes() {
                return serve();
            }
            serve();
            other.store().put("k", b"later", Vec::new());
            serve()
        });
        let error = put(&storage).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.is_ambiguous(), "{cloud:?}: {error:?}");
    }
}

/// Azure throws blocks away when the blob is written.
#[tokio::test]
async fn azure_says_that_another_write_was_there() {
    let server = Server::start(Cloud::Azure).await.unwrap();
    let storage = server.connect().await.unwrap();
    let other = server.clone();
    server.answer(move |asked, serve| {
        if asked.completes() {
            let mut store = other.store();
            store.blocks.clear();
            store.put("k", b"of another", Vec::new());
        }
        serve()
    });
    let error = put(&storage).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && !error.is_ambiguous(), "{error:?}");
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "of another");
}

/// The look at what has become of an upload may fail, too.
#[tokio::test]
async fn what_cannot_be_looked_at_stays_open() {
    for cloud in Cloud::ALL {
        let server = Server::start(cloud).await.unwrap();
        let storage = server.connect().await.unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        server.answer(move |asked: &Asked, serve: &mut dyn FnMut() -> Answer| {
            let done = serve();
            let over = ended.fetch_or(asked.completes(), Ordering::Relaxed);
            if over || asked.completes() { Answer::lost() } else { done }
        });
        let error: Error = put(&storage).await.unwrap_err();
        assert!(error.is_ambiguous() && error.is_retryable(), "{cloud:?}: {error:?}");
    }
}

/// An upload costs no more requests where it succeeds.
#[tokio::test]
async fn an_upload_costs_what_it_did() {
    for (cloud, expected) in [(Cloud::S3, 4), (Cloud::Azure, 3), (Cloud::Gcs, 4)] {
        let server = Server::start(cloud).await.unwrap();
        let storage = server.connect().await.unwrap();
        server.requests();
        put(&storage).await.unwrap();
        assert_eq!(server.requests().len(), expected, "{cloud:?}");
    }
}
