//! What can be wrong with a node, an index or a content identifier, and what is said of it; gateways, and values by identifier.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::time::{Duration, Instant};

use daemon::Daemon;
use proxy::{Lie, Proxy};
use storage_config::{ConnectionConfig, Secret, StorageContext, StoreConfig};
use storage_core::{Body, ByteRange, Error, ErrorKind, GetOptions, Key, PutOptions, Storage};
use storage_ipfs::{Config, Ipfs, IpfsFactory};
use storage_memory::Memory;
use storage_registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

async fn refused(config: Config) -> Error {
    Ipfs::connect(config, Storage::new(Memory::default())).await.unwrap_err()
}

/// A server that gives everything the same answer.
async fn answering(status: &str, body: &str) -> String {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_node_is_told() {
    // Nothing listens there any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = refused(Config::new(&format!("http://{free}")).unwrap()).await;
    assert_eq!(down.kind(), ErrorKind::Unavailable, "{down}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    config.timeout = Duration::from_millis(300);
    assert_eq!(refused(config).await.kind(), ErrorKind::Timeout);
    let old = r#"{"Version":"0.10.0","Commit":"","Repo":"10","System":""}"#;
    for (status, body) in [("200 OK", "<html></html>"), ("404 Not Found", "not found"), ("200 OK", old)] {
        // By both clients: the second is for an address with a path.
        for path in ["", "/behind/a/path"] {
            let e = refused(Config::new(&format!("{}{path}", answering(status, body).await)).unwrap()).await;
            assert_eq!(e.kind(), ErrorKind::Config, "{body} {path}: {e:?}");
        }
    }
    // An answer without anything is what the node gives to a call that it did not understand.
    let e = refused(Config::new(&answering("200 OK", "").await).unwrap()).await;
    assert!(e.kind() == ErrorKind::Config || e.is_retryable(), "{e:?}");
    for old in ["0.10.0", "0.37.9", "0.4.23-rc1"] {
        let node = answering("200 OK", &format!(r#"{{"Version":"{old}","Commit":"","Repo":"10","System":""}}"#)).await;
        for path in ["", "/behind/a/path"] {
            let e = refused(Config::new(&format!("{node}{path}")).unwrap()).await;
            assert_eq!(e.kind(), ErrorKind::Config, "{old}: {e:?}");
            assert!(e.message().contains("too old") && e.message().contains("0.38"), "{old}: {e}");
        }
    }
    let e = Config::from_connection(&ConnectionConfig::new("ipfs:http://host:5001?mfs=/backup")).unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.message().contains("Ipfs::export"), "{e}");
    for wrong in ["ftp://host", "http://", "http://host:5001?x=y", "http://user@host"] {
        let e = Config::new(wrong).map(|config| config.timeout).err();
        assert!(wrong == "http://" || e.is_some_and(|e| e.kind() == ErrorKind::Config), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_one_is_told() {
    if support::is_missing_node() {
        return;
    }
    let config = || support::config(&support::node()).unwrap();
    let refused = async |index: Storage| Ipfs::connect(config(), index).await.unwrap_err();
    let others = Storage::new(Memory::default());
    others.put("of another program", "v").await.unwrap();
    assert_eq!(refused(others).await.kind(), ErrorKind::Config);
    for record in [r#"{"schema":3,"id":"0"}"#, r#"{"schema":0,"id":"0"}"#, "{}", "of another program"] {
        let newer = Storage::new(Memory::default());
        newer.put("s/store", record).await.unwrap();
        assert_eq!(refused(newer).await.kind(), ErrorKind::Config, "{record}");
    }
    let mut long = config();
    long.prefix = "p".repeat(511);
    let e = Ipfs::connect(long, Storage::new(Memory::default())).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uri_names_node_and_index() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new().register(IpfsFactory);
    let index = format!("sqlite:{}/index.db", dir.path().display());
    let uri = format!("ipfs:{}?index={index}%3Ftable=files&prefix=a/&shared_node=true", support::node());
    let storage = registry.open(&uri).await.unwrap();
    storage.put("k", "v").await.unwrap();
    let other = registry.open(&uri.replace("prefix=a/", "prefix=b/")).await.unwrap();
    assert_eq!(other.get("k").await.unwrap(), None);
    other.put("k", "of b").await.unwrap();
    other.clear().await.unwrap();
    storage.backend().disconnect().await.unwrap();
    assert_eq!(registry.open(&uri).await.unwrap().get("k").await.unwrap().unwrap(), "v");
    // An index that has no transactions.
    let uri = format!("ipfs:{}?shared_node=true", support::node());
    let mut config = ConnectionConfig::new(uri);
    config = config.option("index", "memory:?max_versions=2");
    assert!(registry.connect(&config).await.is_ok());
    let without = Registry::empty().register(IpfsFactory).connect(&config).await.unwrap_err();
    assert_eq!(without.kind(), ErrorKind::Config, "no registry knows `memory:`");
    let context = StorageContext::default();
    let e = context.open(&StoreConfig::uri("memory:")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_a_node_that_wants_them() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path()).await;
    daemon.kill();
    let one = |secret: &str| format!(r#"{{"AuthSecret": "{secret}", "AllowedPaths": ["/api/v0"]}}"#);
    let both = format!(r#"{{"a": {}, "b": {}}}"#, one("basic:user:pa55"), one("bearer:t0ken"));
    daemon.set("API.Authorizations", &both);
    daemon.restart().await;
    let without = refused(Config::new(&daemon.address()).unwrap()).await;
    assert!(matches!(without.kind(), ErrorKind::PermissionDenied | ErrorKind::Unauthenticated), "{without}");
    let index = support::index(dir.path()).await.unwrap();
    let basic = Config::new(&format!("http://user:pa55@{}", daemon.host())).unwrap();
    let mut bearer = Config::new(&daemon.address()).unwrap();
    bearer.token = Some(Secret::new("t0ken"));
    for config in [basic, bearer] {
        assert!(!format!("{config:?}").contains("pa55") && !format!("{config:?}").contains("t0ken"));
        let storage = Storage::typed(Ipfs::connect(config, index.clone()).await.unwrap());
        storage.put("k", fastrand::u64(..).to_string()).await.unwrap();
        storage.clear().await.unwrap();
        storage.backend().gc().await.unwrap();
        assert!(storage.get("k").await.unwrap().is_none());
    }
    // A datastore that is not synced is refused where that is asked for.
    let mut durable = Config::new(&format!("http://user:pa55@{}", daemon.host())).unwrap();
    durable.durability = storage_config::Durability::Full;
    let e = Ipfs::connect(durable.clone(), index.clone()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.message().contains("sync"), "{e}");
    daemon.kill();
    let spec = r#"{"mounts": [{"mountpoint": "/blocks", "path": "blocks", "prefix": "flatfs.datastore",
        "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2", "sync": true, "type": "flatfs"},
        {"compression": "none", "mountpoint": "/", "path": "datastore", "prefix": "leveldb.datastore", "type": "levelds"}],
        "type": "mount"}"#;
    daemon.set("Datastore.Spec", spec);
    daemon.restart().await;
    Ipfs::connect(durable, index).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_put_by_its_content_identifier() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut config = Config::new(&daemon.address()).unwrap();
    config.timeout = Duration::from_secs(3);
    let storage = Storage::typed(Ipfs::connect(config, support::index(dir.path()).await.unwrap()).await.unwrap());
    let text: String = (0..400_000).map(|n| format!("{n} ")).collect();
    // As others add it: other chunks, no raw leaves, a tree of another shape, names of version 0.
    for how in [
        "cid-version=1&chunker=size-10000",
        "cid-version=1&chunker=rabin&raw-leaves=false",
        "cid-version=1&trickle=true",
        "cid-version=0&raw-leaves=false",
    ] {
        let cid = daemon.add(&text, &format!("{how}&pin=false")).await;
        let options = PutOptions::new().source(format!("/ipfs/{cid}"));
        let entry = storage.put_with("k", Body::default(), options).await.unwrap();
        assert_eq!(entry.size, text.len() as u64, "{how}");
        assert!(daemon.keeps(&cid).await, "{how}");
        daemon.collect().await;
        assert_eq!(storage.get("k").await.unwrap().unwrap(), text, "{how}");
        let range = GetOptions::new().range(ByteRange::Bounded(1_000_000, 1_000_100));
        assert_eq!(storage.get_with("k", range).await.unwrap().unwrap(), text[1_000_000..1_000_100], "{how}");
    }
    let unknown = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let directory = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
    for (source, kind) in
        [("nonsense", ErrorKind::InvalidInput), (directory, ErrorKind::InvalidInput), (unknown, ErrorKind::NotFound)]
    {
        let begun = Instant::now();
        let put = storage.put_with("k", Body::default(), PutOptions::new().source(source)).await;
        let e = put.unwrap_err();
        assert_eq!(e.kind(), kind, "{source}: {e:?}");
        assert!(begun.elapsed() < Duration::from_secs(6), "it must not hang");
    }
    assert_eq!(storage.get("k").await.unwrap().unwrap(), text);
}

/// A block in the middle that is not there any more: the node begins its answer well.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_has_lost_is_told() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let index = support::index(dir.path()).await.unwrap();
    let mut config = Config::new(&daemon.address()).unwrap();
    let verified = Storage::new(Ipfs::connect(config.clone(), index.clone()).await.unwrap());
    config.verify = false;
    let other = Storage::new(Ipfs::connect(config, index).await.unwrap());
    let value: Vec<u8> = (0..5 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let entry = verified.put("k", value.clone()).await.unwrap();
    let root = entry.attributes.get("cid").unwrap();
    let refs = daemon.post("refs", &format!("arg={root}")).await.unwrap();
    let leaves: Vec<&str> = refs.split('"').filter(|text| text.starts_with("baf")).collect();
    assert_eq!(leaves.len(), 5, "{refs}");
    for (pin, _) in daemon.ours().await {
        daemon.post("pin/rm", &format!("arg={pin}")).await.unwrap();
    }
    daemon.post("block/rm", &format!("arg={}", leaves[3])).await.unwrap();
    for storage in [&verified, &other] {
        let whole = storage.get("k");
        let e = whole.await.map(|read| read.map(|read| read.len())).unwrap_err();
        assert!(e.kind() == ErrorKind::Corrupt || e.is_retryable(), "{e:?}");
    }
    // What is there can be read, block by block; the node itself reads ahead, and refuses.
    let range = GetOptions::new().range(ByteRange::Bounded(100, 200));
    assert_eq!(verified.get_with("k", range).await.unwrap().unwrap(), value[100..200]);
    // Put again, it is whole again, once the index does not believe in its pin any more.
    verified.delete("k").await.unwrap();
    for _ in 0..100 {
        if verified.put("k", value.clone()).await.is_ok() && verified.get("k").await.is_ok_and(|read| read.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        verified.delete("k").await.unwrap();
    }
    assert_eq!(verified.get("k").await.unwrap().unwrap(), value);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_read_and_not_trusted() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let index = support::index(dir.path()).await.unwrap();
    let writer = Config::new(&daemon.address()).unwrap();
    let writer = Storage::new(Ipfs::connect(writer, index.clone()).await.unwrap());
    let values = [b"small".to_vec(), vec![7; 3 << 20]];
    for (n, value) in values.iter().enumerate() {
        writer.put(n.to_string(), value.clone()).await.unwrap();
    }
    let proxy = Proxy::start(daemon.gateway().await.trim_start_matches("http://").to_owned()).await;
    let mut config = Config::default();
    config.gateway = Some(proxy.address());
    let reader = Storage::new(Ipfs::connect(config, index).await.unwrap());
    for (n, value) in values.iter().enumerate() {
        assert_eq!(reader.get(n.to_string()).await.unwrap().unwrap(), value);
        for lie in Lie::ALL {
            proxy.lie(Some(lie));
            let e = reader.get(n.to_string()).await.map(|read| read.map(|read| read.len())).unwrap_err();
            assert!(e.kind() == ErrorKind::Corrupt || e.is_retryable(), "{lie:?}: {e:?}");
        }
        proxy.honest();
    }
    for refused in [
        reader.put("k", "v").await.map(drop),
        reader.delete("0").await,
        reader.copy("0", "1").await.map(drop),
        reader.rename("0", "1").await.map(drop),
        reader.clear().await,
        reader.begin().await.map(drop),
        reader.put_batch([("k", "v")]).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(reader.get("0").await.unwrap().unwrap(), "small");
    assert!(Key::parse("0").is_ok());
}
