//! Blobs as Azure has them: those of others, uploads that meet, copies, and the order of names.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::{Stream, TryStreamExt, stream};
use http::Method;
use storage_conformance::proxy::Fault;
use storage_core::{Body, Bytes, ErrorKind, ListOptions, Metadata, PutOptions, Result, Storage};
use tokio::{sync::mpsc, time::sleep};

use crate::container::{Container, is_there, plant, request};

#[tokio::test]
async fn names_of_others_break_no_listing() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await;
    for name in ["plain", "dir/plain", "a//b", "/a", "dir/", "ends.", "a%20b", "%20lead", "a%2Bb", "%F0%9F%98%80"] {
        plant(&format!("/{}/{name}", container.name)).await.unwrap();
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

/// Azure lists in the order of UTF-16, where the second of these comes before the first.
#[tokio::test]
async fn keys_are_in_the_order_of_their_bytes() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await;
    let deep = "d/".repeat(255) + "d";
    let sorted = ["a", "a\u{ff5e}", "a😀", "b", deep.as_str(), "e"];
    for key in sorted.iter().rev() {
        storage.put(*key, "v").await.unwrap();
    }
    let keys: Vec<_> = storage.keys().await.unwrap().map_ok(|key| key.to_string()).try_collect().await.unwrap();
    assert_eq!(keys, sorted);
    let some = storage.list_with(ListOptions::new().prefix("a").start_after("a\u{ff5e}")).await.unwrap();
    let some: Vec<_> = some.map_ok(|item| item.position().to_owned()).try_collect().await.unwrap();
    assert_eq!(some, ["a😀"]);
}

/// Azure throws away the parts of an upload when the blob is written meanwhile.
#[tokio::test]
async fn an_upload_that_met_another_write_is_a_conflict_and_leaves_the_other() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await;
    let (pieces, body) = mpsc::channel(1);
    let body = stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    let upload = tokio::spawn({
        let storage = storage.clone();
        async move { storage.put("k", Body::stream(body)).await }
    });
    let before = container.proxy.requests();
    // Two parts are sent once the third is begun.
    for _ in 0..15 {
        pieces.send(Ok(vec![1; 1 << 20].into())).await.unwrap();
    }
    while container.proxy.requests() < before + 2 {
        tokio::task::yield_now().await;
    }
    storage.put("k", "faster").await.unwrap();
    drop(pieces);
    match upload.await.unwrap() {
        // The parts came behind the other write.
        Ok(_) => assert_eq!(storage.stat("k").await.unwrap().unwrap().size, 15 << 20),
        Err(e) => {
            assert!(e.kind() == ErrorKind::Conflict && !e.is_ambiguous(), "{e:?}");
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "faster");
        }
    }
}

#[tokio::test]
async fn a_copy_has_the_metadata_and_odd_names_too() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await;
    let described = PutOptions::new().metadata(Metadata::new().tag("ünï").field("n", 1).content_type("text/plain"));
    for key in ["plain", "a b/ü?#%2F", "../odd", "😀"] {
        let entry = storage.put_with(key, "v", described.clone()).await.unwrap();
        let copy = storage.copy(key, "copy").await.unwrap();
        assert_eq!((copy.size, &copy.metadata), (entry.size, &entry.metadata), "{key}");
        assert_ne!(copy.etag, entry.etag);
    }
    let missing = storage.copy("missing", "copy").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
}

#[tokio::test]
async fn a_container_that_is_gone_is_not_an_absent_key() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await;
    storage.put("k", "v").await.unwrap();
    request(Method::DELETE, &format!("/{}?restype=container", container.name), "").await.unwrap();
    // Not batches of deletes: the emulator says of each blob that it is absent, which is what was asked for.
    let errors = [
        storage.get("k").await.map(drop),
        storage.stat("k").await.map(drop),
        storage.put("k", "v").await.map(drop),
        storage.delete("k").await,
        storage.copy("k", "l").await.map(drop),
        storage.keys().await.map(drop),
    ];
    for (i, result) in errors.into_iter().enumerate() {
        let error = result.unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.message().contains("`container`"), "{i}: {error:?}");
    }
}

/// Azure takes no address of a source over 2 KiB, where the emulator takes any.
#[tokio::test]
async fn a_key_whose_address_is_too_long_for_azure_is_copied_all_the_same() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let mut config = container.config();
    config.store.prefix = "\u{e9}".repeat(90);
    let storage = Storage::new(storage_azure::connect(config).await.unwrap());
    let metadata = Metadata::new().tag("t");
    let segment = "\u{e9}".repeat(85);
    for (from, asked) in [(segment.clone(), true), (format!("{segment}/{segment}/{segment}"), false)] {
        storage.put_with(&*from, "v", PutOptions::new().metadata(metadata.clone())).await.unwrap();
        // What only a request for a copy is told.
        container.proxy.spoil(0, 1, Fault::answer("202 Accepted", "x-ms-copy-status: failed\r\n", ""));
        let error = storage.copy(&*from, "to").await.unwrap_err();
        assert_eq!(error.message().contains("the copy failed"), asked, "{error:?}");
        let copy = storage.copy(&*from, "to").await.unwrap();
        assert_eq!(*copy.metadata.unwrap(), metadata);
        assert_eq!(storage.get("to").await.unwrap().unwrap(), "v");
    }
}

/// 100 MiB in pieces that nobody holds at once.
const LARGE: u64 = 100 << 20;

fn pieces() -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    static PIECE: [u8; 1 << 20] = [7; 1 << 20];
    stream::iter((0..100).map(|_| Ok(Bytes::from_static(&PIECE))))
}

/// Dropped at each stage: 20 parts, and the end. Parts without an end are seen by nobody; Azure has no call that throws them away.
#[tokio::test]
async fn a_large_put_that_is_dropped_is_never_late() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let storage = container.open().await;
    let size = async |key: &str| storage.stat(key).await.unwrap().map(|entry| entry.size);
    let mut seen = Vec::new();
    for sent in [1, 2, 5, 12, 20, 21] {
        let key = format!("k{sent}");
        container.proxy.drop_after(sent, storage.put(key.as_str(), Body::stream(pieces()))).await;
        let now = size(&key).await;
        // The end may have been sent when the drop comes.
        assert!(now.is_none() || sent > 12 && now == Some(LARGE), "{sent}: {now:?}");
        seen.push((key, now));
    }
    sleep(Duration::from_secs(2)).await;
    for (key, then) in &seen {
        assert_eq!(size(key).await, *then, "{key}");
    }
    let keys: Vec<_> = storage.keys().await.unwrap().map_ok(|key| key.to_string()).try_collect().await.unwrap();
    let mut there: Vec<_> = seen.into_iter().filter(|(_, size)| size.is_some()).map(|(key, _)| key).collect();
    there.sort_unstable();
    assert_eq!(keys, there);
}
