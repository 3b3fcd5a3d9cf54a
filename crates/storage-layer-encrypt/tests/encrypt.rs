//! What the suite cannot see from above: what lies below, and what happens when somebody changes it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chunked;

use chunked::Chunked;
use futures_util::{FutureExt, StreamExt, stream};
use storage_config::DataKey;
use storage_conformance::{Faults, Recorder};
use storage_core::{
    Body, Bytes, Comparison, Condition, CopyOptions, Entry, ErrorKind, GetOptions, ListOptions, Metadata, PutOptions,
    Query, Result, Storage,
};
use storage_layer_encrypt::{Algorithm, EncryptLayer, StaticKeys};
use storage_memory::Memory;

const CHUNK: usize = 64 * 1024;

fn keys(id: &str, byte: u8) -> StaticKeys {
    StaticKeys::new(id, &DataKey::new([byte; 32])).unwrap()
}

fn stack(below: &Storage, keys: StaticKeys) -> Storage {
    below.clone().layer(EncryptLayer::new(keys))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

async fn kind_of(storage: &Storage, key: &str) -> Option<ErrorKind> {
    storage.get(key).await.err().map(|e| e.kind())
}

#[tokio::test]
async fn nothing_plain_lies_below_and_equal_values_look_different() -> Result<()> {
    let below = Storage::new(Memory::new());
    let above = stack(&below, keys("k", 1));
    let plain = "a secret that must not be found".repeat(50);
    above.put("a", plain.clone()).await?;
    above.put("b", plain.clone()).await?;
    let (a, b) = (below.get("a").await?.unwrap(), below.get("b").await?.unwrap());
    assert!(!a.windows(8).any(|w| w == &plain.as_bytes()[..8]));
    assert_ne!(a, b);
    let entry = above.stat("a").await?.unwrap();
    assert_eq!(entry.size, plain.len() as u64);
    assert_eq!(entry.stored_size, Some(a.len() as u64));
    Ok(())
}

#[tokio::test]
async fn a_range_that_begins_in_the_first_chunk_costs_one_read() -> Result<()> {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let above = Storage::new(recorder).layer(EncryptLayer::new(keys("k", 1)));
    above.put("a", pattern(4 * CHUNK)).await?;
    assert_eq!(log.take(), ["put"]);
    for (start, end, reads) in [(0, 0, 1), (0, 10, 1), (CHUNK - 1, 3 * CHUNK, 1), (CHUNK, CHUNK + 1, 2)] {
        let range = GetOptions::new().range(start as u64..end as u64);
        assert_eq!(above.get_with("a", range).await?.unwrap(), pattern(4 * CHUNK)[start..end]);
        assert_eq!(log.take(), vec!["get"; reads], "{start}..{end}");
    }
    Ok(())
}

#[tokio::test]
async fn sealed_metadata_is_hidden_below_and_the_same_above() -> Result<()> {
    let below = Storage::new(Memory::new());
    let above = below.clone().layer(EncryptLayer::new(keys("k", 1)).encrypt_metadata(true));
    let secret = |n| Metadata::new().content_type("text/secret").field("secret", n).tag("secret");
    for n in 0..3 {
        above.put_with(format!("{n}"), "v", PutOptions::new().metadata(secret(n))).await?;
    }
    // What was written with the option is read without it.
    let without = stack(&below, keys("k", 1));
    assert_eq!(without.stat("1").await?.unwrap().metadata, above.stat("1").await?.unwrap().metadata);
    let stored = below.list_with(ListOptions::new().prefix("0").metadata(true)).await?;
    assert!(!format!("{:?}", stored.collect::<Vec<_>>().await).contains("secret"));
    let found = above.query(Query::new().field("secret", Comparison::GreaterOrEqual, 2).all_tags(["secret"])).await?;
    let found: Vec<_> = found.map(|entry| entry.unwrap().key.to_string()).collect().await;
    assert_eq!(found, ["2"]);
    assert_eq!(*above.stat("1").await?.unwrap().metadata.unwrap(), secret(1));
    Ok(())
}

#[tokio::test]
async fn key_ids_that_leave_no_room_in_the_metadata_are_refused() {
    let above = Storage::new(Memory::new()).layer(EncryptLayer::new(keys(&"x".repeat(23), 1)).encrypt_metadata(true));
    let error = above.put("a", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("Keyring"), "{error}");
}

#[tokio::test]
async fn foreign_data_is_listed_and_reading_it_is_an_error_that_loses_nothing() -> Result<()> {
    let below = Storage::new(Memory::new());
    let above = stack(&below, keys("k", 1));
    below.put("plain", pattern(1000)).await?;
    below.put("short", pattern(271)).await?;
    let listed: Vec<_> = above.list("").await?.map(Result::unwrap).collect().await;
    let sizes: Vec<_> = listed.iter().map(|entry| (entry.key.as_str(), entry.size, entry.stored_size)).collect();
    assert_eq!(sizes, [("plain", 728, Some(1000)), ("short", 271, None)], "as the README says");
    assert_eq!(kind_of(&above, "plain").await, Some(ErrorKind::Corrupt));
    let range = above.get_with("plain", GetOptions::new().range(1..5)).await;
    assert_eq!(range.unwrap_err().kind(), ErrorKind::Corrupt);
    let entry = above.stat("plain").await?.unwrap();
    assert!(entry.size == 728 && entry.metadata.unwrap().is_empty());
    assert_eq!(below.get("plain").await?.unwrap(), pattern(1000));
    Ok(())
}

#[tokio::test]
async fn keys_rotate_and_a_missing_or_wrong_one_is_a_clear_error() -> Result<()> {
    let below = Storage::new(Memory::new());
    stack(&below, keys("old", 1)).put("a", "1").await?;
    let rotated = keys("new", 2).with_older("old", &DataKey::new([1; 32]))?;
    let above = stack(&below, rotated);
    above.put("b", "2").await?;
    assert_eq!(above.get("a").await?.as_deref(), Some(&b"1"[..]));
    let only_new = stack(&below, keys("new", 2));
    assert_eq!(only_new.get("b").await?.as_deref(), Some(&b"2"[..]));
    let error = only_new.get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("\"old\""), "{error}");
    let wrong = stack(&below, keys("old", 9));
    assert_eq!(kind_of(&wrong, "a").await, Some(ErrorKind::Corrupt));
    Ok(())
}

#[tokio::test]
async fn a_value_is_written_again_unless_others_write_it_meanwhile() -> Result<()> {
    let rotated = || keys("new", 2).with_older("old", &DataKey::new([1; 32])).unwrap();
    let unchanged = |entry: Entry| CopyOptions::new().condition(Condition::IfMatch(entry.etag.unwrap()));
    let mut between = 0;
    for seed in 0..20 {
        let memory = Memory::new();
        let below = Storage::new(memory.clone());
        let others = stack(&below, rotated());
        let faults = Faults::new(memory, seed).latency(4).only(["put"]);
        let above = Storage::new(faults).layer(EncryptLayer::new(rotated()));
        let about = Metadata::new().field("n", 1);
        stack(&below, keys("old", 1)).put_with("a", "1", PutOptions::new().metadata(about.clone())).await?;
        above.copy_with("a", "a", unchanged(above.stat("a").await?.unwrap())).await?;
        let only_new = stack(&below, keys("new", 2));
        assert_eq!(only_new.get("a").await?.unwrap(), "1");
        assert_eq!(*only_new.stat("a").await?.unwrap().metadata.unwrap(), about);

        let options = unchanged(above.stat("a").await?.unwrap());
        others.put("a", "2").await?;
        let error = above.copy_with("a", "a", options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
        assert_eq!(above.get("a").await?.unwrap(), "2");

        // Between the read and the write of the copy.
        let mut copy = Box::pin(above.copy_with("a", "a", unchanged(above.stat("a").await?.unwrap())));
        if (&mut copy).now_or_never().is_none() {
            others.put("a", "3").await?;
            between += usize::from(copy.await.is_err_and(|e| e.kind() == ErrorKind::PreconditionFailed));
            assert_eq!(above.get("a").await?.unwrap(), "3");
        }
    }
    assert!(between > 5, "{between}");
    Ok(())
}

#[tokio::test]
async fn streams_and_ranges_are_parts_of_the_whole_whatever_the_pieces() -> Result<()> {
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
        for len in [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 5] {
            let layer = EncryptLayer::new(keys("k", 1)).algorithm(algorithm);
            let above = Storage::new(Memory::new()).layer(Chunked(777)).layer(layer);
            let plain = Bytes::from(pattern(len));
            let pieces: Vec<_> = plain.chunks(901).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
            above.put("streamed", Body::stream(stream::iter(pieces))).await?;
            above.put("whole", plain.clone()).await?;
            for key in ["streamed", "whole"] {
                assert_eq!(above.get(key).await?.unwrap(), plain);
                assert_eq!(above.stat(key).await?.unwrap().size, len as u64);
                for start in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK] {
                    for end in [start, start + 1, start + CHUNK, usize::MAX / 2] {
                        if start > len {
                            continue;
                        }
                        let range = GetOptions::new().range(start as u64..end as u64);
                        let part = above.get_with(key, range).await?.unwrap();
                        assert_eq!(part, plain[start..len.min(end)], "{len} {start}..{end}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_range_reads_the_header_and_its_own_chunks_only() -> Result<()> {
    let below = Storage::new(Memory::new());
    let above = stack(&below, keys("k", 1));
    above.put("a", pattern(4 * CHUNK)).await?;
    let mut stored = below.get("a").await?.unwrap().to_vec();
    // Whatever happened to the other chunks is not noticed, because they are not read.
    stored[256] ^= 1;
    stored[256 + 2 * (CHUNK + 16)] ^= 1;
    below.put("a", stored).await?;
    let range = GetOptions::new().range(CHUNK as u64 + 10..CHUNK as u64 + 20);
    let part = above.get_with("a", range).await?.unwrap();
    assert_eq!(part, pattern(4 * CHUNK)[CHUNK + 10..CHUNK + 20]);
    Ok(())
}

#[test]
fn debug_shows_no_key() {
    let layer = EncryptLayer::new(keys("id-1", 0xab));
    let shown = format!("{layer:?} {:?}", Storage::new(Memory::new()).layer(layer.clone()));
    assert!(shown.contains("id-1"));
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
}

#[test]
fn unusable_key_ids_are_refused() {
    for id in ["", &"x".repeat(65)] {
        let error = StaticKeys::new(id, &DataKey::new([1; 32])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    let twice = keys("a", 1).with_older("a", &DataKey::new([2; 32]));
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::Config);
}
