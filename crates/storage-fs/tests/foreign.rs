//! What other programs do to the directory: plain files, edits in place, links, pipes, names that are no keys.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::Path,
};

use futures_util::TryStreamExt;
use storage_core::{Condition, Entry, ErrorKind, GetOptions, ListOptions, Metadata, PutOptions, Storage};
use storage_fs::Fs;

async fn open(root: &Path) -> Storage {
    Storage::new(Fs::open(root).await.unwrap())
}

async fn list(storage: &Storage) -> Vec<String> {
    let entries: Vec<Entry> = storage.list("").await.unwrap().try_collect().await.unwrap();
    entries.iter().map(|entry| entry.key.to_string()).collect()
}

#[tokio::test]
async fn files_of_others_are_values() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("docs/empty")).unwrap();
    fs::write(root.path().join("docs/read me.txt"), "hello").unwrap();
    let storage = open(root.path()).await;
    assert_eq!(list(&storage).await, ["docs/read me.txt"]);
    assert_eq!(storage.get("docs/read me.txt").await.unwrap().unwrap(), "hello");
    let entry = storage.stat("docs/read me.txt").await.unwrap().unwrap();
    assert_eq!((entry.size, entry.created), (5, None));
    assert!(entry.metadata.unwrap().is_empty());

    // And ours are files to others.
    let etag = entry.etag.unwrap();
    let ours = PutOptions::new().condition(Condition::IfMatch(etag));
    storage.put_with("docs/read me.txt", "ours", ours).await.unwrap();
    assert_eq!(fs::read(root.path().join("docs/read me.txt")).unwrap(), b"ours");
}

#[tokio::test]
async fn an_edit_in_place_changes_the_etag_and_keeps_the_metadata() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let metadata = Metadata::new().content_type("text/plain").field("n", 1);
    let put = PutOptions::new().metadata(metadata.clone());
    let written = storage.put_with("note", "mine", put).await.unwrap();
    assert_eq!(storage.stat("note").await.unwrap().unwrap(), written);

    fs::write(root.path().join("note"), "ours").unwrap();
    let edited = storage.stat("note").await.unwrap().unwrap();
    assert_ne!(edited.etag, written.etag);
    assert_eq!((edited.metadata, edited.created), (written.metadata, written.created));
    let stale = PutOptions::new().condition(Condition::IfMatch(written.etag.unwrap()));
    let e = storage.put_with("note", "theirs", stale).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn a_stream_notices_an_edit_and_outlives_a_replacement() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let large = vec![b'x'; 3 << 20];
    storage.put("big", large.clone()).await.unwrap();
    let replaced = storage.open("big", GetOptions::new()).await.unwrap().unwrap();
    storage.put("big", "small").await.unwrap();
    assert_eq!(replaced.body.bytes(u64::MAX).await.unwrap(), large);

    storage.put("big", large).await.unwrap();
    let torn = storage.open("big", GetOptions::new()).await.unwrap().unwrap();
    fs::write(root.path().join("big"), vec![b'y'; 3 << 20]).unwrap();
    let e = torn.body.bytes(u64::MAX).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn links_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let root = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
    symlink(outside.path().join("new"), root.path().join("dangling")).unwrap();
    let storage = open(root.path()).await;
    storage.put("in", "side").await.unwrap();
    for key in ["out/secret", "out/new", "file", "dangling"] {
        let denied = |e: storage_core::Error| assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e:?}");
        denied(storage.get(key).await.unwrap_err());
        denied(storage.put(key, "mine").await.unwrap_err());
        denied(storage.delete(key).await.unwrap_err());
    }
    assert_eq!(list(&storage).await, ["in"]);
    let below: Vec<_> = storage.list("out/").await.unwrap().try_collect().await.unwrap();
    assert_eq!(below, []);
    storage.clear().await.unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn what_is_no_value_is_skipped() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    storage.put("value", "v").await.unwrap();
    fs::write(root.path().join(OsStr::from_bytes(b"latin\xe9")), "1").unwrap();
    fs::create_dir(root.path().join(OsStr::from_bytes(b"dir\xff"))).unwrap();
    fs::write(root.path().join("line\nbreak"), "1").unwrap();
    fs::write(root.path().join(".storage/annex/nothex"), "1").unwrap();
    let _socket = UnixListener::bind(root.path().join("socket")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("pipe"), 0o600.into()).unwrap();
    assert_eq!(list(&storage).await, ["value"]);
    for key in ["socket", "pipe"] {
        let e = storage.put(key, "v").await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(storage.get("line\nbreak").await.unwrap(), None);
    storage.put("line\nbreak", "ours").await.unwrap();
    assert_eq!(list(&storage).await, ["line\nbreak", "value"]);
}

#[tokio::test]
async fn an_unreadable_record_is_mended_by_a_write() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    storage.put("k", "v").await.unwrap();
    let path = root.path().join("k");
    rustix::fs::setxattr(&path, "user.storage.v1", b"{", rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(storage.get("k").await.unwrap_err().kind(), ErrorKind::Corrupt);
    storage.put("k", "w").await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "w");
}

/// What others write into our attribute concerns their file alone; a file of theirs without it is a value.
#[tokio::test]
async fn a_damaged_record_ends_no_listing() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    storage.put("a", "1").await.unwrap();
    storage.put("odd//key", "2").await.unwrap();
    fs::write(root.path().join("theirs"), "plain").unwrap();
    let metadata = Metadata::new().tag("t");
    storage.put_with("z", "3", PutOptions::new().metadata(metadata)).await.unwrap();
    let mut annexed = root.path().join(".storage/annex");
    annexed.push("6f64642f2f6b6579.v");
    let long = [0xff; 3000];
    let broken: [&[u8]; 6] =
        [b"", b"{", &[0; 47], &[0xff; 49], b"000000000000000000000000000000000000000000000000{\"", &long];
    for record in broken {
        for path in [root.path().join("a"), annexed.clone()] {
            rustix::fs::setxattr(&path, "user.storage.v1", record, rustix::fs::XattrFlags::empty()).unwrap();
        }
        for with_metadata in [false, true] {
            let options = ListOptions::new().metadata(with_metadata);
            let items: Vec<_> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
            let entries: Vec<Entry> = items.into_iter().filter_map(|item| item.into_entry()).collect();
            let seen = entries.iter().map(|entry| (entry.key.as_str(), entry.size, entry.damaged.is_some()));
            let expected = [("a", 1, true), ("odd//key", 1, true), ("theirs", 5, false), ("z", 1, false)];
            assert_eq!(seen.collect::<Vec<_>>(), expected, "{record:?}");
            assert!(entries.iter().all(|entry| entry.modified.is_some()));
        }
    }
    assert_eq!(storage.get("theirs").await.unwrap().unwrap(), "plain");
    storage.clear().await.unwrap();
    assert_eq!(list(&storage).await, [""; 0]);
}

#[tokio::test]
async fn the_largest_metadata_fits() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let limit = storage.info().limits.metadata;
    let empty = Metadata::new().field("f", "").size();
    let metadata = Metadata::new().field("f", "x".repeat(limit - empty));
    assert_eq!(metadata.size(), limit);
    let put = PutOptions::new().metadata(metadata.clone());
    storage.put_with("k", "v", put).await.unwrap();
    let options = ListOptions::new().metadata(true);
    let items: Vec<_> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
    let entry = items.into_iter().next().unwrap().into_entry().unwrap();
    assert_eq!(*entry.metadata.unwrap(), metadata);
}
