//! What answers every request with something of its own is no store, and is told on connect.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_cloud_tests::{Answer, Cloud, Server};
use storage_core::ErrorKind;

const CONSOLE: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><title>Console</title></head><body></body></html>";

fn says_so(message: &str) -> bool {
    message.contains("does not answer as") && message.contains("`endpoint`")
}

#[tokio::test]
async fn whoever_answers_everything_alike_is_refused() {
    let exact =
        |answer: Answer| answer.header("etag", "\"1\"").header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT");
    let alike = [
        ("a console", exact(Answer::page(200, CONSOLE))),
        ("a page without a type", Answer::new(200, CONSOLE)),
        ("XHTML", Answer::xml(200, "<html xmlns=\"http://www.w3.org/1999/xhtml\"><body/></html>")),
        ("JSON", exact(Answer::new(200, "{\"status\": \"ok\"}").header("content-type", "application/json"))),
        ("text", exact(Answer::new(200, "ok").header("content-type", "text/plain"))),
        ("nothing", exact(Answer::new(200, ""))),
        ("no content", Answer::new(204, "")),
        ("other XML", exact(Answer::xml(200, "<status>ok</status>"))),
        ("a list of buckets", exact(Answer::xml(200, "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"))),
        (
            "a login page",
            Answer::page(302, "<a href=\"/login\">log in</a>").header("location", "http://127.0.0.1:1/login"),
        ),
        ("a bare redirect", Answer::new(302, "").header("location", "http://127.0.0.1:1/login")),
        ("another bare redirect", Answer::new(307, "").header("location", "http://127.0.0.1:1/login")),
        ("not found", Answer::page(404, CONSOLE)),
        ("not allowed", Answer::page(405, CONSOLE)),
        ("a port that speaks TLS", Answer::page(400, "<html>The plain HTTP request was sent to HTTPS port</html>")),
    ];
    for cloud in Cloud::ALL {
        for (what, answer) in alike.clone() {
            let server = Server::start(cloud).await.unwrap();
            server.answer(move |_, _| answer.clone());
            let error = server.connect().await.unwrap_err();
            assert!(error.kind() == ErrorKind::Config && says_so(error.message()), "{cloud:?}, {what}: {error:?}");
            assert_eq!(server.requests().len(), 1, "{cloud:?}, {what}");
        }
    }
}

/// The right server, behind something that is in trouble or wants to know who asks.
#[tokio::test]
async fn a_proxy_before_the_right_server_is_told_as_what_it_is() {
    let page = |status| Answer::page(status, CONSOLE);
    for cloud in Cloud::ALL {
        for (status, kind) in [
            (401, ErrorKind::Unauthenticated),
            (403, ErrorKind::PermissionDenied),
            (429, ErrorKind::RateLimited),
            (500, ErrorKind::Unavailable),
            (502, ErrorKind::Unavailable),
            (503, ErrorKind::Unavailable),
            (511, ErrorKind::Unavailable),
        ] {
            let server = Server::start(cloud).await.unwrap();
            server.answer(move |_, _| page(status));
            let error = server.connect().await.unwrap_err();
            assert!(error.kind() == kind && says_so(error.message()), "{cloud:?}, {status}: {error:?}");
        }
    }
}

/// What answers listings as a store does, and else with a page, or keeps nothing.
#[tokio::test]
async fn what_is_written_must_come_back() {
    for cloud in Cloud::ALL {
        for (what, lists_only) in [("a page for objects", true), ("an object that is always the same", false)] {
            let server = Server::start(cloud).await.unwrap();
            server.answer(move |asked, serve| match (asked.name.is_empty(), lists_only) {
                (true, _) => serve(),
                (false, true) => Answer::page(200, CONSOLE).header("etag", "\"1\""),
                (false, false) => {
                    let answer = serve();
                    if asked.method == "GET" { Answer { body: b"same".to_vec(), ..answer } } else { answer }
                }
            });
            let error = server.connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{cloud:?}, {what}: {error:?}");
        }
    }
}

#[tokio::test]
async fn connecting_costs_no_more_than_it_did() {
    for (cloud, most) in [(Cloud::S3, 18), (Cloud::Azure, 17), (Cloud::Gcs, 19)] {
        for marked in [true, false] {
            let server = Server::start(cloud).await.unwrap();
            server.store().marked = marked;
            let storage = server.connect().await.unwrap();
            let asked = server.requests();
            assert!(asked.len() <= most, "{cloud:?}: {} requests: {asked:#?}", asked.len());
            assert!(server.store().objects.is_empty(), "{cloud:?}");
            storage.put("k", "v").await.unwrap();
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        }
    }
}
