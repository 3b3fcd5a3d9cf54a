//! A load balancer, a login page or a maintenance page that answers for a store for a while.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::TryStreamExt;
use storage_cloud_tests::{Answer, Cloud, Server};
use storage_core::{Condition, Error, ErrorKind, GetOptions, ListOptions, PutOptions, Result, Storage};
use storage_object_store::ObjectStoreBackend;

const PAGE: &str =
    "<html><head><title>404 Not Found</title></head><body><center><h1>404 Not Found</h1></center></body></html>";

/// Every operation on a key, by its name.
async fn operations(storage: &Storage<ObjectStoreBackend>, key: &str) -> Vec<(&'static str, Result<()>)> {
    let level = ListOptions::new().delimited(true);
    let all = async |options| storage.list_with(options).await?.try_collect::<Vec<_>>().await.map(drop);
    let create = PutOptions::new().condition(Condition::IfAbsent);
    vec![
        ("get", storage.get(key).await.map(drop)),
        ("get of a part", storage.get_with(key, GetOptions::new().range(0..1)).await.map(drop)),
        ("stat", storage.stat(key).await.map(drop)),
        ("exists", storage.exists(key).await.map(drop)),
        ("put", storage.put(key, "w").await.map(drop)),
        ("create", storage.put_with(key, "w", create).await.map(drop)),
        ("put by parts", storage.put(key, vec![1; 6 << 20]).await.map(drop)),
        ("delete", storage.delete(key).await),
        ("batch", storage.delete_batch([key, "other"]).await),
        ("list", all(ListOptions::new()).await),
        ("one level", all(level).await),
        ("copy", storage.copy(key, "copy").await.map(drop)),
        ("rename", storage.rename(key, "renamed").await.map(drop)),
        ("clear", storage.clear().await),
    ]
}

fn is_told(error: &Error, kind: ErrorKind) -> bool {
    error.kind() == kind && error.message().contains("does not answer as")
}

#[tokio::test]
async fn a_page_is_never_an_answer() {
    for cloud in Cloud::ALL {
        for (status, kind) in [
            (200, ErrorKind::Unavailable),
            (302, ErrorKind::Unavailable),
            (401, ErrorKind::Unauthenticated),
            (403, ErrorKind::PermissionDenied),
            (404, ErrorKind::Unavailable),
            (409, ErrorKind::Unavailable),
            (412, ErrorKind::Unavailable),
            (500, ErrorKind::Unavailable),
            (502, ErrorKind::Unavailable),
            (503, ErrorKind::Unavailable),
        ] {
            let server = Server::start(cloud).await.unwrap();
            let storage = server.connect().await.unwrap();
            storage.put("k", "v").await.unwrap();
            server.answer(move |_, _| {
                Answer::page(status, PAGE)
                    .header("etag", "\"1\"")
                    .header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
            });
            for (what, ended) in operations(&storage, "k").await {
                let error = ended.expect_err(&format!("{cloud:?}, {status}: {what}"));
                // An answer to HEAD, with which a rename begins, has no page.
                let bare = matches!(what, "stat" | "exists" | "rename") && error.kind() == kind;
                assert!(is_told(&error, kind) || bare, "{cloud:?}, {status}: {what}: {error:?}");
            }
            assert!(!storage.is_connected().await, "{cloud:?}, {status}");
            server.behave();
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
            assert!(storage.is_connected().await);
        }
    }
}

/// Where nothing but the body says whose a 404 is.
#[tokio::test]
async fn a_404_is_looked_into_whatever_the_server_sends() {
    for cloud in Cloud::ALL {
        for marked in [true, false] {
            let server = Server::start(cloud).await.unwrap();
            server.store().marked = marked;
            let storage = server.connect().await.unwrap();
            let (none, some) = (storage.stat("k").await.unwrap(), storage.get("k").await.unwrap());
            assert!(none.is_none() && some.is_none() && storage.is_connected().await, "{cloud:?}");
            storage.delete("k").await.unwrap();
            server.requests();
            for bare in [false, true] {
                // A server may say nothing at all in an answer to HEAD.
                server.answer(move |asked, serve| match (asked.method.as_str(), bare) {
                    ("HEAD", true) => Answer::new(404, ""),
                    _ => serve(),
                });
                assert!(!storage.exists("k").await.unwrap(), "{cloud:?}");
                storage.put("k", "v").await.unwrap();
                assert_eq!(
                    storage.stat("k").await.unwrap().unwrap().size,
                    1,
                    "{cloud:?}: a HEAD that says 404 of what is there"
                );
                server.behave();
                storage.delete("k").await.unwrap();
            }
            for (what, answer) in [
                ("HTML", Answer::page(404, PAGE)),
                (
                    "JSON",
                    Answer::new(404, "{\"message\": \"no Route matched\"}").header("content-type", "application/json"),
                ),
                ("text", Answer::new(404, "default backend - 404").header("content-type", "text/plain")),
                ("nothing", Answer::new(404, "")),
                ("other XML", Answer::xml(404, "<html><body>404</body></html>")),
            ] {
                server.answer(move |_, _| answer.clone());
                for (operation, ended) in operations(&storage, "k").await {
                    let error = ended.expect_err(&format!("{cloud:?}, {what}: {operation}"));
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{cloud:?}, {what}: {operation}: {error:?}");
                }
                assert!(!storage.is_connected().await, "{cloud:?}, {what}");
            }
        }
    }
}

/// What a store says itself is understood as before.
#[tokio::test]
async fn codes_decide() {
    for cloud in Cloud::ALL {
        let server = Server::start(cloud).await.unwrap();
        let storage = server.connect().await.unwrap();
        let bucket = if cloud == Cloud::Azure { "ContainerNotFound" } else { "NoSuchBucket" };
        for (answer, kind) in [
            (cloud.refusal(404, bucket), ErrorKind::NotFound),
            (cloud.refusal(404, "NoSuchThingAtAll"), ErrorKind::NotFound),
            (cloud.refusal(503, "SomethingBusy"), ErrorKind::Unavailable),
        ] {
            server.answer(move |_, _| answer.clone());
            assert_eq!(storage.get("k").await.unwrap_err().kind(), kind, "{cloud:?}");
            assert_eq!(storage.put("k", "v").await.unwrap_err().kind(), kind, "{cloud:?}");
        }
        let absent = cloud.absent();
        server.answer(move |_, _| absent.clone());
        assert_eq!(storage.get("k").await.unwrap(), None);
        assert_eq!(storage.stat("k").await.unwrap(), None);
        storage.delete("k").await.unwrap();
        assert_eq!(storage.copy("k", "l").await.unwrap_err().kind(), ErrorKind::NotFound, "{cloud:?}");
    }
}
