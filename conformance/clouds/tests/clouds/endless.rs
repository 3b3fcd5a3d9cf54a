//! Listings of servers that do not get on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::TryStreamExt;
use storage_cloud_tests::{Answer, Asked, Cloud, Server};
use storage_core::{Error, ListOptions, Query, Result, Storage};
use storage_object_store::ObjectStoreBackend;

/// What lists, by its name.
const WAYS: [&str; 5] = ["list", "list with a prefix", "one level", "query", "clear"];

async fn ends(storage: &Storage<ObjectStoreBackend>, way: &str) -> Result<()> {
    let all = async |options| storage.list_with(options).await?.try_collect::<Vec<_>>().await.map(drop);
    let ended = async {
        match way {
            "list" => all(ListOptions::new()).await,
            "list with a prefix" => all(ListOptions::new().prefix("k")).await,
            "one level" => all(ListOptions::new().delimited(true)).await,
            "query" => storage.query(Query::new()).await?.try_collect::<Vec<_>>().await.map(drop),
            "clear" => storage.clear().await,
            _ => storage.versions("k0").await?.try_collect::<Vec<_>>().await.map(drop),
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("an end")
}

fn is_told(error: &Error) -> bool {
    error.message().contains("does not end") && !error.is_retryable()
}

/// The element that says where the next page begins, with another text in it.
fn with_token(answer: Answer, token: &str) -> Answer {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let answer = answer.replace("<IsTruncated>false", "<IsTruncated>true");
    for element in ["NextContinuationToken", "NextMarker", "NextKeyMarker"] {
        if let Some((_, rest)) = text.split_once(&format!("<{element}>")) {
            let (old, _) = rest.split_once('<').unwrap();
            let (old, new) = (format!("<{element}>{old}<"), format!("<{element}>{token}<"));
            return answer.replace(&old, &new);
        }
    }
    let more =
        format!("<NextContinuationToken>{token}</NextContinuationToken><NextKeyMarker>{token}</NextKeyMarker></List");
    answer.replace("</List", &more)
}

async fn connected(cloud: Cloud) -> (Server, Storage<ObjectStoreBackend>) {
    let server = Server::start(cloud).await.unwrap();
    server.store().versioned = cloud == Cloud::S3;
    let storage = server.connect().await.unwrap();
    for n in 0..6 {
        storage.put(format!("k{n}").as_str(), "v").await.unwrap();
    }
    server.store().page = 2;
    (server, storage)
}

/// Each way on each cloud, with a server that answers so. Returns the most requests that any has taken.
async fn all_end(hook: impl Fn(&Asked, &mut dyn FnMut() -> Answer) -> Answer + Clone + Send + Sync + 'static) -> usize {
    let mut most = 0;
    for cloud in Cloud::ALL {
        let (server, storage) = connected(cloud).await;
        server.answer(hook.clone());
        let versions = (cloud == Cloud::S3).then_some("versions");
        for way in versions.into_iter().chain(WAYS) {
            server.requests();
            let error = ends(&storage, way).await.expect_err(&format!("{cloud:?}: {way}"));
            assert!(is_told(&error) || way == "clear", "{cloud:?}: {way}: {error:?}");
            most = most.max(server.requests().iter().filter(|asked| asked.lists()).count());
        }
    }
    most
}

#[tokio::test]
async fn a_token_that_is_repeated_ends_the_listing() {
    // The first page always, with the same token.
    let most = all_end(|asked, serve| match asked.lists() {
        true => with_token(serve(), "same"),
        false => serve(),
    });
    // Two of each of two listings, and those of the names that cannot be keys.
    assert!(most.await <= 4);
}

#[tokio::test]
async fn pages_that_are_repeated_end_the_listing_whatever_their_tokens() {
    for period in [1, 2, 3, u64::MAX] {
        let count = std::sync::Arc::new(AtomicU64::new(0));
        // The server does not know its own tokens, and begins again. What always has new ones for pages without anything is in the unit
        // tests, for it takes thousands of requests to tell; and so nothing is deleted here.
        let most = all_end(move |asked, serve| {
            if asked.method == "POST" || asked.method == "DELETE" {
                return Answer::lost();
            }
            let answer = serve();
            let empty = !String::from_utf8_lossy(&answer.body).contains("<Last");
            match asked.lists() && !empty {
                true => with_token(answer, &format!("!{}", count.fetch_add(1, Ordering::Relaxed) % period)),
                false => answer,
            }
        });
        assert!(most.await <= 12, "{period}");
    }
}

#[tokio::test]
async fn empty_pages_whose_tokens_are_repeated_end_the_listing() {
    for period in [1, 3] {
        let count = std::sync::Arc::new(AtomicU64::new(0));
        let most = all_end(move |asked, serve| {
            if !asked.lists() {
                return serve();
            }
            let token = format!("{}", count.fetch_add(1, Ordering::Relaxed) % period);
            let root = if asked.has("versions") { "ListVersionsResult" } else { "ListBucketResult" };
            let empty = match asked.has("comp") {
                true => "<EnumerationResults><Blobs/><NextMarker></NextMarker></EnumerationResults>".to_owned(),
                false => format!("<{root}><IsTruncated>true</IsTruncated></{root}>"),
            };
            with_token(
                Answer::xml(200, &empty)
                    .header("x-amz-request-id", "1")
                    .header("x-ms-request-id", "1")
                    .header("x-guploader-uploadid", "1"),
                &token,
            )
        });
        assert!(most.await <= 10, "{period}");
    }
}

/// Azure, for one, documents that a page may hold nothing and yet not be the last.
#[tokio::test]
async fn an_empty_page_with_a_new_token_is_no_end() {
    for cloud in Cloud::ALL {
        let (server, storage) = connected(cloud).await;
        server.answer(move |asked, serve| {
            let begins = ["marker", "continuation-token", "key-marker"].iter().all(|token| !asked.has(token));
            if !asked.lists() || !begins {
                return serve();
            }
            let empty = match cloud {
                Cloud::Azure => "<EnumerationResults><Blobs/><NextMarker>a</NextMarker></EnumerationResults>",
                _ => "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken></ListBucketResult>",
            };
            Answer::xml(200, empty).header(cloud.mark(), "1")
        });
        let keys: Vec<_> = storage.keys().await.unwrap().try_collect().await.unwrap();
        assert_eq!(keys.len(), 6, "{cloud:?}");
        let level = storage.list_with(ListOptions::new().delimited(true)).await.unwrap();
        assert_eq!(level.try_collect::<Vec<_>>().await.unwrap().len(), 6, "{cloud:?}");
    }
}
