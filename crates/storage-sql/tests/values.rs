//! Large values: what is read, what is staged and what is left behind.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{Body, Bytes, CopyOptions, ErrorKind, GetOptions, Metadata, Storage};
use storage_sql::Sql;
use support::{Place, kind};

const CHUNK: usize = 1024;

async fn small_chunks(place: &Place) -> Storage {
    let mut config = place.config();
    config.chunk_size = CHUNK;
    place.connect(config).await
}

fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..len).map(|_| random.u8(..)).collect()
}

/// Waits until nothing is staged any more.
async fn nothing_staged(place: &Place) {
    for _ in 0..200 {
        if place.count("SELECT count(*) FROM storage_uploads WHERE entry IS NULL AND past IS NULL").await == 0 {
            assert_eq!(place.count("SELECT count(*) FROM storage_chunks c WHERE NOT EXISTS (SELECT 1 FROM storage_uploads u WHERE u.upload = c.upload)").await, 0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("something stays staged");
}

#[tokio::test]
async fn a_range_reads_only_its_chunks() {
    for place in Place::all() {
        let (storage, value) = (small_chunks(&place).await, noise(10 * CHUNK + 5));
        storage.put("k", value.clone()).await.unwrap();
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 11);
        // Whatever touches another chunk than 3 and 4 fails from now on.
        place.raw("DELETE FROM storage_chunks WHERE idx NOT IN (3, 4)").await;
        let range = 3 * CHUNK as u64 + 10..5 * CHUNK as u64;
        for whole in [false, true] {
            let object = storage
                .open("k", GetOptions::new().range(range.clone()).prefer_buffered(whole))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(object.entry.size, value.len() as u64);
            let read = object.body.bytes(u64::MAX).await.unwrap();
            assert_eq!(read, value[range.start as usize..range.end as usize]);
        }
        assert_eq!(kind(storage.get("k").await), ErrorKind::Corrupt);
        assert_eq!(kind(storage.get_with("k", GetOptions::new().range(0..10)).await), ErrorKind::Corrupt);
        assert_eq!(kind(storage.copy("k", "copy").await), ErrorKind::Corrupt);
        // Without the upload too.
        place.raw("DELETE FROM storage_uploads").await;
        assert_eq!(kind(storage.get("k").await), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn sizes_around_a_chunk() {
    for place in Place::all() {
        let storage = small_chunks(&place).await;
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 3000 * CHUNK] {
            let value = noise(len);
            for piece in [1000, 1024, 5000] {
                let pieces: Vec<_> = value.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                let entry = storage.put("k", Body::stream(stream::iter(pieces))).await.unwrap();
                assert_eq!(entry.size, len as u64);
                assert_eq!(storage.get("k").await.unwrap().unwrap(), value);
            }
            let chunks = place.count("SELECT count(*) FROM storage_chunks").await;
            assert_eq!(chunks, if len > CHUNK { len.div_ceil(CHUNK) as i64 } else { 0 });
        }
        storage.clear().await.unwrap();
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 0);
        nothing_staged(&place).await;
    }
}

#[tokio::test]
async fn a_stream_ends_in_conflict_when_its_value_is_replaced() {
    for place in Place::all() {
        let storage = small_chunks(&place).await;
        storage.put("k", noise(5 * CHUNK)).await.unwrap();
        let object = storage.open("k", GetOptions::new()).await.unwrap().unwrap();
        let mut body = object.body.into_stream();
        body.next().await.unwrap().unwrap();
        storage.put("k", noise(7 * CHUNK)).await.unwrap();
        assert_eq!(kind(body.next().await.unwrap()), ErrorKind::Conflict);
        assert!(body.next().await.is_none());
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 7);

        // A rename moves no bytes, so a reader of the old name goes on.
        let object = storage.open("k", GetOptions::new()).await.unwrap().unwrap();
        let mut body = object.body.into_stream();
        let first = body.next().await.unwrap().unwrap();
        storage.rename("k", "moved").await.unwrap();
        let rest: Vec<Bytes> = body.try_collect().await.unwrap();
        assert_eq!([vec![first], rest].concat().concat(), noise(7 * CHUNK));
    }
}

#[tokio::test]
async fn interrupted_writes_leave_nothing() {
    for place in Place::all() {
        let storage = small_chunks(&place).await;
        let begun = || stream::iter((0..5000).map(|_| Ok(Bytes::from(noise(CHUNK)))));
        let broken = storage_core::Error::new(ErrorKind::Other, "broken");
        let failing = Body::stream(begun().chain(stream::iter([Err(broken)])));
        assert_eq!(kind(storage.put("k", failing).await), ErrorKind::Other);
        nothing_staged(&place).await;
        let short = Body::with_len(6000 * CHUNK as u64, begun());
        assert_eq!(kind(storage.put("k", short).await), ErrorKind::InvalidInput);
        nothing_staged(&place).await;
        let pending = storage.put("k", Body::stream(begun().chain(stream::pending())));
        assert!(tokio::time::timeout(Duration::from_millis(500), pending).await.is_err());
        nothing_staged(&place).await;
        assert!(!storage.has("k").await.unwrap());
    }
}

#[tokio::test]
async fn what_a_killed_process_staged_is_swept_by_age() {
    for place in Place::all() {
        drop(small_chunks(&place).await);
        let mut uploads = Vec::new();
        for touched in [0_i64, 1 << 53] {
            place.raw(&format!("INSERT INTO storage_uploads (touched_at) VALUES ({touched})")).await;
            let upload = place.count("SELECT max(upload) FROM storage_uploads").await;
            place.raw(&format!("INSERT INTO storage_chunks VALUES ({upload}, 0, '')")).await;
            uploads.push(upload);
        }
        drop(place.open().await);
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 1, "{:?}", place.engine);
        assert_eq!(place.count("SELECT max(upload) FROM storage_chunks").await, uploads[1]);
    }
}

#[tokio::test]
async fn a_live_writer_that_is_too_slow_notices_that_it_was_swept() {
    let place = Place::new();
    let mut config = place.config();
    (config.chunk_size, config.sweep_after) = (CHUNK, Duration::ZERO);
    let slow = place.connect(config.clone()).await;
    let other = config.clone();
    let pieces = stream::iter(0..6).then(move |i| {
        let other = other.clone();
        async move {
            if i == 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Sql::connect(other).await.unwrap();
            }
            Ok(Bytes::from(noise(2 << 20)))
        }
    });
    assert_eq!(kind(slow.put("k", Body::stream(pieces)).await), ErrorKind::Conflict);
    assert!(!slow.has("k").await.unwrap());
    nothing_staged(&place).await;
}

#[tokio::test]
async fn copies_share_nothing() {
    for place in Place::all() {
        let (storage, value) = (small_chunks(&place).await, noise(4000 * CHUNK + 1));
        let metadata = Metadata::new().tag("t").field("f", 1.5);
        let options = storage_core::PutOptions::new().metadata(metadata.clone());
        storage.put_with("from", value.clone(), options).await.unwrap();
        let copied = storage.copy("from", "to").await.unwrap();
        assert_eq!(copied.metadata.as_deref(), Some(&metadata));
        let own = Metadata::new().tag("own");
        storage.copy_with("from", "from", CopyOptions::new().metadata(own.clone())).await.unwrap();
        assert_eq!(storage.get("from").await.unwrap().unwrap(), value);
        storage.delete("from").await.unwrap();
        assert_eq!(storage.get("to").await.unwrap().unwrap(), value);
        storage.rename("to", "moved").await.unwrap();
        assert_eq!(storage.get("moved").await.unwrap().unwrap(), value);
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 4001);
        assert_eq!(place.count("SELECT count(*) FROM storage_tags").await, 1);
        nothing_staged(&place).await;
    }
}

#[tokio::test]
async fn another_chunk_size_reads_what_was_there() {
    for place in Place::all() {
        let value = noise(5 * CHUNK + 3);
        small_chunks(&place).await.put("k", value.clone()).await.unwrap();
        let storage = place.open().await;
        assert_eq!(storage.get("k").await.unwrap().unwrap(), value);
        storage.copy("k", "copy").await.unwrap();
        assert_eq!(storage.get("copy").await.unwrap().unwrap(), value);
    }
}

#[tokio::test]
async fn large_values_in_a_transaction() {
    for place in Place::all() {
        let (storage, value) = (small_chunks(&place).await, noise(3000 * CHUNK));
        let tx = storage.begin().await.unwrap();
        tx.put("k", value.clone()).await.unwrap();
        assert_eq!(tx.get("k").await.unwrap().unwrap(), value);
        tx.copy("k", "copy").await.unwrap();
        let open = tx.open("copy", GetOptions::new()).await.unwrap().unwrap();
        let mut body = open.body.into_stream();
        body.next().await.unwrap().unwrap();
        drop(tx);
        assert_eq!(kind(body.next().await.unwrap()), ErrorKind::Closed);
        assert!(!storage.has("k").await.unwrap());
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 0);
    }
}

/// Any size of chunks can be written and read, also one that a statement takes alone.
#[tokio::test]
async fn large_chunks() {
    for place in Place::all() {
        let mut config = place.config();
        config.chunk_size = 6 << 20;
        let storage = place.connect(config).await;
        let value = noise((19 << 20) + 1);
        storage.put("k", value.clone()).await.unwrap();
        assert!(storage.get("k").await.unwrap().unwrap() == value);
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 4);
    }
}

/// A batch of large values and much metadata is cut into statements that a server takes.
#[tokio::test]
async fn large_batches() {
    for place in Place::all() {
        let storage = place.open().await;
        let text = "x".repeat(60_000);
        let items = (0..100).map(|i| {
            let metadata = Metadata::new().field("f", text.clone()).tag(i.to_string());
            (format!("{i:03}"), vec![b'v'; 200_000], storage_core::PutOptions::new().metadata(metadata))
        });
        let written = storage.put_batch_with(items, storage_core::BatchOptions::new().atomic(true)).await.unwrap();
        assert!(written.iter().all(Result::is_ok));
        let found = storage.query_page(storage_core::Query::new().equals("f", text.clone()).limit(1000)).await.unwrap();
        assert_eq!(found.entries.len(), 100);
    }
}

#[tokio::test]
async fn older_versions_keep_their_chunks_until_they_are_forgotten() {
    for place in Place::all() {
        let mut config = place.config();
        (config.chunk_size, config.versions) = (CHUNK, std::num::NonZeroU32::new(3));
        let storage = place.connect(config).await;
        for len in [5, 6, 7, 8, 9] {
            storage.put("k", noise(len * CHUNK)).await.unwrap();
        }
        let versions = || async { storage.versions("k").await.unwrap().try_collect::<Vec<_>>().await.unwrap() };
        let kept = versions().await;
        assert_eq!(kept.iter().map(|entry| entry.size as usize / CHUNK).collect::<Vec<_>>(), [9, 8, 7]);
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 24);
        storage.delete("k").await.unwrap();
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 24);
        let oldest = GetOptions::new().version(kept[2].version.clone().unwrap());
        assert_eq!(storage.get_with("k", oldest).await.unwrap().unwrap(), noise(7 * CHUNK));
        storage.put("k", "small").await.unwrap();
        assert_eq!(versions().await.len(), 3);
        storage.clear().await.unwrap();
        for entry in versions().await {
            let version = storage_core::DeleteOptions::new().version(entry.version.unwrap());
            storage.delete_with("k", version).await.unwrap();
        }
        assert_eq!(place.count("SELECT count(*) FROM storage_chunks").await, 0);
        assert_eq!(place.count("SELECT count(*) FROM storage_past").await, 0);
    }
}

#[tokio::test]
async fn with_one_version_a_deleted_key_keeps_none() {
    for place in Place::all() {
        let mut config = place.config();
        (config.versions, config.chunk_size) = (std::num::NonZeroU32::new(1), CHUNK);
        let storage = place.connect(config).await;
        for key in ["deleted", "cleared", "moved"] {
            storage.put(key, "older").await.unwrap();
            storage.put(key, noise(3 * CHUNK)).await.unwrap();
        }
        storage.delete("deleted").await.unwrap();
        storage.clear_prefix("cleared").await.unwrap();
        storage.rename("moved", "target").await.unwrap();
        for key in ["deleted", "cleared", "moved"] {
            let versions: Vec<_> = storage.versions(key).await.unwrap().try_collect().await.unwrap();
            assert_eq!(versions, [], "{key}");
        }
        nothing_staged(&place).await;
        assert_eq!(storage.get("target").await.unwrap().unwrap(), noise(3 * CHUNK));
    }
}
