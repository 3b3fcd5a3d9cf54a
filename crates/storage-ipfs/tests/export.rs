//! A store that loses its index comes back from an export in MFS, and from a CAR on another node.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/daemon.rs"]
mod daemon;
mod support;

use std::path::Path;

use daemon::Daemon;
use futures_util::{TryStreamExt, stream};
use storage_core::{Body, Bytes, Entry, ErrorKind, ListItem, ListOptions, Metadata, PutOptions, Storage};
use storage_ipfs::{Config, Ipfs};

async fn connect(daemon: &Daemon, dir: &Path) -> Storage<Ipfs> {
    let config = Config::new(&daemon.address()).unwrap();
    Storage::typed(Ipfs::connect(config, support::index(dir).await.unwrap()).await.unwrap())
}

/// Keys that are hard on a tree of files.
const KEYS: [&str; 16] = [
    "a",
    "a/b",
    "a/b/c",
    "a//b",
    "a/",
    "/",
    "//",
    ".",
    "..",
    "a/../b",
    "%",
    "%2E",
    "line\nbreak",
    "naïve",
    "a!",
    "x y?#",
];

/// What a store has: keys, sizes and metadata.
async fn all<B: storage_core::StorageBackend + ?Sized>(storage: &Storage<B>) -> Vec<(String, u64, Metadata)> {
    let listing = storage.list_with(ListOptions::new().metadata(true)).await.unwrap();
    let items: Vec<ListItem> = listing.try_collect().await.unwrap();
    let of = |entry: Entry| (entry.key.to_string(), entry.size, entry.metadata.unwrap().as_ref().clone());
    items.into_iter().filter_map(ListItem::into_entry).map(of).collect()
}

async fn fill(storage: &Storage<Ipfs>) {
    for (n, key) in KEYS.iter().enumerate() {
        let metadata = Metadata::new().tag("t").field("n", n as i64).field("$cid", 1.5).content_type("text/plain");
        let value = if n == 3 { vec![n as u8; 3 << 20] } else { format!("value of {key:?}").into_bytes() };
        storage.put_with(*key, value, PutOptions::new().metadata(metadata)).await.unwrap();
    }
    storage.put_batch((0..500).map(|n| (format!("many/{n}"), n.to_string()))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_rebuilt_from_mfs() {
    if daemon::is_missing() {
        return;
    }
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon, dir.path()).await;
    fill(&storage).await;
    let before = all(&storage).await;
    let exported = storage.backend().export("/backup/app").await.unwrap();
    assert_eq!(exported.entries, before.len() as u64);
    // Again, over the first.
    let again = storage.backend().export("/backup/app").await.unwrap();
    assert_eq!(again, exported);
    let listed = daemon.post("files/ls", "arg=/backup").await.unwrap();
    assert!(!listed.contains(".new-"), "{listed}");
    // People read it.
    let read = daemon.post("files/read", "arg=/backup/app/tree/a/b/c").await.unwrap();
    assert_eq!(read, "value of \"a/b/c\"");
    drop(storage);
    let config = || Config::new(&daemon.address()).unwrap();
    let index = support::index(new.path()).await.unwrap();
    let refused = Ipfs::connect(config(), index.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "a new index alone is another store's");
    // That attempt has given the index an id of its own.
    let fresh = tempfile::tempdir().unwrap();
    let index = support::index(fresh.path()).await.unwrap();
    let rebuilt = Storage::typed(Ipfs::rebuild(config(), index, "/backup/app").await.unwrap());
    assert_eq!(all(&rebuilt).await, before);
    rebuilt.backend().gc().await.unwrap();
    assert_eq!(rebuilt.get("a//b").await.unwrap().unwrap(), vec![3; 3 << 20]);
    for key in KEYS.into_iter().filter(|key| *key != "a//b") {
        assert_eq!(rebuilt.get(key).await.unwrap().unwrap(), format!("value of {key:?}"));
    }
    // Nothing is unpinned that another key has.
    rebuilt.delete("a").await.unwrap();
    rebuilt.backend().gc().await.unwrap();
    assert_eq!(rebuilt.get("a/b").await.unwrap().unwrap(), "value of \"a/b\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_car_takes_a_store_to_another_node() {
    if daemon::is_missing() {
        return;
    }
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (Daemon::start(here.path()).await, Daemon::start(there.path()).await);
    let storage = connect(&first, here.path()).await;
    fill(&storage).await;
    let car = storage.backend().export_car("").await.unwrap().bytes(u64::MAX).await.unwrap();
    let other = connect(&second, there.path()).await;
    let pieces: Vec<_> = car.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let imported = other.backend().import_car(Body::stream(stream::iter(pieces))).await.unwrap();
    assert_eq!(imported, 516);
    assert_eq!(all(&other).await, all(&storage).await);
    other.backend().gc().await.unwrap();
    assert_eq!(other.get("a//b").await.unwrap().unwrap(), vec![3; 3 << 20]);
    assert_eq!(second.ours().await.len() + 1, second.pins().await.len(), "the root of the import is not pinned");
    // A part of it, and what is none.
    let part = storage.backend().export_car("many/1").await.unwrap();
    let third = tempfile::tempdir().unwrap();
    let third_node = Daemon::start(third.path()).await;
    let small = connect(&third_node, third.path()).await;
    assert_eq!(small.backend().import_car(part).await.unwrap(), 111);
    let mut flipped = car.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    // A CAR that lacks a block: the node tells only in a line of its answer that the root could not be pinned.
    let lacking = without_a_block(&car);
    for wrong in [lacking, b"no car".to_vec(), car[..car.len() / 2].to_vec(), flipped, Vec::new()] {
        small.backend().import_car(wrong).await.unwrap_err();
    }
    assert_eq!(all(&small).await.len(), 111);
}

/// The same CAR without its last leaf. Each section is its length as a varint, a content identifier and a block.
fn without_a_block(car: &[u8]) -> Vec<u8> {
    let (mut at, mut sections) = (0, Vec::new());
    while at < car.len() {
        let (begin, mut len, mut shift) = (at, 0, 0);
        loop {
            len |= usize::from(car[at] & 0x7f) << shift;
            (at, shift) = (at + 1, shift + 7);
            if car[at - 1] & 0x80 == 0 {
                break;
            }
        }
        at += len;
        sections.push((begin..at, car[at - len..].starts_with(&[1, 0x55])));
    }
    let last = sections.iter().rposition(|(_, leaf)| *leaf).unwrap();
    let kept = sections.into_iter().enumerate().filter(|(n, _)| *n != last);
    kept.flat_map(|(_, (range, _))| car[range].to_vec()).collect()
}

/// Somebody who has imported the same by hand keeps their pin.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_somebody_pins_stays_pinned() {
    if daemon::is_missing() {
        return;
    }
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (Daemon::start(here.path()).await, Daemon::start(there.path()).await);
    let storage = connect(&first, here.path()).await;
    storage.put("k", "v").await.unwrap();
    let exported = storage.backend().export("/backup").await.unwrap();
    let car = storage.backend().export_car("").await.unwrap().bytes(u64::MAX).await.unwrap();
    let other = connect(&second, there.path()).await;
    assert_eq!(other.backend().import_car(car.clone()).await.unwrap(), 1);
    for name in ["", "mine"] {
        second.post("pin/add", &format!("arg={}&name={name}", exported.cid)).await.unwrap();
        assert_eq!(other.backend().import_car(car.clone()).await.unwrap(), 1);
        other.backend().gc().await.unwrap();
        assert_eq!(second.pins().await.get(&exported.cid).map(String::as_str), Some(name));
    }
    assert_eq!(other.get("k").await.unwrap().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_place_for_an_export_is_told() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon, dir.path()).await;
    storage.put("k", "v").await.unwrap();
    let file = daemon.add("a file", "cid-version=1").await;
    daemon.post("files/cp", &format!("arg=/ipfs/{file}&arg=/file")).await.unwrap();
    daemon.post("files/mkdir", "arg=/theirs").await.unwrap();
    for path in [
        "/file",
        "/theirs",
        "relative",
        "/a/../b",
        "/storage-ipfs",
        "/storage-ipfs/x",
        "/storage-ipfs-export-x",
        "/",
        "",
    ] {
        let e = storage.backend().export(path).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{path}: {e:?}");
    }
    assert_eq!(daemon.post("files/read", "arg=/file").await.unwrap(), "a file");
    let index = tempfile::tempdir().unwrap();
    let config = Config::new(&daemon.address()).unwrap();
    let index = support::index(index.path()).await.unwrap();
    let e = Ipfs::rebuild(config, index, "/nowhere").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
}
