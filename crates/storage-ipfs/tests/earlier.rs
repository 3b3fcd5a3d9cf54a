//! What version 1 of the records has written: it pinned content itself, and noted whose pins it met. All of it is read, counted and unpinned as
//! then.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/daemon.rs"]
mod daemon;
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use daemon::Daemon;
use futures_util::TryStreamExt;
use serde_json::Value;
use storage_core::Storage;
use storage_ipfs::{Config, Ipfs};

async fn connect(daemon: &Daemon, dir: &Path) -> Storage<Ipfs> {
    let mut config = Config::new(&daemon.address()).unwrap();
    config.sweep_after = Duration::ZERO;
    Storage::typed(Ipfs::connect(config, support::index(dir).await.unwrap()).await.unwrap())
}

/// Makes index and pins what version 1 would have made of them. The content of `theirs` was somebody else's before. Returns how the store
/// called its pins.
async fn as_version_1(daemon: &Daemon, index: &Storage, theirs: &str) -> String {
    let text = async |key: &str| {
        let value = index.get(key).await.unwrap().unwrap();
        serde_json::from_slice::<Value>(&value).unwrap()
    };
    let mut identity = text("s/store").await;
    assert_eq!(identity["schema"], 2);
    identity["schema"] = 1.into();
    index.put("s/store", identity.to_string()).await.unwrap();
    let name = format!("storage-ipfs:{}", identity["id"].as_str().unwrap());
    let counts: Vec<_> = index.list("c/").await.unwrap().try_collect().await.unwrap();
    assert!(!counts.is_empty());
    for record in counts {
        let cid = record.key.as_str().strip_prefix("c/").unwrap();
        let mut count = text(record.key.as_str()).await;
        let pin = count.as_object_mut().unwrap().remove("pin").unwrap();
        let mut name = name.clone();
        if cid == theirs {
            name = "mine".into();
            count["foreign"] = "mine".into();
        }
        index.put(record.key.as_str(), count.to_string()).await.unwrap();
        daemon.post("pin/add", &format!("arg={cid}&name={name}")).await.unwrap();
        daemon.post("pin/rm", &format!("arg={}", pin.as_str().unwrap())).await.unwrap();
    }
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_version_1_is_read_and_its_pins_are_removed() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon, dir.path()).await;
    let large = vec![7; 3 << 20];
    storage.put("small", "small").await.unwrap();
    storage.put("twice", "small").await.unwrap();
    storage.put("large", large.clone()).await.unwrap();
    let theirs = storage.put("theirs", "of both").await.unwrap().attributes.get("cid").unwrap().to_owned();
    storage.disconnect().await.unwrap();
    drop(storage);
    let index = support::index(dir.path()).await.unwrap();
    let name = as_version_1(&daemon, &index, &theirs).await;
    // What a process of that version had pinned when it was killed.
    let left = daemon.add("left behind", &format!("cid-version=1&pin=true&pin-name={name}")).await;
    let left_large = daemon.add(&"left ".repeat(400_000), &format!("cid-version=1&pin=true&pin-name={name}")).await;
    assert_eq!(daemon.ours().await.len(), 4);

    let storage = connect(&daemon, dir.path()).await;
    let identity: Value = serde_json::from_slice(&index.get("s/store").await.unwrap().unwrap()).unwrap();
    assert_eq!(identity["schema"], 2, "version 1 does not write it any more");
    storage.backend().gc().await.unwrap();
    assert_eq!(storage.get("small").await.unwrap().unwrap(), "small");
    assert_eq!(storage.get("large").await.unwrap().unwrap(), large);
    assert_eq!(storage.get("theirs").await.unwrap().unwrap(), "of both");
    let pins = daemon.pins().await;
    assert!(!pins.contains_key(&left) && !pins.contains_key(&left_large), "{pins:?}");
    // Counts go on where they were.
    storage.put("third", "small").await.unwrap();
    storage.copy("large", "copy").await.unwrap();
    for key in ["small", "twice", "large"] {
        storage.delete(key).await.unwrap();
    }
    storage.backend().gc().await.unwrap();
    assert_eq!(storage.get("third").await.unwrap().unwrap(), "small");
    assert_eq!(storage.get("copy").await.unwrap().unwrap(), large);
    storage.clear().await.unwrap();
    let begun = Instant::now();
    while !daemon.ours().await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", daemon.ours().await);
        storage.backend().sweep().await.unwrap();
    }
    assert_eq!(daemon.pins().await.get(&theirs).map(String::as_str), Some("mine"), "it is somebody else's");
    // What comes again is kept as everything is now.
    storage.put("theirs", "of both").await.unwrap();
    storage.put("small", "small").await.unwrap();
    assert!(daemon.keeps(&theirs).await);
    daemon.post("pin/rm", &format!("arg={theirs}")).await.unwrap();
    daemon.collect().await;
    assert_eq!(storage.get("theirs").await.unwrap().unwrap(), "of both");
    assert_eq!(storage.get("small").await.unwrap().unwrap(), "small");
}
