//! Values are the bytes that are stored, whatever a program has switched on in the HTTP client, and whatever compresses on the way.
//! This package switches on all that `reqwest` can decode here, as a dependency of a program does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_cloud_tests::{Answer, Cloud, Server};
use storage_core::{ByteRange, GetOptions};

/// Not compressed, as what has a coding as metadata need not be what that says.
const STORED: &str = "\x1f\u{8b}these bytes and no others";

#[tokio::test]
async fn no_request_asks_for_a_coding() {
    for cloud in Cloud::ALL {
        let server = Server::start(cloud).await.unwrap();
        let storage = server.connect().await.unwrap();
        storage.put("k", "v").await.unwrap();
        storage.get("k").await.unwrap();
        storage.stat("k").await.unwrap();
        storage.put("large", vec![1; 6 << 20]).await.unwrap();
        storage.delete_batch(["k", "large"]).await.unwrap();
        for asked in server.requests() {
            let coding = asked.headers.get("accept-encoding").map(String::as_str);
            assert_eq!(coding, Some("identity"), "{cloud:?}: {} {}", asked.method, asked.name);
        }
    }
}

/// What others have stored with `Content-Encoding` comes back as it lies there.
#[tokio::test]
async fn a_coding_that_is_metadata_changes_nothing() {
    for cloud in Cloud::ALL {
        for coding in ["gzip", "zstd", "deflate", "br", "x-gzip", "aws-chunked"] {
            let server = Server::start(cloud).await.unwrap();
            let storage = server.connect().await.unwrap();
            server.store().put("theirs", STORED.as_bytes(), vec![("content-encoding".into(), coding.into())]);
            let entry = storage.stat("theirs").await.unwrap().unwrap();
            assert_eq!(entry.size, STORED.len() as u64, "{cloud:?}, {coding}");
            assert_eq!(storage.get("theirs").await.unwrap().unwrap(), STORED, "{cloud:?}, {coding}");
            let part = storage.get_with("theirs", GetOptions::new().range(3..8)).await.unwrap().unwrap();
            assert_eq!(part, STORED.as_bytes()[3..8], "{cloud:?}, {coding}");
        }
    }
}

/// Google decodes what was stored as gzip for whoever does not ask for gzip, and then neither length nor ranges are those of the
/// bytes that are stored: <https://cloud.google.com/storage/docs/transcoding>.
#[tokio::test]
async fn google_is_asked_for_the_bytes_that_are_stored() {
    let server = Server::start(Cloud::Gcs).await.unwrap();
    let storage = server.connect().await.unwrap();
    server.store().put("theirs", STORED.as_bytes(), vec![("content-encoding".into(), "gzip".into())]);
    server.answer(|asked, serve| {
        let answer = serve().header("x-goog-stored-content-encoding", "gzip");
        match asked.headers.get("accept-encoding").is_some_and(|codings| codings.contains("gzip")) {
            true => answer,
            false => Answer {
                status: if answer.status == 206 { 200 } else { answer.status },
                body: b"decoded".to_vec(),
                unsized_: true,
                ..answer.without("content-encoding").without("content-range")
            },
        }
    });
    assert_eq!(storage.stat("theirs").await.unwrap().unwrap().size, STORED.len() as u64);
    assert_eq!(storage.get("theirs").await.unwrap().unwrap(), STORED);
    let mut last = GetOptions::new();
    last.range = Some(ByteRange::Suffix(4));
    assert_eq!(storage.get_with("theirs", last).await.unwrap().unwrap(), STORED.as_bytes()[STORED.len() - 4..]);
}

/// A proxy that compresses whatever it is asked, but leaves ranges alone, as nginx does.
#[tokio::test]
async fn what_is_compressed_on_the_way_is_not_taken_for_the_value() {
    for cloud in Cloud::ALL {
        for honours_ranges in [true, false] {
            let server = Server::start(cloud).await.unwrap();
            let storage = server.connect().await.unwrap();
            storage.put("k", STORED).await.unwrap();
            server.answer(move |asked, serve| {
                let answer = serve();
                let whole =
                    asked.method == "GET" && !asked.name.is_empty() && (answer.status == 200 || !honours_ranges);
                if !whole {
                    return answer;
                }
                let etag = answer.headers.iter().find(|(name, _)| name == "etag").unwrap().1.clone();
                let answer = answer.without("etag").without("content-range").header("content-encoding", "gzip");
                let answer = answer.header("etag", format!("W/{etag}"));
                Answer { status: 200, body: b"compressed".to_vec(), unsized_: true, ..answer }
            });
            let got = storage.get("k").await;
            match honours_ranges {
                true => assert_eq!(got.unwrap().unwrap(), STORED, "{cloud:?}"),
                false => assert!(got.unwrap_err().message().contains("compresses"), "{cloud:?}"),
            }
        }
    }
}
