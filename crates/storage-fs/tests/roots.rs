//! The root, or what belongs to the store in it, is removed, moved or replaced while the store is open.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, os::unix::fs::symlink, path::Path};

use common::{list, writes};
use futures_util::TryStreamExt;
use storage_core::{Entry, ErrorKind, Result, Storage};
use storage_fs::Fs;

async fn open(root: &Path) -> Storage {
    Storage::new(Fs::open(root).await.unwrap())
}

/// What may happen to a root, given the place beside it to which it can be moved.
type Event = fn(&Path, &Path);

fn moved(root: &Path, beside: &Path) {
    fs::rename(root, beside).unwrap();
}

fn removed(root: &Path, _: &Path) {
    fs::remove_dir_all(root).unwrap();
}

fn replaced(root: &Path, beside: &Path) {
    moved(root, beside);
    fs::create_dir(root).unwrap();
}

fn removed_and_made(root: &Path, beside: &Path) {
    removed(root, beside);
    fs::create_dir(root).unwrap();
}

fn replaced_by_a_link(root: &Path, beside: &Path) {
    moved(root, beside);
    let other = beside.with_extension("other");
    fs::create_dir(&other).unwrap();
    symlink(&other, root).unwrap();
}

fn replaced_by_a_file(root: &Path, beside: &Path) {
    moved(root, beside);
    fs::write(root, "").unwrap();
}

/// All but the outer directory is another one, and what belongs to the store is the same.
fn replaced_around_the_reserved(root: &Path, beside: &Path) {
    replaced(root, beside);
    fs::rename(beside.join(".storage"), root.join(".storage")).unwrap();
}

fn reserved_moved(root: &Path, beside: &Path) {
    fs::rename(root.join(".storage"), beside).unwrap();
}

fn reserved_removed(root: &Path, _: &Path) {
    fs::remove_dir_all(root.join(".storage")).unwrap();
}

fn staging_removed(root: &Path, _: &Path) {
    fs::remove_dir_all(root.join(".storage/staging")).unwrap();
}

const EVENTS: [(&str, Event); 10] = [
    ("moved", moved),
    ("removed", removed),
    ("replaced", replaced),
    ("removed and made", removed_and_made),
    ("replaced by a link", replaced_by_a_link),
    ("replaced by a file", replaced_by_a_file),
    ("replaced around the reserved", replaced_around_the_reserved),
    ("reserved moved", reserved_moved),
    ("reserved removed", reserved_removed),
    ("staging removed", staging_removed),
];

fn unavailable<T: std::fmt::Debug>(what: &str, result: Result<T>) {
    let e = result.expect_err(what);
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{what}: {e}");
    assert!(e.message().contains("connect again") && !e.is_ambiguous(), "{what}: {e}");
}

#[tokio::test]
async fn a_write_notices_what_happened_to_the_root() {
    for (event, happen) in EVENTS {
        // With and without somebody else who opens what is there now.
        for by_another in [false, true] {
            if by_another && event.ends_with("file") {
                continue;
            }
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("root");
            let storage = open(&root).await;
            storage.put("k", "v").await.unwrap();
            storage.put("dir/", "in the annex").await.unwrap();
            happen(&root, &outer.path().join("beside"));
            let another = if by_another { Some(open(&root).await) } else { None };
            let before = files(outer.path());
            for (what, result) in writes(&storage, "k").await {
                unavailable(&format!("{event}: {what}"), result);
            }
            assert!(!storage.is_connected().await, "{event}");
            assert_eq!(files(outer.path()), before, "{event}");
            if let Some(another) = another {
                let kept = list(&another).await;
                another.put("another", "value").await.unwrap();
                assert_eq!(list(&another).await.len(), kept.len() + 1, "{event}");
            }
        }
    }
}

/// What is absent in one that is elsewhere may be there where the root is now.
#[tokio::test]
async fn nothing_is_absent_from_a_root_that_is_elsewhere() {
    for (event, happen) in &EVENTS[..7] {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        let storage = open(&root).await;
        storage.put("k", "v").await.unwrap();
        happen(&root, &outer.path().join("beside"));
        unavailable(event, storage.get("none").await);
        unavailable(event, storage.stat("none").await);
        unavailable(event, storage.list("").await.unwrap().try_collect::<Vec<Entry>>().await);
        unavailable(event, storage.list("none/").await.unwrap().try_collect::<Vec<Entry>>().await);
    }
}

#[tokio::test]
async fn a_root_that_is_put_back_is_the_store_again() {
    let outer = tempfile::tempdir().unwrap();
    let (root, beside) = (outer.path().join("root"), outer.path().join("beside"));
    symlink(&root, outer.path().join("link")).unwrap();
    fs::create_dir(&root).unwrap();
    // A root that is a link, and a path that is not an absolute one.
    for path in [outer.path().join("link"), root.join("../root/.")] {
        let storage = open(&path).await;
        storage.put("before", "v").await.unwrap();
        moved(&root, &beside);
        unavailable("a put", storage.put("while", "v").await);
        fs::rename(&beside, &root).unwrap();
        storage.put("after", "v").await.unwrap();
        assert!(storage.is_connected().await);
        assert_eq!(list(&storage).await, ["after", "before"]);
    }
}

/// Everything below, but for locks that others take.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        found.push(path.display().to_string());
        if entry.file_type().unwrap().is_dir() && !path.ends_with(".storage/locks") {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}
