//! How many requests each operation costs, counted by a proxy before the server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use storage_core::{Buffer, Bytes, Condition, Filter, GetOptions, ListOptions, Metadata, PutOptions, Query};
use tokio::net::{TcpListener, TcpStream};

use crate::bucket::{Bucket, Server};

#[tokio::test]
async fn operations_cost_what_the_readme_says() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let keys = |n: usize| (0..n).map(|i| format!("batch/{i:04}")).collect::<Vec<_>>();
        let items = |n: usize| keys(n).into_iter().map(|key| (key, "v")).collect::<Vec<_>>();
        storage.put_batch(items(1500)).await.unwrap();
        let described = PutOptions::new().metadata(Metadata::new().tag("t").field("n", 1));
        let etag = storage.put_with("k", "v", described).await.unwrap().etag.unwrap();
        macro_rules! costs {
            ($what:literal, $expected:expr, $operation:expr) => {{
                let before = bucket.proxy.requests();
                let _ = $operation.await.unwrap();
                assert_eq!(bucket.proxy.requests() - before, $expected, "{} on {server:?}", $what);
            }};
        }
        let all = |options| async { storage.list_with(options).await?.try_collect::<Vec<_>>().await };
        costs!("get", 1, storage.get("k"));
        costs!("get of a part", 1, storage.get_with("k", GetOptions::new().range(0..1)));
        costs!("get of nothing", 1, storage.get("nothing"));
        costs!("stat", 1, storage.stat("k"));
        costs!("put", 1, storage.put("put", "v"));
        let absent = || PutOptions::new().condition(Condition::IfAbsent);
        costs!("create", 1, storage.put_with("new", "v", absent()));
        let update = PutOptions::new().condition(Condition::IfMatch(etag));
        costs!("update", 1, storage.put_with("k", "w", update));
        // Ceph's answer to the end of an upload names no etag, so it is asked for it.
        let asked = u64::from(server == Server("STORAGE_TEST_CEPH"));
        costs!("put of 3 parts", 5 + asked, storage.put("large", vec![7; 12 << 20]));
        costs!("delete", 1, storage.delete("new"));
        costs!("copy", 2, storage.copy("k", "copy"));
        costs!("listing of 2 pages", 2, all(ListOptions::new()));
        costs!("listing of 2 pages with a prefix", 3, all(ListOptions::new().prefix("batch/")));
        costs!("one level", 2, all(ListOptions::new().delimited(true)));
        costs!("10 entries with metadata", 12, all(ListOptions::new().prefix("batch/000").metadata(true)));
        costs!("batch of 1,000 deletes", 1, storage.delete_batch(keys(1000)));
        costs!("batch that names 600 keys twice", 1, storage.delete_batch([keys(600), keys(600)].concat()));
        costs!("clear of 500", 3, storage.clear_prefix("batch/"));
    }
}

/// The bytes that pass between a client and the server, both ways together.
async fn meter(server: String) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = bytes.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (server, counted) = (server.clone(), counted.clone());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                let (up, down) = tokio::io::copy_bidirectional(&mut client, &mut server).await?;
                counted.fetch_add(up + down, Ordering::AcqRel);
                io::Result::Ok(())
            });
        }
    });
    (address, bytes)
}

/// Whether `STORAGE_TEST_LONG` asks for the sizes that CI has no time for.
fn is_long() -> bool {
    std::env::var_os("STORAGE_TEST_LONG").is_some()
}

/// 64 MiB, long 1 GiB: the server copies them, and what passes the client is a few kilobytes.
#[tokio::test]
async fn a_rename_moves_no_bytes_through_the_client() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let size = if is_long() { 1 << 30 } else { 64 << 20 };
        let value: Buffer = vec![Bytes::from(vec![7; 1 << 20]); size >> 20].into_iter().collect();
        let metadata = Metadata::new().tag("t");
        storage.put_with("from", value, PutOptions::new().metadata(metadata.clone())).await.unwrap();
        let (address, bytes) = meter(server.host()).await;
        let mut config = server.config(&bucket.name);
        config.endpoint = Some(format!("http://{address}"));
        let metered = storage_core::Storage::typed(storage_s3::connect(config).await.unwrap());
        let written = metered.rename("from", "to").await.unwrap();
        assert_eq!(written.size, size as u64);
        // What a connection has carried is counted when it ends.
        metered.disconnect().await.unwrap();
        drop(metered);
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if bytes.load(Ordering::Acquire) > 0 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let carried = bytes.load(Ordering::Acquire);
        assert!((1..1 << 20).contains(&carried), "{carried} bytes on {server:?}");
        assert_eq!(storage.stat("from").await.unwrap(), None);
        let stat = storage.stat("to").await.unwrap().unwrap();
        assert_eq!((stat.size, stat.metadata.as_deref()), (size as u64, Some(&metadata)));
        let mut left = size;
        let mut pieces = storage.open("to", GetOptions::new()).await.unwrap().unwrap().body.into_stream();
        while let Some(piece) = pieces.try_next().await.unwrap() {
            assert!(piece.iter().all(|byte| *byte == 7));
            left -= piece.len();
        }
        assert_eq!(left, 0);
    }
}

/// 2,000 objects, long 100,000, of which 5 are younger than the date that is asked for: a page for each thousand and one for the annex, and
/// 5 looks.
#[tokio::test]
async fn a_query_by_date_looks_at_the_survivors_alone() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let objects = if is_long() { 100_000 } else { 2_000 };
        storage.put_batch((5..objects).map(|i| (format!("o/{i:06}"), "v"))).await.unwrap();
        let listed: Vec<_> = storage.list("o/").await.unwrap().try_collect().await.unwrap();
        let last = listed.into_iter().filter_map(|entry| entry.modified).max().unwrap();
        // The store's time has steps of a second.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let young = PutOptions::new().metadata(Metadata::new().field("n", 1));
        for i in 0..5 {
            storage.put_with(format!("o/y{i}"), "v", young.clone()).await.unwrap();
        }
        let before = bucket.proxy.requests();
        let query = Query::new().prefix("o/").filter(Filter::ModifiedAfter(last));
        let found: Vec<_> = storage.query(query).await.unwrap().try_collect().await.unwrap();
        assert_eq!(bucket.proxy.requests() - before, objects / 1000 + 1 + 5, "on {server:?}");
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|entry| entry.metadata.as_deref() == Some(&Metadata::new().field("n", 1))));
    }
}
