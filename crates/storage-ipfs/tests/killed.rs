//! A process that is killed between any two steps of a write, an export or an import: nothing acknowledged is lost, a value is the old or the
//! new, a repeat succeeds, and after a sweep nothing is pinned that has no key.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/steps.rs"]
mod steps;
mod support;

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use daemon::Daemon;
use futures_util::{TryStreamExt, stream};
use storage_core::{Body, Bytes, Storage};
use storage_ipfs::{Config, Ipfs};

/// Of two blocks and more.
const LARGE: usize = 5 << 18;

async fn connect(address: &str, dir: &Path) -> Storage<Ipfs> {
    let mut config = Config::new(address).unwrap();
    config.sweep_after = Duration::ZERO;
    Storage::typed(Ipfs::connect(config, support::index(dir).await.unwrap()).await.unwrap())
}

/// The value of a key, old or new, of so many bytes.
fn value(key: &str, age: &str, len: usize) -> Vec<u8> {
    format!("{age} {key} ").into_bytes().into_iter().cycle().take(len).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Put,
    PutStream,
    Overwrite,
    OverwriteStream,
    Batch,
    Delete,
    Rename,
}

const WRITES: [Write; 7] = [
    Write::Put,
    Write::PutStream,
    Write::Overwrite,
    Write::OverwriteStream,
    Write::Batch,
    Write::Delete,
    Write::Rename,
];

impl Write {
    fn len(self) -> usize {
        if matches!(self, Self::PutStream | Self::OverwriteStream) { LARGE } else { 500 }
    }

    fn before(self, key: &str) -> Option<Vec<u8>> {
        (!matches!(self, Self::Put | Self::PutStream | Self::Batch)).then(|| value(key, "old", self.len()))
    }

    fn after(self, key: &str) -> Option<Vec<u8>> {
        match self {
            Self::Delete | Self::Rename => None,
            _ => Some(value(key, "new", self.len())),
        }
    }

    async fn make(self, storage: &Storage<Ipfs>, key: &str) -> storage_core::Result<()> {
        match (self, self.after(key)) {
            (Self::Batch, Some(new)) => {
                let twin = value(key, "twin", self.len());
                let both = [(key.to_owned(), new), (format!("{key} twin"), twin)];
                storage.put_batch(both).await.map(drop)
            }
            (Self::PutStream | Self::OverwriteStream, Some(new)) => {
                let pieces: Vec<_> = new.chunks(400_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                storage.put(key, Body::stream(stream::iter(pieces))).await.map(drop)
            }
            (Self::Rename, _) => storage.rename(key, format!("{key} twin")).await.map(drop),
            (_, Some(new)) => storage.put(key, new).await.map(drop),
            (_, None) => storage.delete(key).await,
        }
    }
}

/// What the process does that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn writer() {
    let Some(asked) = steps::asked() else { return };
    let [host, dir, what, key, left] = <[String; 5]>::try_from(asked).unwrap();
    let address = steps::watch(host).await;
    let storage = connect(&address, Path::new(&dir)).await;
    // What connecting has left to do.
    tokio::time::sleep(Duration::from_millis(150)).await;
    steps::count(left.parse().unwrap());
    match what.as_str() {
        "export" => drop(storage.backend().export(&key).await.unwrap()),
        "car" => {
            let car = storage.backend().export_car("").await.unwrap();
            std::fs::write(key, car.bytes(u64::MAX).await.unwrap()).unwrap();
        }
        "import" => drop(storage.backend().import_car(std::fs::read(key).unwrap()).await.unwrap()),
        write => {
            let write = WRITES[write.parse::<usize>().unwrap()];
            write.make(&storage, &key).await.unwrap();
        }
    }
    steps::count(-1);
    println!("acknowledged");
}

/// From one step to the next that is tried: each so many, unless all are asked for.
fn stride(each: usize) -> usize {
    if std::env::var_os("STORAGE_TEST_LONG").is_some() { 1 } else { each }
}

async fn contents(storage: &Storage<Ipfs>) -> BTreeSet<String> {
    let entries: Vec<_> = storage.list("").await.unwrap().try_collect().await.unwrap();
    entries.into_iter().map(|entry| entry.attributes.get("cid").unwrap().to_owned()).collect()
}

/// Sweeps until as much is pinned as has a key, collects, and reads all that there is.
async fn nothing_is_left(daemon: &Daemon, storage: &Storage<Ipfs>, at: &str) {
    let begun = Instant::now();
    let contents = contents(storage).await;
    loop {
        storage.backend().sweep().await.unwrap();
        let ours = daemon.ours().await;
        if ours.len() == contents.len() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{at}: {} keys, {ours:?}", contents.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.collect().await;
    let entries: Vec<_> = storage.list("").await.unwrap().try_collect().await.unwrap();
    for entry in entries {
        let read = storage.get(entry.key.as_str()).await.unwrap().unwrap();
        assert_eq!(read.len() as u64, entry.size, "{at}: {}", entry.key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_leaves_the_old_value_or_the_new() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let path = dir.path().display().to_string();
    for (n, write) in WRITES.into_iter().enumerate() {
        let (mut kills, mut left) = (0, 1);
        loop {
            let key = format!("{write:?} {left}");
            let storage = connect(&daemon.address(), dir.path()).await;
            if let Some(old) = write.before(&key) {
                storage.put(&*key, old).await.unwrap();
            }
            storage.disconnect().await.unwrap();
            let (host, asked, number) = (daemon.host(), left.to_string(), n.to_string());
            let (path, of) = (path.clone(), key.clone());
            let run = move || steps::run(&[&host, &path, &number, &of, &asked]);
            let (died, said) = tokio::task::spawn_blocking(run).await.unwrap();
            let acknowledged = said.contains("acknowledged");
            // Both, when another step than those of the write was the last.
            assert!(died || acknowledged, "{key}");
            let storage = connect(&daemon.address(), dir.path()).await;
            let there = read(&storage, &key).await;
            let twin = read(&storage, &format!("{key} twin")).await;
            let is_new = there == write.after(&key);
            assert!(
                is_new || (there == write.before(&key) && !acknowledged),
                "{key}: neither the old value nor the new"
            );
            match write {
                Write::Rename => assert_eq!(twin, is_new.then(|| write.before(&key)).flatten(), "{key}"),
                Write::Batch => assert!(twin.is_none() || twin == Some(value(&key, "twin", 500)), "{key}"),
                _ => assert_eq!(twin, None),
            }
            // Again, as a program that starts anew does.
            if !is_new {
                write.make(&storage, &key).await.unwrap();
                assert_eq!(read(&storage, &key).await, write.after(&key), "{key}, repeated");
            }
            if !died {
                nothing_is_left(&daemon, &storage, &format!("{write:?}")).await;
                break;
            }
            kills += 1;
            left += if matches!(write, Write::Put | Write::Overwrite | Write::Delete) { 1 } else { stride(3) };
        }
        eprintln!("{write:?}: {kills} kills");
        assert!(kills >= 3, "{write:?}: {kills} kills");
    }
}

async fn read(storage: &Storage<Ipfs>, key: &str) -> Option<Vec<u8>> {
    storage.get(key).await.unwrap().map(|value| value.to_vec())
}

/// The names in a directory of MFS.
async fn listed(daemon: &Daemon, path: &str) -> Vec<String> {
    let listing = daemon.post("files/ls", &format!("arg={path}")).await.unwrap();
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let entries = listing["Entries"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["Name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_killed_leaves_the_one_before_and_is_made_anew() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon.address(), dir.path()).await;
    storage.put_batch((0..8).map(|n| (format!("k/{n}"), n.to_string()))).await.unwrap();
    storage.backend().export("/backup/app").await.unwrap();
    let car = dir.path().join("car").display().to_string();
    for (what, to) in [("export", "/backup/app"), ("car", car.as_str())] {
        let (mut kills, mut left) = (0, 1);
        loop {
            let (host, path, asked) = (daemon.host(), dir.path().display().to_string(), left.to_string());
            let to = to.to_owned();
            let run = move || steps::run(&[&host, &path, what, &to, &asked]);
            let (died, _) = tokio::task::spawn_blocking(run).await.unwrap();
            // What was there is there, for whoever has lost the index now.
            let new = tempfile::tempdir().unwrap();
            let config = Config::new(&daemon.address()).unwrap();
            let rebuilt = Ipfs::rebuild(config, support::index(new.path()).await.unwrap(), "/backup/app").await;
            assert_eq!(contents(&Storage::typed(rebuilt.unwrap())).await.len(), 8, "{what}, step {left}");
            if !died {
                break;
            }
            kills += 1;
            left += stride(5);
        }
        eprintln!("{what}: {kills} kills");
        assert!(kills >= 6, "{what}: {kills} kills");
        // Once more, for the last kill.
        storage.backend().export("/backup/app").await.unwrap();
        assert_eq!(listed(&daemon, "/backup").await, ["app"], "{what}");
        storage.backend().export_car("").await.unwrap().bytes(u64::MAX).await.unwrap();
        let begun = Instant::now();
        while !listed(&daemon, "/").await.iter().all(|name| name == "backup" || name == "storage-ipfs") {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {:?}", listed(&daemon, "/").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // The CAR of a process that was not killed.
    let other = tempfile::tempdir().unwrap();
    let second = Daemon::start(other.path()).await;
    let store = connect(&second.address(), other.path()).await;
    store.put("k/0", "before").await.unwrap();
    let path = other.path().display().to_string();
    let (mut kills, mut left) = (0, 1);
    loop {
        let (host, path, car, asked) = (second.host(), path.clone(), car.clone(), left.to_string());
        let run = move || steps::run(&[&host, &path, "import", &car, &asked]);
        let (died, _) = tokio::task::spawn_blocking(run).await.unwrap();
        let first = read(&store, "k/0").await.unwrap();
        assert!(first == b"before" || first == b"0", "step {left}: {first:?}");
        if !died {
            break;
        }
        nothing_is_left(&second, &store, &format!("import, step {left}")).await;
        kills += 1;
        left += stride(7);
    }
    eprintln!("import: {kills} kills");
    assert!(kills >= 6, "import: {kills} kills");
    assert_eq!(store.backend().import_car(std::fs::read(&car).unwrap()).await.unwrap(), 8);
    assert_eq!(contents(&store).await, contents(&storage).await);
    nothing_is_left(&second, &store, "import").await;
    assert_eq!(second.ours().await.len() + 1, second.pins().await.len(), "the root of the import is not pinned");
}
