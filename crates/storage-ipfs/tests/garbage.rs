//! What is pinned and what is not: nothing that has a key is ever collected, nothing that has none stays, and nobody else's pin goes.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/daemon.rs"]
mod daemon;
mod support;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use daemon::Daemon;
use futures_util::{StreamExt, future::join_all, stream};
use storage_core::{Body, Bytes, ErrorKind, PutOptions, Storage};
use storage_ipfs::{Config, Ipfs};

async fn connect(daemon: &Daemon, dir: &Path) -> Storage<Ipfs> {
    let mut config = Config::new(&daemon.address()).unwrap();
    config.sweep_after = Duration::ZERO;
    Storage::typed(Ipfs::connect(config, support::index(dir).await.unwrap()).await.unwrap())
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn cid(entry: &storage_core::Entry) -> String {
    entry.attributes.get("cid").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_unpinned_with_its_last_key_and_only_then() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon, dir.path()).await;
    let one = cid(&storage.put("a", "equal").await.unwrap());
    assert_eq!(cid(&storage.put("b", "equal").await.unwrap()), one, "equal values are one content");
    storage.copy("a", "c").await.unwrap();
    storage.rename("c", "d").await.unwrap();
    storage.put("a", "other").await.unwrap();
    storage.delete("b").await.unwrap();
    storage.backend().gc().await.unwrap();
    assert!(daemon.keeps(&one).await, "it has a key");
    assert_eq!(storage.get("d").await.unwrap().unwrap(), "equal");
    storage.delete("d").await.unwrap();
    eventually("it has no key", async || !daemon.keeps(&one).await).await;
    daemon.collect().await;
    // It is gone, and comes back when it is put again, although the index has a trace of it.
    storage.put("e", "equal").await.unwrap();
    daemon.collect().await;
    assert_eq!(storage.get("e").await.unwrap().unwrap(), "equal");
    // Unpinned by somebody else: the sweep has nothing to do, and says nothing.
    for pin in daemon.ours().await.into_keys() {
        daemon.post("pin/rm", &format!("arg={pin}")).await.unwrap();
    }
    storage.delete("d").await.unwrap();
    storage.delete("e").await.unwrap();
    storage.backend().gc().await.unwrap();
    storage.put("f", "equal").await.unwrap();
    storage.clear().await.unwrap();
    eventually("nothing has a key", async || daemon.ours().await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_pin_goes() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let large = "large ".repeat(400_000);
    let theirs = daemon.add("their own", "cid-version=1&pin=true&pin-name=mine").await;
    let sizes = "cid-version=1&chunker=size-1048576&max-file-links=1024";
    let large_too = daemon.add(&large, &format!("{sizes}&pin=true&pin-name=mine%20too")).await;
    let storage = connect(&daemon, dir.path()).await;
    assert_eq!(cid(&storage.put("k", "their own").await.unwrap()), theirs);
    let body = Body::stream(stream::iter([Ok(Bytes::from(large.clone()))]));
    assert_eq!(cid(&storage.put("large", body).await.unwrap()), large_too);
    let batch = (0..20).map(|n| (format!("batch/{n}"), "their own too"));
    let other = daemon.add("their own too", "cid-version=1&pin=true&pin-name=mine").await;
    for entry in storage.put_batch(batch).await.unwrap() {
        assert_eq!(cid(&entry), other);
    }
    let ours = cid(&storage.put("ours", "pinned by us first").await.unwrap());
    daemon.post("pin/add", &format!("arg={ours}&name=")).await.unwrap();
    let theirs_alone = async || {
        let mut pins = daemon.pins().await;
        pins.retain(|_, name| !name.starts_with("storage-ipfs:"));
        pins
    };
    let before = theirs_alone().await;
    assert!(daemon.keeps(&theirs).await && daemon.keeps(&large_too).await, "a pin of theirs may go at any time");
    assert_eq!(before[&ours], "");
    assert_eq!([before[&theirs].as_str(), before[&large_too].as_str()], ["mine", "mine too"]);
    storage.clear().await.unwrap();
    storage.backend().gc().await.unwrap();
    assert_eq!(theirs_alone().await, before, "their pins, and what they are called");
    eventually("nothing has a key", async || daemon.ours().await.is_empty()).await;
    // The other way round: what they unpin stays.
    storage.put("k", "their own").await.unwrap();
    storage.put("large", large.clone()).await.unwrap();
    for pin in [&theirs, &large_too] {
        daemon.post("pin/rm", &format!("arg={pin}")).await.unwrap();
    }
    daemon.collect().await;
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "their own");
    assert_eq!(storage.get("large").await.unwrap().unwrap(), large);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_before_it_has_a_name_is_found() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon, dir.path()).await;
    storage.put("there", "already").await.unwrap();
    let piece = || Ok(Bytes::from(vec![fastrand::u8(..); 1 << 20]));
    // A body that fails, one that is dropped, a condition that does not hold.
    let fails = [piece(), piece(), Err(storage_core::Error::new(ErrorKind::Other, "the body fails"))];
    storage.put("k", Body::stream(stream::iter(fails))).await.unwrap_err();
    let endless = Body::stream(stream::iter([piece(), piece(), piece()]).chain(stream::pending()));
    tokio::time::timeout(Duration::from_millis(300), storage.put("k", endless)).await.unwrap_err();
    let raced = Body::stream(stream::iter([piece(), piece()]).chain(stream::once({
        let storage = storage.clone();
        async move {
            storage.put("raced", "first").await.unwrap();
            Ok(Bytes::from_static(b"end"))
        }
    })));
    let e = storage.put_with("raced", raced, PutOptions::new().if_absent()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    let tx = storage.begin().await.unwrap();
    tx.put("never", "rolled back").await.unwrap();
    tx.rollback().await.unwrap();
    eventually("two values are left", async || {
        storage.backend().sweep().await.unwrap();
        daemon.ours().await.len() == 2
    })
    .await;
    assert_eq!(storage.get("there").await.unwrap().unwrap(), "already");
    assert_eq!(storage.get("raced").await.unwrap().unwrap(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_callers_with_equal_content_lose_nothing() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Arc::new(Daemon::start(dir.path()).await);
    let storage = connect(&daemon, dir.path()).await;
    // A second instance, as another process has one, and a node that collects all the time.
    let other = connect(&daemon, dir.path()).await;
    let ended = Arc::new(AtomicBool::new(false));
    let collecting = {
        let (daemon, ended) = (daemon.clone(), ended.clone());
        tokio::spawn(async move {
            while !ended.load(Ordering::Acquire) {
                daemon.collect().await;
            }
        })
    };
    let caller = |n: usize| {
        let storage = if n.is_multiple_of(2) { storage.clone() } else { other.clone() };
        async move {
            let key = format!("caller {n}");
            for round in 0..12 {
                let value = format!("equal {}", round % 3);
                storage.put(&*key, value.clone()).await.unwrap();
                assert_eq!(storage.get(&*key).await.unwrap().unwrap(), value, "{key} in round {round}");
                if !(round + n).is_multiple_of(3) {
                    storage.delete(&*key).await.unwrap();
                }
            }
            storage.put(&*key, "the last").await.unwrap();
        }
    };
    join_all((0..8).map(caller)).await;
    storage.backend().sweep().await.unwrap();
    ended.store(true, Ordering::Release);
    collecting.await.unwrap();
    daemon.collect().await;
    for n in 0..8 {
        assert_eq!(storage.get(format!("caller {n}")).await.unwrap().unwrap(), "the last");
    }
    storage.clear().await.unwrap();
    eventually("nothing has a key", async || daemon.ours().await.is_empty()).await;
}

/// Ten rounds of a hundred writes, and a thousand in each with `STORAGE_TEST_LONG=1`.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_collects_loses_nothing_acknowledged() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Arc::new(Daemon::start(dir.path()).await);
    let storage = connect(&daemon, dir.path()).await;
    let writes = if std::env::var_os("STORAGE_TEST_LONG").is_some() { 1000 } else { 50 };
    for round in 0..10 {
        let ended = Arc::new(AtomicBool::new(false));
        let collecting = {
            let (daemon, ended) = (daemon.clone(), ended.clone());
            tokio::spawn(async move {
                while !ended.load(Ordering::Acquire) {
                    daemon.collect().await;
                }
            })
        };
        let write = |n: usize| {
            let storage = storage.clone();
            async move {
                let (key, value) = (format!("{}", n % (writes / 2)), format!("round {round} value {n}"));
                match n % 10 {
                    0 => storage.delete(&*key).await.unwrap(),
                    1 => {
                        let pieces = || (0..3).map(|_| Ok(Bytes::from(vec![n as u8; 500_000]))).collect::<Vec<_>>();
                        // Equal content may just be unpinned and collected, and a stream cannot be sent again by itself.
                        while let Err(e) = storage.put(&*key, Body::stream(stream::iter(pieces()))).await {
                            assert!(e.is_retryable() && !e.is_ambiguous(), "{e:?}");
                        }
                    }
                    _ => storage.put(&*key, value).await.map(drop).unwrap(),
                }
            }
        };
        stream::iter((0..writes).map(write)).buffer_unordered(8).collect::<()>().await;
        ended.store(true, Ordering::Release);
        collecting.await.unwrap();
        daemon.collect().await;
        let mut entries = storage.list("").await.unwrap();
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            let value = storage.get(entry.key.as_str()).await.unwrap().unwrap();
            assert_eq!(value.len() as u64, entry.size, "round {round}, {:?}", entry.key);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_loses_nothing_acknowledged() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon, dir.path()).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let writer = storage.clone();
        let put = move |n: usize| {
            let storage = writer.clone();
            async move {
                let (key, value) = (format!("{round}/{n}"), format!("value {n} of round {round}"));
                storage.put(&*key, value.clone()).await.ok().map(|_| (key, value))
            }
        };
        let writing = stream::iter((0..400).map(put)).buffer_unordered(8);
        let writing = tokio::spawn(writing.filter_map(std::future::ready).collect::<Vec<_>>());
        let some = 10 + 15 * round;
        eventually("some writes", async || storage.list(&format!("{round}/")).await.unwrap().count().await > some)
            .await;
        daemon.kill();
        acknowledged.extend(writing.await.unwrap());
        let e = storage.get(acknowledged[0].0.as_str()).await.unwrap_err();
        assert!(e.is_retryable(), "{e:?}");
        daemon.restart().await;
    }
    assert!(acknowledged.len() > 10, "{} were acknowledged", acknowledged.len());
    storage.backend().gc().await.unwrap();
    for (key, value) in acknowledged {
        assert_eq!(storage.get(&*key).await.unwrap().unwrap(), value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stores_node_is_refused_or_shared() {
    if daemon::is_missing() {
        return;
    }
    let (dir, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(dir.path()).await;
    let storage = connect(&daemon, dir.path()).await;
    let value = cid(&storage.put("k", "of both").await.unwrap());
    let mut config = Config::new(&daemon.address()).unwrap();
    let refused = Ipfs::connect(config.clone(), support::index(second.path()).await.unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.message().contains("shared_node"), "{refused}");
    config.shared_node = true;
    let other = Ipfs::connect(config, support::index(second.path()).await.unwrap()).await.unwrap();
    let other = Storage::typed(other);
    other.put("k", "of both").await.unwrap();
    // Both delete: neither unpins, the first neither, which does not know that it shares.
    storage.delete("k").await.unwrap();
    storage.backend().gc().await.unwrap();
    assert_eq!(other.get("k").await.unwrap().unwrap(), "of both");
    other.delete("k").await.unwrap();
    other.backend().gc().await.unwrap();
    assert!(daemon.keeps(&value).await);
}
