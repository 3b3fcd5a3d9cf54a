//! The files of SQLite: moved, removed or replaced while the store is open, and how long the log becomes.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use storage_core::{Body, Bytes, ErrorKind, Result, Storage};
use storage_sql::{Config, Sql};
use support::Place;
use tokio::time::sleep;

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Every way to write, each to keys of its own, as they were prepared.
async fn writes(storage: &Storage) -> Vec<(&'static str, Result<()>)> {
    let large = || vec![1; 1 << 20];
    let pieces = || Body::stream(futures_util::stream::iter([Ok(Bytes::from(large())), Ok(Bytes::from(large()))]));
    vec![
        ("put", storage.put("k", "new").await.map(drop)),
        ("large put", storage.put("large", large()).await.map(drop)),
        ("stream", storage.put("stream", pieces()).await.map(drop)),
        ("batch", storage.put_batch([("b1", "new"), ("b2", "new")]).await.map(drop)),
        ("delete", storage.delete("k").await),
        ("batch of deletes", storage.delete_batch(["k"]).await.map(drop)),
        ("copy", storage.copy("k", "copy").await.map(drop)),
        ("rename", storage.rename("k", "renamed").await.map(drop)),
        ("clear", storage.clear().await),
        ("transaction", storage.transaction(|tx| async move { tx.put("tx", "new").await.map(drop) }).await),
    ]
}

/// What is done to a file under a store that is open.
type Deed = fn(&Path);

const DEEDS: [(&str, Deed); 7] = [
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("moved", |path| fs::rename(path, beside(path, ".moved")).unwrap()),
    ("replaced by a copy", |path| {
        // By another process: to close the file in this one would drop the locks that it has.
        assert!(Command::new("cp").arg(path).arg(beside(path, ".copy")).status().unwrap().success());
        fs::rename(beside(path, ".copy"), path).unwrap();
    }),
    ("replaced by an empty file", |path| {
        fs::remove_file(path).unwrap();
        fs::write(path, "").unwrap();
    }),
    ("without its log", |path| fs::remove_file(beside(path, "-wal")).unwrap()),
    ("without the index of its log", |path| fs::remove_file(beside(path, "-shm")).unwrap()),
    ("in a directory that was moved", |path| {
        let directory = path.parent().unwrap();
        fs::rename(directory, beside(directory, ".moved")).unwrap();
    }),
];

#[tokio::test]
async fn nothing_is_acknowledged_that_nobody_will_find() {
    for (what, deed) in DEEDS {
        for idle in [true, false] {
            let place = Place::new();
            let directory = place.path().with_file_name("own");
            fs::create_dir(&directory).unwrap();
            let path = directory.join("test.db");
            let storage = Storage::new(Sql::connect(Config::sqlite(&path)).await.unwrap());
            storage.put("k", "old").await.unwrap();
            assert!(storage.is_connected().await);
            // One that has written already ends the same way.
            let tx = storage.begin().await.unwrap();
            if !idle {
                tx.put("in", "tx").await.unwrap();
            }
            deed(&path);
            assert!(!storage.is_connected().await, "{what}");
            let e = if idle { tx.put("in", "tx").await.err() } else { None };
            let e = match e {
                Some(e) => e,
                None => tx.commit().await.expect_err(what),
            };
            assert_eq!(e.kind(), ErrorKind::Unavailable, "commit of a file {what}: {e:?}");
            for (way, done) in writes(&storage).await {
                let e = done.expect_err(way);
                assert_eq!(e.kind(), ErrorKind::Unavailable, "{way} to a file {what}: {e:?}");
                assert!(!e.is_ambiguous() && e.message().contains("put back"), "{way}: {e}");
            }
            storage.disconnect().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_that_is_put_back_is_used_on() {
    let place = Place::new();
    let storage = place.open().await;
    storage.put("k", "1").await.unwrap();
    let elsewhere = beside(&place.path(), ".moved");
    fs::rename(place.path(), &elsewhere).unwrap();
    assert!(storage.put("k", "2").await.is_err());
    fs::rename(&elsewhere, place.path()).unwrap();
    storage.put("k", "3").await.unwrap();
    assert!(storage.is_connected().await);
    let again = place.open().await;
    assert_eq!(again.get("k").await.unwrap().unwrap(), "3");
}

#[tokio::test]
async fn a_link_that_leads_elsewhere_is_noticed() {
    let place = Place::new();
    let link = place.path().with_file_name("link.db");
    std::os::unix::fs::symlink(place.path(), &link).unwrap();
    let storage = Storage::new(Sql::connect(Config::sqlite(&link)).await.unwrap());
    storage.put("k", "1").await.unwrap();
    let other = place.path().with_file_name("other.db");
    drop(Sql::connect(Config::sqlite(&other)).await.unwrap());
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let e = storage.put("k", "2").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
}

/// Files that are moved at any moment: whoever opens the path afterwards finds what was acknowledged before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_amid_writes_loses_no_acknowledged_one() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    fastrand::seed(seed);
    for _ in 0..10 {
        let place = Place::new();
        let storage = place.open().await;
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let storage = storage.clone();
                tokio::spawn(async move {
                    let mut acknowledged = 0;
                    for n in 1..100_u64 {
                        match storage.put(format!("{writer}"), n.to_string()).await {
                            Ok(_) => acknowledged = n,
                            Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
        let (path, moved) = (place.path(), place.path().with_file_name("moved.db"));
        for end in ["", "-wal", "-shm"] {
            fs::rename(beside(&path, end), beside(&moved, end)).unwrap();
        }
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.push(writer.await.unwrap());
        }
        // Where the file is now. The log went with it.
        drop(storage);
        let found = Storage::new(Sql::connect(Config::sqlite(&moved)).await.unwrap());
        for (writer, acknowledged) in acknowledged.into_iter().enumerate() {
            let stored = found.get(writer.to_string()).await.unwrap().unwrap_or_default();
            let stored: u64 = String::from_utf8_lossy(&stored).parse().unwrap_or(0);
            assert!(stored >= acknowledged, "{stored} < {acknowledged}");
        }
    }
}

/// What the log may have at most once nobody reads what was there before.
const BOUND: u64 = 17 << 20;

fn log(place: &Place) -> u64 {
    fs::metadata(beside(&place.path(), "-wal")).map_or(0, |found| found.len())
}

async fn until_short(place: &Place) -> bool {
    for _ in 0..500 {
        if log(place) <= BOUND {
            return true;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn the_log_is_cut_after_a_long_transaction() {
    for end in ["commit", "rollback", "drop", "drop behind another handle"] {
        let place = Place::new();
        let mut config = place.config();
        config.durability = storage_sql::Durability::Relaxed;
        let storage = place.connect(config).await;
        let tx = storage.begin().await.unwrap();
        assert!(!tx.has("k").await.unwrap());
        for n in 0..160 {
            storage.put("k", vec![n; 200 << 10]).await.unwrap();
        }
        assert!(log(&place) > BOUND);
        match end {
            "commit" => tx.commit().await.unwrap(),
            "rollback" => tx.rollback().await.unwrap(),
            _ => drop(tx),
        }
        assert!(until_short(&place).await, "after {end}: {}", log(&place));
        assert!(storage.is_connected().await);
        storage.put("k", "v").await.unwrap();
    }
}

#[tokio::test]
async fn the_log_is_cut_after_a_large_batch_and_another_program_that_read() {
    let place = Place::new();
    let mut config = place.config();
    config.durability = storage_sql::Durability::Relaxed;
    let storage = place.connect(config.clone()).await;
    // As another program would.
    let other = place.connect(config).await;
    let reading = other.begin().await.unwrap();
    for n in 0..160 {
        storage.put("k", vec![n; 200 << 10]).await.unwrap();
    }
    drop(reading);
    // It ends by itself; the next writes find that nobody reads any more.
    for _ in 0..200 {
        storage.put("k", "v").await.unwrap();
        if log(&place) <= BOUND {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the log stays at {}", log(&place));
}
