//! Objects as Google has them: those of others, generations, uploads by parts, and names that it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, TryStreamExt, future::join_all, stream};
use http::{Method, StatusCode};
use storage_core::{
    Body, Bytes, Condition, ErrorKind, Etag, GetOptions, ListItem, ListOptions, Metadata, PutOptions, Result,
};
use tokio::time::sleep;

use crate::bucket::{Bucket, answer, is_there, open_uploads, plant};

#[tokio::test]
async fn names_of_others_break_no_listing() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    for name in ["plain", "dir/plain", "a//b", "/a", "dir/", "ends.", "a%20b", "%20lead", "a%2Bb", "control%01"] {
        plant(&format!("/{}/{name}", bucket.name)).await.unwrap();
    }
    storage.put("ours", "v").await.unwrap();
    let keys: Vec<_> = storage.keys().await.unwrap().map_ok(|key| key.to_string()).try_collect().await.unwrap();
    assert_eq!(keys, [" lead", "a b", "a+b", "dir/plain", "ours", "plain"]);
    for key in &keys {
        assert!(storage.get(key.as_str()).await.unwrap().is_some(), "{key:?}");
    }
    let level = storage.list_with(ListOptions::new().delimited(true)).await.unwrap();
    let level: Vec<_> = level.map_ok(|item| item.position().to_owned()).try_collect().await.unwrap();
    // What is below `a/` cannot be shown.
    assert_eq!(level, [" lead", "a b", "a+b", "a/", "dir/", "ours", "plain"]);
    assert_eq!(storage.stat("plain").await.unwrap().unwrap().metadata.unwrap(), Metadata::new().into());
}

/// The etag is the generation, in every answer, and other texts are no etags.
#[tokio::test]
async fn etags_are_generations() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    let put = storage.put("k", "v").await.unwrap().etag.unwrap();
    assert!(put.as_str().parse::<u64>().is_ok(), "{put}");
    let stat = storage.stat("k").await.unwrap().unwrap().etag.unwrap();
    let listed: Vec<_> = storage.list_with(ListOptions::new()).await.unwrap().try_collect().await.unwrap();
    let [ListItem::Entry(listed)] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((Some(&put), &put), (listed.etag.as_ref(), &stat));
    let large = storage.put("large", vec![1; 12 << 20]).await.unwrap();
    assert_eq!(large.etag, storage.stat("large").await.unwrap().unwrap().etag);
    // A 0 would stand for no object, and so create one.
    for other in ["0", "00", "", "*", "+1", "-1", "1.0", "\"1\"", "99999999999999999999", "a\r\nb: c"] {
        for key in ["k", "absent"] {
            let update = PutOptions::new().condition(Condition::IfMatch(Etag::new(other)));
            let error = storage.put_with(key, "w", update).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PreconditionFailed, "{other:?}");
            let read = GetOptions::new().if_match(Etag::new(other));
            let error = storage.get_with(key, read.range(5..)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PreconditionFailed, "{other:?}");
        }
        let read = GetOptions::new().if_none_match(Etag::new(other));
        assert_eq!(storage.get_with("k", read).await.unwrap().unwrap(), "v", "{other:?}");
    }
    // The same bytes under the same metadata are another write.
    let again = storage.put("k", "v").await.unwrap().etag.unwrap();
    assert_ne!(again, put);
    storage.delete("k").await.unwrap();
    assert_ne!(storage.put("k", "v").await.unwrap().etag.unwrap(), again);
}

#[tokio::test]
async fn a_read_under_a_condition_is_of_the_version_that_was_looked_at() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    storage.put("k", "0").await.unwrap();
    let (reader, writer) = (storage.clone(), storage.clone());
    let write = async move {
        for i in 1..60 {
            writer.put("k", format!("{i}")).await.unwrap();
        }
    };
    let read = async move {
        for _ in 0..60 {
            let entry = reader.stat("k").await.unwrap().unwrap();
            let etag = entry.etag.unwrap();
            match reader.open("k", GetOptions::new().if_match(etag.clone())).await {
                Ok(object) => assert_eq!(object.unwrap().entry.etag, Some(etag)),
                Err(e) => assert!(matches!(e.kind(), ErrorKind::PreconditionFailed | ErrorKind::Conflict), "{e:?}"),
            }
        }
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn names_that_google_refuses_are_keys_all_the_same() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    let keys = [".well-known/acme-challenge/t", ".well-known/acme-challenge", ".well-known/x", "..", ".", "a\r\nb"];
    for key in keys {
        storage.put(key, key).await.unwrap();
        assert_eq!(storage.get(key).await.unwrap().unwrap(), key);
    }
    let mut sorted = keys;
    sorted.sort_unstable();
    let listed: Vec<_> = storage.keys().await.unwrap().map_ok(|key| key.to_string()).try_collect().await.unwrap();
    assert_eq!(listed, sorted);
    let below = storage.list_with(ListOptions::new().prefix(".well-known/acme-challenge/")).await.unwrap();
    assert_eq!(below.try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

/// More parts than are put together in one step, with metadata.
#[tokio::test]
async fn many_parts_become_one_value() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    let value: Vec<u8> = (0..(5 << 20) * 33 + 7_usize).map(|i| (i / 4096) as u8).collect();
    let metadata = Metadata::new().content_type("image/png").tag("t");
    let put = storage.put_with("k", value.clone(), PutOptions::new().metadata(metadata.clone())).await.unwrap();
    assert!(storage.get("k").await.unwrap().unwrap() == value);
    let entry = storage.stat("k").await.unwrap().unwrap();
    assert_eq!(entry.metadata.as_deref(), Some(&metadata));
    assert_eq!((entry.etag, entry.size), (put.etag, value.len() as u64));
}

/// What nobody has translated is refused, not passed over.
#[tokio::test]
async fn the_translator_refuses_what_it_does_not_know() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let object = format!("/{}/k", bucket.name);
    let none: &[(&str, &str)] = &[];
    for (method, path, headers) in [
        (Method::PATCH, object.clone(), none),
        (Method::DELETE, format!("/{}", bucket.name), none),
        (Method::GET, format!("{object}?acl"), none),
        (Method::GET, format!("/{}?versions", bucket.name), none),
        (Method::GET, format!("/{}?list-type=2&delimiter=/&start-after=a", bucket.name), none),
        (Method::PUT, object.clone(), &[("cache-control", "no-store")]),
        (Method::PUT, object.clone(), &[("x-goog-if-metageneration-match", "1")]),
        (Method::PUT, object.clone(), &[("x-goog-copy-source", "a/b"), ("x-goog-if-generation-match", "0")]),
        (Method::DELETE, object.clone(), &[("x-goog-if-generation-match", "1")]),
        (Method::GET, object.clone(), &[("x-goog-encryption-key", "k")]),
    ] {
        let (_, text) = answer(method.clone(), &path, headers, "v").await;
        assert!(text.contains("501") && text.contains("NotImplemented"), "{method} {path} {headers:?}: {text}");
    }
    let (_, text) = answer(Method::GET, &object, none, "").await;
    assert!(text.contains("404") && text.contains("NoSuchKey"), "nothing was written: {text}");
    let racing = (0..16).map(|_| answer(Method::PUT, &object, &[("x-goog-if-generation-match", "0")], "v"));
    let ended = join_all(racing).await;
    let won = ended.iter().filter(|(status, _)| *status == StatusCode::OK).count();
    let lost = ended.iter().filter(|(_, text)| text.contains("PreconditionFailed")).count();
    assert_eq!((won, lost), (1, 15), "{ended:?}");
}

/// Conditions and ranges of reads, which the translator works out by itself.
#[tokio::test]
async fn the_translator_reads_as_http_has_it() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let object = format!("/{}/k", bucket.name);
    assert_eq!(answer(Method::PUT, &object, &[], "v").await.0, StatusCode::OK);
    // The hash of the content.
    let (right, wrong) = ("\"9e3669d19b675bd57058fd4664205d2a\"", "\"0\"");
    let (past, future) = ("Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (header, value, expected) in [
        ("if-match", right, "200"),
        ("if-match", "*", "200"),
        ("if-match", wrong, "412, PreconditionFailed"),
        ("if-none-match", right, "304"),
        ("if-none-match", wrong, "200"),
        ("if-modified-since", past, "200"),
        ("if-modified-since", future, "304"),
        ("if-unmodified-since", past, "412, PreconditionFailed"),
        ("if-unmodified-since", future, "200"),
        ("if-unmodified-since", "yesterday", "400, InvalidArgument"),
        ("range", "bytes=0-9", "206"),
        ("range", "bytes=-1", "206"),
        ("range", "bytes=1-", "416, InvalidRange"),
        ("range", "bytes=0-0,2-3", "501, NotImplemented"),
    ] {
        let (status, text) = answer(Method::GET, &object, &[(header, value)], "").await;
        let said = if status.is_success() { status.as_str() } else { text.as_str() };
        assert!(said.contains(expected), "{header}: {value}: {said}");
        assert!(!status.is_success() || text == "v", "{header}: {value}: {text}");
    }
}

/// 100 MiB in pieces that nobody holds at once.
const LARGE: u64 = 100 << 20;

fn pieces() -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    static PIECE: [u8; 1 << 20] = [7; 1 << 20];
    stream::iter((0..100).map(|_| Ok(Bytes::from_static(&PIECE))))
}

/// Dropped at each stage: the begin, 20 parts, and the end.
#[tokio::test]
async fn a_large_put_that_is_dropped_is_never_late_and_leaves_no_upload_open() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    let stalled = Body::stream(pieces().chain(stream::pending()));
    let held = storage.clone();
    let upload = tokio::spawn(async move { held.put("stalled", stalled).await });
    // So the listing shows what is open.
    while open_uploads(&bucket.name).await == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    upload.abort();
    let size = async |key: &str| storage.stat(key).await.unwrap().map(|entry| entry.size);
    let mut seen = vec![("stalled".to_owned(), None)];
    for sent in [1, 2, 5, 12, 21, 22] {
        let key = format!("k{sent}");
        bucket.proxy.drop_after(sent, storage.put(key.as_str(), Body::stream(pieces()))).await;
        let now = size(&key).await;
        // The end may have been sent when the drop comes.
        assert!(now.is_none() || sent > 12 && now == Some(LARGE), "{sent}: {now:?}");
        seen.push((key, now));
    }
    let begun = Instant::now();
    while open_uploads(&bucket.name).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "an upload is open");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(1)).await;
    for (key, then) in seen {
        assert_eq!(size(&key).await, then, "{key}");
    }
}
