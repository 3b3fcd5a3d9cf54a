//! Which versions are kept, in which order, whatever the writers do to each other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hashed;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, TryStreamExt, future::join_all, stream};
use hashed::Hashed;
use storage_conformance::{Faults, Recorder};
use storage_core::{
    Body, Bytes, Condition, CopyOptions, DeleteOptions, Entry, ErrorKind, GetOptions, Key, Metadata, PutOptions,
    Result, Storage, StorageBackend, VersionId,
};
use storage_fs::{Config, Durability, Fs};
use storage_layer_versioned::{Versioned, VersionedLayer};
use storage_memory::Memory;

fn over<B: StorageBackend>(backend: B, max: usize) -> Storage {
    Storage::new(backend).layer(VersionedLayer::new().max_versions(max))
}

async fn versions(storage: &Storage, key: &str) -> Vec<Entry> {
    storage.versions(key).await.unwrap().try_collect().await.unwrap()
}

/// The values of the versions, newest first.
async fn values(storage: &Storage, key: &str) -> Vec<String> {
    let mut values = Vec::new();
    for entry in versions(storage, key).await {
        let value = storage.get_with(key, GetOptions::new().version(entry.version.unwrap())).await.unwrap();
        values.push(String::from_utf8(value.expect("a listed version can be read").to_vec()).unwrap());
    }
    values
}

async fn keys(storage: &Storage) -> Vec<String> {
    let keys: Vec<Key> = storage.keys().await.unwrap().try_collect().await.unwrap();
    keys.iter().map(Key::to_string).collect()
}

#[tokio::test]
async fn exactly_the_newest_are_kept() {
    for max in [1, 2, 10] {
        let memory = Memory::new();
        let storage = over(memory.clone(), max);
        for n in 0..25 {
            storage.put("a/b", format!("{n}")).await.unwrap();
            let expected: Vec<_> = (0..=n).rev().take(max).map(|n: i32| n.to_string()).collect();
            assert_eq!(values(&storage, "a/b").await, expected);
        }
        // Where one is kept, a deleted key keeps none.
        let kept = if max == 1 { 0 } else { max };
        let newest: Vec<_> = (0..25).rev().take(kept).map(|n: i32| n.to_string()).collect();
        storage.delete("a/b").await.unwrap();
        assert_eq!(values(&storage, "a/b").await, newest, "a delete keeps the versions");
        assert_eq!(keys(&Storage::new(memory.clone())).await.len(), kept, "nothing else is left below");
        assert_eq!(keys(&storage).await, [""; 0]);
        storage.put("a/b", "25").await.unwrap();
        assert_eq!(values(&storage, "a/b").await[1..], newest[..kept.saturating_sub(1)]);
    }
}

/// Eight tasks write the same key 50 times each; each gets a version for each write, and none is lost.
async fn race(all: Storage, large: bool) -> BTreeMap<VersionId, (usize, usize)> {
    let writers = (0..8).map(|task| {
        let storage = all.clone();
        tokio::spawn(async move {
            let mut written = Vec::new();
            for round in 0..50 {
                let value = Bytes::from(format!("{task} {round}"));
                // Streams of more than a mebibyte cannot be held for a second try.
                let body = if large && round % 10 == task {
                    let padding = Bytes::from(vec![b' '; 600_000]);
                    Body::stream(stream::iter([Ok(value), Ok(padding.clone()), Ok(padding)]))
                } else {
                    Body::from(value)
                };
                written.push((storage.put("key", body).await.unwrap().version.unwrap(), (task, round)));
            }
            written
        })
    });
    join_all(writers).await.into_iter().flat_map(|written| written.unwrap()).collect()
}

/// Checks that the kept versions are the newest of each writer, in its order, and read as they were written.
async fn check_race(storage: Storage, kept: usize, large: bool) {
    let written = race(storage.clone(), large).await;
    assert_eq!(written.len(), 400, "each write has a version of its own");
    let seen = versions(&storage, "key").await;
    assert_eq!(seen.len(), kept);
    assert_eq!(seen[0].version, storage.stat("key").await.unwrap().unwrap().version);
    let mut next = [49; 8];
    for entry in seen {
        let version = entry.version.unwrap();
        let (task, round) = written[&version];
        assert_eq!(round, next[task], "the versions of a writer are listed newest first, without a gap");
        next[task] = next[task].wrapping_sub(1);
        let value = storage.get_with("key", GetOptions::new().version(version)).await.unwrap().unwrap();
        assert_eq!(value.trim_ascii_end(), format!("{task} {round}").as_bytes());
    }
}

/// A writer is stopped at each of its awaits, overtaken by so many that what it has read is no version any more, and let go on.
#[tokio::test]
async fn a_writer_that_is_overtaken_leaves_no_copy_behind() {
    for awaits in 0..40 {
        for is_deleted in [false, true] {
            let memory = Memory::new();
            let storage = over(Faults::new(memory.clone(), 1).latency(2), 3);
            let old = storage.put("key", "old").await.unwrap().version.unwrap();
            let mut slow = Box::pin(storage.put("key", "slow").into_future());
            let mut has_ended = false;
            for _ in 0..awaits {
                has_ended = has_ended || slow.as_mut().now_or_never().is_some();
            }
            let is_written = storage.get("key").await.unwrap().unwrap() == "slow";
            let mut expected = Vec::new();
            if is_deleted {
                storage.delete_with("key", DeleteOptions::new().version(old)).await.unwrap();
                expected.extend(is_written.then_some("slow"));
            } else {
                for value in ["1", "2", "3", "4"] {
                    storage.put("key", value).await.unwrap();
                }
                expected.extend(["4", "3", "2"]);
            }
            if !has_ended {
                slow.await.unwrap();
            }
            if !is_written {
                expected.insert(0, "slow");
                expected.truncate(3);
            }
            assert_eq!(values(&storage, "key").await, expected, "stopped at {awaits}");
            let below = keys(&Storage::new(memory)).await;
            assert_eq!(below.len(), expected.len(), "stopped at {awaits}: {below:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_lose_nothing() {
    for (max, kept) in [(1000, 400), (10, 10)] {
        let memory = Memory::new();
        check_race(over(Faults::new(memory.clone(), 1).latency(2), max), kept, true).await;
        let staged = keys(&Storage::new(memory)).await;
        assert_eq!(staged.len(), kept, "neither staged nor surplus values are left below");
        check_race(over(Hashed::default(), max), kept, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_of_a_directory_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.root = dir.path().into();
    config.durability = Durability::Relaxed;
    check_race(over(Fs::connect(config).await.unwrap(), 10), 10, false).await;
}

#[tokio::test]
async fn natural_names_stay_and_foreign_values_become_versions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("notes")).unwrap();
    std::fs::write(dir.path().join("notes/today.txt"), "by hand").unwrap();
    let storage = over(Fs::open(dir.path()).await.unwrap(), 10);
    storage.put("notes/today.txt", "by the layer").await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("notes/today.txt")).unwrap(), b"by the layer");
    assert_eq!(values(&storage, "notes/today.txt").await, ["by the layer", "by hand"]);
    assert_eq!(std::fs::read_dir(dir.path().join(".versions/h/15/notes/today.txt")).unwrap().count(), 1);
}

#[tokio::test]
async fn reserved_names_are_keys_like_others() {
    let storage = over(Memory::new(), 10);
    let names = [
        ".version",
        ".versions",
        ".versions/",
        ".versions/h/1/a/x",
        ".versions/s/x",
        ".versions/u/",
        ".versionsx",
        "a",
    ];
    for name in names {
        storage.put(name, "old").await.unwrap();
        storage.put(name, name).await.unwrap();
    }
    assert_eq!(keys(&storage).await, names);
    for (i, name) in names.into_iter().enumerate() {
        assert_eq!(values(&storage, name).await, [name, "old"]);
        let options = storage_core::ListOptions::new().start_after(name).limit(2);
        let rest: Vec<_> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
        let rest: Vec<_> = rest.iter().map(|item: &storage_core::ListItem| item.position()).collect();
        assert_eq!(rest, names[i + 1..].iter().take(2).copied().collect::<Vec<_>>());
    }
    let level = storage_core::ListOptions::new().delimited(true);
    let seen: Vec<_> = storage.list_with(level.clone()).await.unwrap().try_collect().await.unwrap();
    let seen: Vec<_> = seen.iter().map(|item: &storage_core::ListItem| item.position()).collect();
    assert_eq!(seen, [".version", ".versions", ".versions/", ".versionsx", "a"]);
    storage.clear_prefix(".versions/").await.unwrap();
    for limit in 1..5 {
        let listing = storage.list_with(level.clone().limit(limit)).await.unwrap();
        let seen: Vec<_> = listing.try_collect::<Vec<_>>().await.unwrap();
        let seen: Vec<_> = seen.iter().map(|item| item.position()).collect();
        assert_eq!(seen, [".version", ".versions", ".versionsx", "a"][..limit]);
    }
}

#[tokio::test]
async fn fields_of_our_name_are_kept_apart() {
    for storage in [over(Memory::new(), 10), over(Hashed::default(), 10)] {
        let mut metadata = Metadata::new().content_type("text/plain").tag("t");
        for name in ["storage.version", "storage.version'", "storage.version''", "storage.versions", "storage"] {
            metadata = metadata.field(name, name);
        }
        let metadata = Arc::new(metadata);
        let options = PutOptions::new().metadata(metadata.clone());
        let old = storage.put_with("key", "old", options).await.unwrap();
        assert_eq!(storage.stat("key").await.unwrap().unwrap().metadata, Some(metadata.clone()));
        storage.put("key", "new").await.unwrap();
        let seen: Vec<Entry> = storage.versions("key").await.unwrap().try_collect().await.unwrap();
        assert_eq!(seen[1].metadata, Some(metadata));
        assert_eq!((&seen[1].etag, seen[1].modified, &seen[1].version), (&old.etag, old.modified, &old.version));
    }
}

#[tokio::test]
async fn deleting_the_current_version_hides_the_key() {
    for storage in [over(Memory::new(), 10), over(Hashed::default(), 10)] {
        let old = storage.put("key", "old").await.unwrap().version.unwrap();
        let new = storage.put("key", "new").await.unwrap().version.unwrap();
        storage.delete_with("key", DeleteOptions::new().version(new)).await.unwrap();
        assert_eq!(storage.get("key").await.unwrap(), None);
        storage.copy_with("key", "key", CopyOptions::new().version(old)).await.unwrap();
        assert_eq!(storage.get("key").await.unwrap(), Some("old".into()));
    }
}

#[tokio::test]
async fn a_backend_that_leaves_too_little_is_refused() {
    let small = Hashed::with_limits(|limits| limits.key = 520);
    let error = Versioned::new(Arc::new(small), VersionedLayer::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("keys of 563 bytes; this one takes 520"), "{error}");
    let small = Hashed::with_limits(|limits| limits.metadata = 1000);
    let error = Versioned::new(Arc::new(small), VersionedLayer::new()).unwrap_err();
    assert!(error.to_string().contains("metadata of 1256 bytes"), "{error}");
}

#[tokio::test]
async fn nobody_waits_for_a_stream() {
    for storage in [over(Memory::new(), 10), over(Hashed::conditional(), 10)] {
        // The body ends only when another write of the same key is done.
        let slow = |length| {
            let faster = storage.clone();
            Body::stream(stream::once(async move {
                faster.put("key", "faster").await?;
                Ok(Bytes::from(vec![b's'; length]))
            }))
        };
        let absent = PutOptions::new().condition(Condition::IfAbsent);
        let error = storage.put_with("key", slow(4), absent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        for length in [4, 2 << 20] {
            storage.put("key", slow(length)).await.unwrap();
            assert_eq!(storage.stat("key").await.unwrap().unwrap().size, length as u64);
        }
        assert_eq!(versions(&storage, "key").await.len(), 5);
    }
}

/// What each operation asks of the backend, and that no other method of it is used.
#[tokio::test]
async fn nothing_goes_around() -> Result<()> {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let storage = over(recorder, 2);
    let first = storage.put("k", "1").await?.version.unwrap();
    assert_eq!(log.take(), ["get", "list", "put"]);
    storage.put("k", "2").await?;
    assert_eq!(log.take(), ["get", "list", "put", "put"]);
    storage.get("k").await?;
    storage.stat("k").await?;
    storage.get_batch(["k"]).await?;
    assert_eq!(log.take(), ["get", "stat", "get_batch"]);
    storage.get_with("k", GetOptions::new().version(first.clone())).await?;
    assert_eq!(log.take(), ["stat", "list", "stat", "get"]);
    let _: Vec<Entry> = storage.versions("k").await?.try_collect().await?;
    assert_eq!(log.take(), ["stat", "list"]);
    storage.copy_with("k", "k", CopyOptions::new().version(first)).await?;
    assert_eq!(log.take(), ["stat", "list", "stat", "get", "list", "put", "copy", "delete"]);
    storage.rename("k", "l").await?;
    assert_eq!(log.take(), ["stat", "get", "list", "copy", "get", "list", "put", "delete"]);
    storage.put_batch([("l", "3")]).await?;
    assert_eq!(log.take(), ["get", "list", "put", "put"]);
    let _: Vec<_> = storage.list("a/").await?.try_collect().await?;
    assert_eq!(log.take(), ["list"]);
    let _: Vec<_> = storage.query(storage_core::Query::new().prefix("a/")).await?.try_collect::<Vec<_>>().await?;
    assert_eq!(log.take(), ["query"]);
    storage.clear().await?;
    assert_eq!(log.take(), ["list", "list", "get", "list", "put", "delete"]);
    let tx = storage.begin().await?;
    tx.put("k", "4").await?;
    tx.delete("k").await?;
    tx.commit().await?;
    let all = log.take();
    assert_eq!(all[0], "begin");
    assert!(all[1..].iter().all(|name| name.starts_with("transaction.")), "{all:?}");
    assert_eq!(values(&storage, "k").await, ["4", "1"]);
    Ok(())
}

#[tokio::test]
async fn with_one_version_a_deleted_key_keeps_none() {
    let below = Memory::new();
    let storage = over(below.clone(), 1);
    for key in ["deleted", "cleared", "moved"] {
        storage.put(key, "older").await.unwrap();
        storage.put(key, "newer").await.unwrap();
    }
    storage.delete("deleted").await.unwrap();
    storage.clear_prefix("cleared").await.unwrap();
    storage.rename("moved", "target").await.unwrap();
    for key in ["deleted", "cleared", "moved"] {
        assert_eq!(versions(&storage, key).await, [], "{key}");
    }
    let below: Vec<Key> = Storage::new(below).keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(below.len(), 1, "{below:?}");
}
