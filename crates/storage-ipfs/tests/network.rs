//! A node behind something that lies, breaks off or counts: no wrong byte ever gets through, and what needs no request sends none.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use futures_util::{StreamExt, TryStreamExt, stream};
use proxy::{Lie, Proxy};
use storage_core::{Body, ByteRange, ErrorKind, GetOptions, PutOptions, Query, Storage};
use storage_ipfs::Ipfs;

async fn before_node() -> Proxy {
    Proxy::start(support::node().trim_start_matches("http://").trim_end_matches('/').to_owned()).await
}

async fn connect(proxy: &Proxy, dir: &tempfile::TempDir, verify: bool) -> Storage {
    let mut config = support::config(&proxy.address()).unwrap();
    config.verify = verify;
    Storage::new(Ipfs::connect(config, support::index(dir.path()).await.unwrap()).await.unwrap())
}

fn random(len: usize) -> Vec<u8> {
    (0..len).map(|_| fastrand::u8(..)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_found_out() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let proxy = before_node().await;
    let storage = connect(&proxy, &dir, true).await;
    for len in [1, 300, 1 << 20, (1 << 20) + 1, 3 << 20] {
        let value = random(len);
        storage.put("k", value.clone()).await.unwrap();
        let end = len as u64;
        for range in [ByteRange::From(0), ByteRange::Bounded(end / 2, end), ByteRange::Suffix(1)] {
            let options = || GetOptions::new().range(range);
            for lie in Lie::ALL {
                proxy.lie(Some(lie));
                let read = storage.get_with("k", options()).await;
                let e = read.map(|read| read.map(|read| read.len())).unwrap_err();
                let told = e.kind() == ErrorKind::Corrupt || e.is_retryable();
                assert!(told, "{len} bytes, {range:?}, {lie:?}: {e:?}");
            }
            proxy.honest();
            let read = storage.get_with("k", options()).await.unwrap().unwrap();
            assert_eq!(read, value[range.resolve(end).map(|r| r.start as usize..r.end as usize).unwrap()]);
        }
    }
}

/// Without verification, a wrong length and the node's own word are found; a wrong byte cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn without_verification_nothing_is_short() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let proxy = before_node().await;
    let storage = connect(&proxy, &dir, false).await;
    for len in [300, 3 << 20] {
        let value = random(len);
        storage.put("k", value.clone()).await.unwrap();
        for lie in [Lie::OtherBlock, Lie::CutShort, Lie::Half, Lie::OnlyInTheTrailer, Lie::Nothing] {
            proxy.lie(Some(lie));
            storage.get("k").await.map(|read| read.map(|read| read.len())).unwrap_err();
        }
        proxy.honest();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), value);
        let range = GetOptions::new().range(ByteRange::Bounded(100, 200));
        assert_eq!(storage.get_with("k", range).await.unwrap().unwrap(), value[100..200]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_otherwise_gets_no_name() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let proxy = before_node().await;
    let storage = connect(&proxy, &dir, true).await;
    storage.put("k", "old").await.unwrap();
    let empty = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    let directory = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
    let line = |name: &str, cid: &str| format!("{{\"Name\":\"{name}\",\"Hash\":\"{cid}\",\"Size\":\"0\"}}\n");
    for (answer, kind) in [
        (format!("{}{}", line("value", empty), line("", directory)), ErrorKind::Corrupt),
        (line("value", empty), ErrorKind::Unavailable),
        (line("", directory), ErrorKind::Unavailable),
        (String::new(), ErrorKind::Unavailable),
        ("{\"Name\":\"value\",\"Ha".into(), ErrorKind::Unavailable),
        ("<html>a page</html>\n".into(), ErrorKind::Unavailable),
    ] {
        proxy.answer("/api/v0/add", &answer);
        for value in [random(1000), random(2 << 20)] {
            let e = storage.put("k", value).await.unwrap_err();
            // An answer that comes before the end of a large value is one to an upload that broke off.
            assert!(e.kind() == kind || e.kind() == ErrorKind::Unavailable, "{answer:?}: {e:?}");
            assert!(e.is_retryable() || e.kind() == ErrorKind::Corrupt);
            assert!(!e.is_ambiguous());
        }
        proxy.honest();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "old");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_breaks_off_leaves_the_old_value_or_the_new() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let proxy = before_node().await;
    let storage = connect(&proxy, &dir, true).await;
    for len in [10, 3 << 20] {
        for number in 0..8 {
            proxy.honest();
            let (old, new) = (random(len), random(len));
            storage.put("k", old.clone()).await.unwrap();
            proxy.break_off(number);
            let put = storage.put("k", new.clone()).await;
            let get = match &put {
                Ok(_) => storage.get("k").await,
                Err(e) => {
                    assert!(e.is_retryable() && !e.is_ambiguous(), "{e:?}");
                    Ok(None)
                }
            };
            if let Err(e) = get {
                assert!(e.is_retryable(), "{e:?}");
            }
            proxy.honest();
            let expected = if put.is_ok() { &new } else { &old };
            assert_eq!(storage.get("k").await.unwrap().unwrap(), expected, "exchange {number}");
        }
    }
}

/// What a key had when it was last seen here is asked for, and not believed.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_written_is_read() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let proxy = before_node().await;
    let (one, other) = (connect(&proxy, &dir, true).await, connect(&proxy, &dir, true).await);
    for round in 0..5 {
        let (first, second) = (random(100 + round), random(200 + round));
        one.put("k", first.clone()).await.unwrap();
        assert_eq!(one.get("k").await.unwrap().unwrap(), first);
        other.put("k", second.clone()).await.unwrap();
        assert_eq!(one.get("k").await.unwrap().unwrap(), second);
        // The same size, and another content.
        let third = random(200 + round);
        other.put("k", third.clone()).await.unwrap();
        let range = GetOptions::new().range(ByteRange::Bounded(10, 20));
        assert_eq!(one.get_with("k", range).await.unwrap().unwrap(), third[10..20]);
        other.delete("k").await.unwrap();
        assert_eq!(one.get("k").await.unwrap(), None);
        assert_eq!(one.get("k").await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_that_share_a_commit_have_outcomes_of_their_own() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let proxy = before_node().await;
    let storage = connect(&proxy, &dir, true).await;
    storage.put("there", "before").await.unwrap();
    let put = |n: usize| {
        let storage = storage.clone();
        async move {
            let absent = PutOptions::new().if_absent();
            match n % 5 {
                0 => storage.put_with("there", format!("{n}"), absent).await.map_err(|e| e.kind()).map(drop),
                1 => storage.put("equal", "equal").await.map_err(|e| e.kind()).map(drop),
                2 => storage.put(format!("equal {n}"), "equal").await.map_err(|e| e.kind()).map(drop),
                3 => storage.put_with("contested", format!("{n}"), absent).await.map_err(|e| e.kind()).map(drop),
                _ => storage.put(format!("own {n}"), format!("{n}")).await.map_err(|e| e.kind()).map(drop),
            }
        }
    };
    let done: Vec<_> = stream::iter((0..100).map(put)).buffered(32).collect().await;
    let of = |kind: usize| done.iter().enumerate().filter(move |(n, _)| n % 5 == kind).map(|(_, done)| done);
    assert!(of(0).all(|done| *done == Err(ErrorKind::AlreadyExists)));
    assert!(of(1).chain(of(2)).chain(of(4)).all(Result::is_ok), "{done:?}");
    assert_eq!(of(3).filter(|done| done.is_ok()).count(), 1, "{done:?}");
    assert!(of(3).all(|done| done.is_ok() || *done == Err(ErrorKind::AlreadyExists)), "{done:?}");
    assert_eq!(storage.get("there").await.unwrap().unwrap(), "before");
    for n in (0..100).filter(|n| n % 5 == 4) {
        assert_eq!(storage.get(format!("own {n}")).await.unwrap().unwrap(), format!("{n}"));
    }
    // Each of the equal ones was counted: the last of them keeps the content.
    let counts = support::index(dir.path()).await.unwrap();
    let cid = storage.stat("equal").await.unwrap().unwrap().attributes.get("cid").unwrap().to_owned();
    let count = counts.get(format!("c/{cid}")).await.unwrap().unwrap();
    let count: serde_json::Value = serde_json::from_slice(&count).unwrap();
    assert_eq!(count["keys"], 21);
    storage.clear().await.unwrap();
    assert_eq!(storage.list("").await.unwrap().try_collect::<Vec<_>>().await.unwrap(), []);
}

/// As the README says.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_costs_what_it_must() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let proxy = before_node().await;
    let storage = connect(&proxy, &dir, true).await;
    // What connecting has left to do.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    proxy.requests();
    let value = random(100);
    storage.put("a", value.clone()).await.unwrap();
    assert_eq!(proxy.requests(), ["add"], "a new value");
    storage.put("b", value.clone()).await.unwrap();
    storage.copy("a", "c").await.unwrap();
    storage.rename("c", "d").await.unwrap();
    storage.stat("d").await.unwrap().unwrap();
    storage.list("").await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    storage.query_page(Query::new().any_tag(["t"])).await.unwrap();
    assert_eq!(proxy.requests(), [""; 0], "equal values, copies and whatever the index knows");
    storage.get("d").await.unwrap();
    assert_eq!(proxy.requests(), ["block/get"], "a value of one block");
    storage.put("large", random(5 << 20)).await.unwrap();
    assert_eq!(proxy.requests(), ["add"], "a large value");
    let range = GetOptions::new().range(ByteRange::Bounded(3 << 20, (3 << 20) + 10));
    storage.get_with("large", range).await.unwrap();
    assert_eq!(proxy.requests(), ["block/get", "block/get"], "a range: the root, and the block it is in");
    storage.get("large").await.unwrap();
    assert_eq!(proxy.requests().len(), 6, "the root, and five blocks");
    storage.put_batch((0..20).map(|n| (format!("batch/{n}"), Body::from("equal")))).await.unwrap();
    storage.delete("a").await.unwrap();
    storage.get("a").await.unwrap();
    proxy.requests();
    storage.get("nothing").await.unwrap();
    assert_eq!(proxy.requests(), [""; 0], "an absent key");
}
