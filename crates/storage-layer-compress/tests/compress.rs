//! What lies below, what comes back, and what happens when somebody changes it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    BatchOptions, Body, Bytes, Condition, CopyOptions, Entry, Error, ErrorKind, Filter, GetOptions, ListOptions,
    Metadata, OrderBy, PutOptions, Query, Result, Storage, StorageBackend,
};
use storage_layer_compress::{Algorithm, CompressLayer, Compressed, Foreign};
use storage_memory::Memory;
use tokio::sync::Notify;

const BLOCK: usize = 256 * 1024;

fn over<B: StorageBackend>(backend: B, layer: CompressLayer) -> Storage<Compressed<B>> {
    Storage::new(Compressed::new(Arc::new(backend), layer).unwrap())
}

fn zstd() -> CompressLayer {
    CompressLayer::new(Algorithm::Zstd)
}

fn gzip() -> CompressLayer {
    CompressLayer::new(Algorithm::Gzip)
}

/// Text that compresses well, never the same in two places.
fn text(len: usize) -> Bytes {
    let mut text = String::with_capacity(len + 40);
    for line in 0.. {
        if text.len() >= len {
            break;
        }
        text += &format!("line {line}: nothing new in the north\n");
    }
    text.truncate(len);
    text.into()
}

/// Bytes that do not compress.
fn noise(len: usize) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut noise = vec![0; len];
    rng.fill(&mut noise);
    noise.into()
}

/// A stream of uneven pieces that does not say how long it is.
fn undeclared(value: &Bytes) -> Body {
    let pieces: Vec<_> = value.chunks(100_001).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Body::stream(stream::iter(pieces))
}

fn declared(value: &Bytes) -> Body {
    let pieces: Vec<_> = value.chunks(77_777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Body::sized(value.len() as u64, stream::iter(pieces))
}

async fn kind_of<B: StorageBackend>(storage: &Storage<B>, key: &str) -> Option<ErrorKind> {
    storage.get(key).await.err().map(|e| e.kind())
}

#[tokio::test]
async fn text_becomes_smaller_and_noise_is_left_alone() -> Result<()> {
    for layer in [zstd(), gzip(), zstd().level(19)?, gzip().level(1)?] {
        let memory = Memory::new();
        let (above, below) = (over(memory.clone(), layer), Storage::new(memory));
        let entry = above.put("text", text(1 << 20)).await?;
        let stored = below.get("text").await?.unwrap();
        assert_eq!((entry.size, entry.stored_size), (1 << 20, Some(stored.len() as u64)));
        assert!(stored.len() < (1 << 20) / 4, "{layer:?}: {}", stored.len());
        let value = noise(1 << 20);
        above.put("noise", value.clone()).await?;
        let stored = below.get("noise").await?.unwrap();
        assert_eq!(stored.len(), (1 << 20) + 32 + 4 * 8);
        assert_eq!(stored[20..20 + BLOCK], value[..BLOCK], "the first block lies there as it is");
        assert_eq!(above.get("noise").await?.unwrap(), value);
    }
    Ok(())
}

#[tokio::test]
async fn whatever_goes_in_comes_out_whole_in_pieces_and_in_ranges() -> Result<()> {
    let mut mixed = text(2 * BLOCK).to_vec();
    mixed.extend_from_slice(&noise(BLOCK + 5));
    for layer in [zstd(), gzip()] {
        let above = over(Memory::new(), layer);
        for value in [
            Bytes::new(),
            text(1),
            text(8191),
            text(8193),
            text(BLOCK - 1),
            text(BLOCK),
            text(BLOCK + 1),
            noise(3 * BLOCK),
            mixed.clone().into(),
            // More than a mebibyte of stored bytes, so that a stream stays a stream.
            noise(5 * BLOCK + 77),
        ] {
            let len = value.len();
            let bodies =
                [("whole", value.clone().into()), ("declared", declared(&value)), ("open", undeclared(&value))];
            for (key, body) in bodies {
                let entry = above.put(key, body).await?;
                assert_eq!(entry.size, len as u64);
                let seen = above.stat(key).await?.unwrap();
                assert_eq!((seen.size, &seen.etag), (len as u64, &entry.etag), "{key} {len}");
                assert_eq!(seen.metadata.as_deref(), Some(&Metadata::new()));
                assert!(above.get(key).await?.unwrap() == value, "{key} {len}");
                let object = above.open(key, GetOptions::new()).await?.unwrap();
                assert_eq!((object.entry.size, object.body.len()), (len as u64, Some(len as u64)));
                for start in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, len.saturating_sub(1), len] {
                    for end in [start, start + 1, start + BLOCK, usize::MAX / 2] {
                        if start > len {
                            continue;
                        }
                        let range = GetOptions::new().range(start as u64..end as u64);
                        let part = above.get_with(key, range).await?.unwrap();
                        assert!(part == value[start..len.min(end)], "{key} {len} {start}..{end}");
                    }
                }
                let beyond = above.get_with(key, GetOptions::new().range(len as u64 + 1..)).await;
                assert_eq!(beyond.unwrap_err().kind(), ErrorKind::RangeNotSatisfiable);
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn sizes_are_plain_wherever_they_are_told() -> Result<()> {
    let memory = Memory::new();
    let above = over(memory.clone(), zstd());
    let large = noise(5 * BLOCK);
    above.put("a", text(1000)).await?;
    above.put("b", undeclared(&large)).await?;
    above.put("c", declared(&large)).await?;
    let note = Storage::new(memory).stat("b").await?.unwrap().metadata.unwrap();
    assert_eq!(note.to_json(), r#"{"fields":{"storage.compress":-1}}"#);
    assert_eq!(above.copy("b", "d").await?.size, large.len() as u64);
    assert_eq!(above.rename("d", "e").await?.size, large.len() as u64);
    let written = above.put_batch([("f", undeclared(&large)), ("g", text(10).into())]).await?;
    assert_eq!((written[0].size, written[1].size), (large.len() as u64, 10));
    let sizes = [1000, large.len(), large.len(), large.len(), large.len(), 10].map(|size| size as u64);
    for metadata in [true, false] {
        let items = above.list_with(ListOptions::new().metadata(metadata)).await?;
        let entries: Vec<Entry> = items.map_ok(|item| item.into_entry().unwrap()).try_collect().await?;
        assert_eq!(entries.iter().map(|entry| entry.size).collect::<Vec<_>>(), sizes);
        assert!(entries.iter().all(|entry| entry.metadata.is_some() == metadata && entry.stored_size.is_some()));
    }
    for query in [Query::new(), Query::new().filter(Filter::MinSize(0))] {
        let entries: Vec<Entry> = above.query(query).await?.try_collect().await?;
        assert_eq!(entries.iter().map(|entry| entry.size).collect::<Vec<_>>(), sizes);
    }
    let large_ones = Query::new().filter(Filter::MinSize(large.len() as u64)).descending(OrderBy::Size);
    assert_eq!(above.query(large_ones).await?.try_collect::<Vec<_>>().await?.len(), 4);
    let versions: Vec<Entry> = above.versions("b").await?.try_collect().await?;
    assert_eq!(versions[0].size, large.len() as u64);
    assert_eq!(above.get_batch(["a", "b", "f"]).await?.values().map(Bytes::len).sum::<usize>(), 1000 + 2 * large.len());
    Ok(())
}

#[tokio::test]
async fn a_users_field_of_our_name_stays_his() -> Result<()> {
    let memory = Memory::new();
    let above = over(memory.clone(), zstd());
    let metadata = Metadata::new().field("storage.compress", 7).field("storage.compress'", "x").field("pages", 3);
    above.put_with("a", "v", PutOptions::new().metadata(metadata.clone())).await?;
    assert_eq!(above.stat("a").await?.unwrap().metadata.as_deref(), Some(&metadata));
    above.copy("a", "b").await?;
    assert_eq!(above.stat("b").await?.unwrap().metadata.as_deref(), Some(&metadata));
    let found: Vec<Entry> = above.query(Query::new().equals("storage.compress", 7)).await?.try_collect().await?;
    assert_eq!(found.len(), 2);
    let found: Vec<Entry> = above.query(Query::new().equals("storage.compress", 1)).await?.try_collect().await?;
    assert_eq!(found.len(), 0, "the note is nobody's field");
    let found: Vec<Entry> = above.query(Query::new().equals("pages", 3)).await?.try_collect().await?;
    assert_eq!(found[0].metadata.as_deref(), Some(&metadata));
    let options = CopyOptions::new().metadata(Metadata::new().tag("t"));
    assert_eq!(above.copy_with("a", "c", options).await?.size, 1);
    assert_eq!(above.get("c").await?.as_deref(), Some(&b"v"[..]));
    Ok(())
}

#[tokio::test]
async fn algorithms_lie_side_by_side() -> Result<()> {
    let memory = Memory::new();
    over(memory.clone(), zstd()).put("z", text(BLOCK * 2)).await?;
    over(memory.clone(), gzip()).put("g", text(BLOCK * 2)).await?;
    for layer in [zstd().level(22)?, gzip().level(9)?] {
        let above = over(memory.clone(), layer);
        for key in ["z", "g"] {
            assert!(above.get(key).await?.unwrap() == text(BLOCK * 2));
            let part = above.get_with(key, GetOptions::new().range(BLOCK as u64 - 5..BLOCK as u64 + 5)).await?;
            assert_eq!(part.unwrap(), text(BLOCK * 2)[BLOCK - 5..BLOCK + 5]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn foreign_values_are_an_error_that_loses_nothing_or_pass_as_they_are() -> Result<()> {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    let looks_like_ours = over(Memory::new(), zstd());
    looks_like_ours.put("x", text(50)).await?;
    let looks_like_ours = Storage::from_arc(looks_like_ours.backend().get_ref().clone()).get("x").await?.unwrap();
    for value in [Bytes::new(), text(5), noise(100_000), looks_like_ours] {
        below.put("plain", value.clone()).await?;
        let above = over(memory.clone(), zstd());
        assert_eq!(above.stat("plain").await?.unwrap().size, value.len() as u64);
        assert_eq!(above.list("").await?.collect::<Vec<_>>().await.len(), 1);
        let error = above.get("plain").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("set `foreign` to `pass`"), "{error}");
        let error = above.get_with("plain", GetOptions::new().range(0..1)).await.unwrap_err();
        assert_eq!((error.kind(), error.key().unwrap().as_str()), (ErrorKind::Corrupt, "plain"));
        let error = above.get_batch(["plain"]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(below.get("plain").await?.unwrap(), value);

        let above = over(memory.clone(), zstd().foreign(Foreign::Pass));
        assert_eq!(above.get("plain").await?.unwrap(), value);
        let entry = above.open("plain", GetOptions::new()).await?.unwrap().entry;
        assert_eq!((entry.size, entry.stored_size), (value.len() as u64, None));
        let part = above.get_with("plain", GetOptions::new().range(0..3)).await?.unwrap();
        assert_eq!(part, value[..value.len().min(3)]);
        above.copy("plain", "copy").await?;
        assert_eq!(above.get("copy").await?.unwrap(), value);
        above.put("plain", value.clone()).await?;
        assert_eq!(above.get("plain").await?.unwrap(), value);
        assert_ne!(below.get("plain").await?.unwrap(), value, "what is written through the layer is in its form");
        below.delete("copy").await?;
    }
    Ok(())
}

/// Puts changed bytes below, with the metadata that was there.
async fn forge(below: &Storage<Memory>, key: &str, bytes: Vec<u8>) {
    let metadata = below.stat(key).await.unwrap().unwrap().metadata.unwrap();
    below.put_with(key, bytes, PutOptions::new().metadata(metadata)).await.unwrap();
}

#[tokio::test]
async fn damage_is_corrupt_and_never_another_value() -> Result<()> {
    for (layer, value) in [(zstd(), text(3000)), (gzip(), text(3000)), (zstd(), Bytes::new())] {
        let memory = Memory::new();
        let (above, below) = (over(memory.clone(), layer), Storage::new(memory));
        above.put("a", value.clone()).await?;
        let stored = below.get("a").await?.unwrap();
        for end in 0..stored.len() {
            forge(&below, "a", stored[..end].to_vec()).await;
            assert_eq!(kind_of(&above, "a").await, Some(ErrorKind::Corrupt), "cut at {end}");
            let part = above.get_with("a", GetOptions::new().range(0..10)).await;
            assert_eq!(part.unwrap_err().kind(), ErrorKind::Corrupt, "cut at {end}");
            assert_eq!(above.list("").await?.collect::<Vec<_>>().await.len(), 1, "it is still listed");
        }
        for bit in 0..stored.len() * 8 {
            let mut changed = stored.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            forge(&below, "a", changed).await;
            match above.get("a").await {
                Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "bit {bit}: {e:?}"),
                // The header of a gzip member has a date and flags that change nothing.
                Ok(seen) => assert_eq!(seen.unwrap(), value, "bit {bit} of {layer:?} was not noticed"),
            }
        }
        let mut longer = stored.to_vec();
        longer.push(0);
        forge(&below, "a", longer).await;
        assert_eq!(kind_of(&above, "a").await, Some(ErrorKind::Corrupt));
        forge(&below, "a", stored.to_vec()).await;
        assert_eq!(above.get("a").await?.unwrap(), value);
    }
    Ok(())
}

#[tokio::test]
async fn blocks_cannot_change_places_or_go_missing() -> Result<()> {
    let memory = Memory::new();
    let (above, below) = (over(memory.clone(), zstd()), Storage::new(memory));
    let value = noise(3 * BLOCK);
    above.put("a", value).await?;
    let stored = below.get("a").await?.unwrap();
    let block = |i: usize| &stored[16 + i * (BLOCK + 4)..16 + (i + 1) * (BLOCK + 4)];
    let end = &stored[16 + 3 * (BLOCK + 4)..];
    for order in [&[0, 1][..], &[0, 1, 2, 2], &[1]] {
        let blocks = order.iter().flat_map(|i| block(*i)).chain(end);
        forge(&below, "a", stored[..16].iter().chain(blocks).copied().collect()).await;
        assert_eq!(kind_of(&above, "a").await, Some(ErrorKind::Corrupt), "{order:?}");
        let part = above.get_with("a", GetOptions::new().range(0..10)).await;
        assert_eq!(part.unwrap_err().kind(), ErrorKind::Corrupt, "{order:?}");
    }
    Ok(())
}

/// A stored value of one block, whatever the block is.
fn forged(method: u32, block: &[u8], plain: u64) -> Vec<u8> {
    let mark = (method << 30 | block.len() as u32).to_be_bytes();
    let mut stored = b"STZ\x01\x12\0\0\0".to_vec();
    stored.extend_from_slice(&plain.to_be_bytes());
    stored.extend_from_slice(&mark);
    stored.extend_from_slice(block);
    stored.extend_from_slice(&mark);
    let mut sum = crc32fast::Hasher::new();
    sum.update(&mark);
    sum.update(&plain.to_be_bytes());
    stored.extend_from_slice(&plain.to_be_bytes());
    stored.extend_from_slice(&sum.finalize().to_be_bytes());
    stored.extend_from_slice(b"\x01ZTS");
    stored
}

#[tokio::test]
async fn a_bomb_yields_no_more_than_the_size_that_is_declared() -> Result<()> {
    use std::io::Write;
    let memory = Memory::new();
    let (above, below) = (over(memory.clone(), zstd()), Storage::new(memory));
    // 256 mebibytes of zeros in little.
    let mut zstd_bomb = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let mut gzip_bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        zstd_bomb.write_all(&zeros).unwrap();
        gzip_bomb.write_all(&zeros).unwrap();
    }
    // Blocks must be smaller than what they say that they hold.
    let bombs = [(1, zstd_bomb.finish().unwrap()), (2, gzip_bomb.finish().unwrap())];
    for (method, bomb) in bombs {
        let bomb = if method == 2 { bomb[..200_000].to_vec() } else { bomb };
        for plain in [BLOCK as u64, bomb.len() as u64 + 1] {
            let note = Metadata::new().field("storage.compress", plain as i64);
            let stored = forged(method, &bomb, plain);
            below.put_with("a", stored, PutOptions::new().metadata(note)).await?;
            assert_eq!(above.stat("a").await?.unwrap().size, plain);
            assert_eq!(kind_of(&above, "a").await, Some(ErrorKind::Corrupt), "{method} {plain}");
            let part = above.get_with("a", GetOptions::new().range(0..1)).await;
            assert_eq!(part.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
    // A size that nothing stands behind: no memory is taken for it.
    for plain in [1 << 40, i64::MAX as u64, u64::MAX - 1] {
        let note = Metadata::new().field("storage.compress", i64::try_from(plain).unwrap_or(-1));
        below.put_with("a", forged(0, &[0; 100], plain), PutOptions::new().metadata(note)).await?;
        assert_eq!(kind_of(&above, "a").await, Some(ErrorKind::Corrupt), "{plain}");
        let part = above.get_with("a", GetOptions::new().range(0..1)).await;
        assert_eq!(part.unwrap_err().kind(), ErrorKind::Corrupt, "{plain}");
    }
    Ok(())
}

#[tokio::test]
async fn a_range_touches_no_more_than_its_blocks() -> Result<()> {
    let memory = Memory::new();
    let (above, below) = (over(memory.clone(), zstd()), Storage::new(memory));
    let value = noise(4 * BLOCK);
    above.put("a", value.clone()).await?;
    let mut stored = below.get("a").await?.unwrap().to_vec();
    // Whatever happened to the other blocks is not noticed, because they are not read.
    for block in [0, 2] {
        stored[16 + block * (BLOCK + 4)] ^= 0x40;
    }
    forge(&below, "a", stored).await;
    let range = GetOptions::new().range(BLOCK as u64 + 10..BLOCK as u64 + 20);
    assert_eq!(above.get_with("a", range).await?.unwrap(), value[BLOCK + 10..BLOCK + 20]);
    let range = GetOptions::new().range(10..20);
    assert_eq!(above.get_with("a", range).await.unwrap_err().kind(), ErrorKind::Corrupt);
    Ok(())
}

#[tokio::test]
async fn what_is_asked_of_the_backend_is_what_the_readme_says() -> Result<()> {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let above = over(recorder, zstd());
    above.put("a", "v").await?;
    let _ = log.take();
    for method in METHODS.iter().filter(|method| **method != "disconnect") {
        above.put("a", "v").await?;
        assert_eq!(log.take(), ["put"]);
        call(&**above.backend(), method).await?;
        let expected = if *method == "begin" { vec!["begin", "transaction.rollback"] } else { vec![*method] };
        assert_eq!(log.take(), expected);
    }
    above.put("small", text(1000)).await?;
    above.put("large", noise(BLOCK)).await?;
    above.put("open", undeclared(&noise(5 * BLOCK))).await?;
    let _ = log.take();
    above.get_with("small", GetOptions::new().range(5..9)).await?;
    assert_eq!(log.take(), ["get"]);
    above.get_with("large", GetOptions::new().range(5..9)).await?;
    assert_eq!(log.take(), ["get", "get"]);
    above.stat("open").await?;
    assert_eq!(log.take(), ["stat", "get"]);
    let tx = above.begin().await?;
    tx.put("a", text(100)).await?;
    assert_eq!(tx.get("a").await?.unwrap(), text(100));
    tx.commit().await?;
    assert_eq!(log.take(), ["begin", "transaction.put", "transaction.get", "transaction.commit"]);
    Ok(())
}

#[tokio::test]
async fn bodies_that_fail_store_nothing_and_fail_alone() -> Result<()> {
    let above = over(Memory::new(), zstd());
    let broken = |len| {
        let pieces = [Ok(noise(len)), Err(Error::new(ErrorKind::Other, "broken"))];
        Body::stream(stream::iter(pieces))
    };
    for len in [10, 6 * BLOCK] {
        assert_eq!(above.put("a", broken(len)).await.unwrap_err().kind(), ErrorKind::Other);
        let short = Body::sized(len as u64 + 1, stream::iter([Ok(noise(len))]));
        assert_eq!(above.put("a", short).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(!above.has("a").await?);
    }
    let items = [
        ("a", Body::from("1"), PutOptions::new()),
        ("b", broken(10), PutOptions::new()),
        ("c", "3".into(), PutOptions::new()),
    ];
    let results = above.put_batch_with(items, BatchOptions::new()).await?;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(results[1].as_ref().unwrap_err().key().unwrap().as_str(), "b");
    assert_eq!(above.get("c").await?.as_deref(), Some(&b"3"[..]));
    let items = [("d", Body::from("1"), PutOptions::new()), ("e", broken(10), PutOptions::new())];
    above.put_batch_with(items, BatchOptions::new().atomic(true)).await.unwrap_err();
    assert!(!above.has("d").await?);
    let reached = Arc::new(Notify::new());
    let reaches = reached.clone();
    let end = stream::once(async move {
        reaches.notify_one();
        std::future::pending::<Result<Bytes>>().await
    });
    tokio::select! {
        _ = above.put("f", Body::stream(stream::iter([Ok(noise(BLOCK))]).chain(end))) => panic!("its body has no end"),
        () = reached.notified() => {}
    }
    assert!(!above.has("f").await?);
    Ok(())
}

#[tokio::test]
async fn a_large_value_does_not_hold_the_runtime_up() -> Result<()> {
    // One thread: whoever works on it holds everybody up. While the value is compressed, others must get their turns.
    let above = over(Memory::new(), gzip().level(9)?);
    let mut put = Box::pin(above.put("a", text(16 * BLOCK)));
    let mut turns = 0;
    let size = loop {
        if let Some(entry) = (&mut put).now_or_never() {
            break entry?.size;
        }
        turns += 1;
        tokio::task::yield_now().await;
    };
    assert_eq!(size, 16 * BLOCK as u64);
    assert!(turns >= 16, "{turns} turns for others while 16 blocks were compressed");
    Ok(())
}

#[tokio::test]
async fn a_value_replaced_while_it_is_read_is_never_mixed() -> Result<()> {
    let backend = Faults::new(Memory::new(), 3).latency(3);
    let above = Arc::new(over(backend, zstd()));
    let values = [noise(5 * BLOCK), text(6 * BLOCK), noise(5 * BLOCK + 9).slice(9..)];
    above.put("a", undeclared(&values[0])).await?;
    let writer = tokio::spawn({
        let (above, values) = (above.clone(), values.clone());
        async move {
            for round in 0..30 {
                let value = &values[round % 3];
                let body = if round % 2 == 0 { undeclared(value) } else { declared(value) };
                above.put("a", body).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let range = BLOCK as u64 - 7..BLOCK as u64 + 7;
        let (start, end) = (range.start as usize, range.end as usize);
        match above.get_with("a", GetOptions::new().range(range)).await {
            Ok(part) => assert!(values.iter().any(|value| part.as_deref() == Some(&value[start..end]))),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?}"),
        }
        match above.get("a").await {
            Ok(value) => assert!(values.contains(&value.unwrap())),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?}"),
        }
        let listed: Vec<Entry> = above.list("").await?.try_collect().await?;
        assert!(values.iter().any(|value| value.len() as u64 == listed[0].size));
    }
    writer.await.unwrap();
    let etag = above.stat("a").await?.unwrap().etag.unwrap();
    above.put_with("a", "next", PutOptions::new().condition(Condition::IfMatch(etag.clone()))).await?;
    let stale = GetOptions::new().if_match(etag).range(0..1);
    assert_eq!(above.get_with("a", stale).await.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    Ok(())
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<CompressLayer> {
        serde_json::from_str(text)
    }
    assert_eq!(json("{}").unwrap(), CompressLayer::default());
    let all = gzip().level(9).unwrap().foreign(Foreign::Pass);
    assert_eq!(json(r#"{"algorithm": "gzip", "level": 9, "foreign": "pass"}"#).unwrap(), all);
    let text = "algorithm = \"gzip\"\nlevel = 9\nforeign = \"pass\"";
    assert_eq!(toml::from_str::<CompressLayer>(text).unwrap(), all);
    for (nonsense, says) in [
        (r#"{"level": 0}"#, "`level` must be 1 to 22 for zstd"),
        (r#"{"level": 23}"#, "`level` must be 1 to 22 for zstd"),
        (r#"{"algorithm": "gzip", "level": 10}"#, "`level` must be 1 to 9 for gzip"),
        (r#"{"algorithm": "lzma"}"#, "unknown variant `lzma`"),
        (r#"{"foreign": "eat"}"#, "unknown variant `eat`"),
        (r#"{"speed": 1}"#, "unknown field `speed`"),
        (r#"{"level": -1}"#, "invalid value"),
    ] {
        let error = json(nonsense).unwrap_err().to_string();
        assert!(error.contains(says), "{nonsense}: {error}");
    }
    assert_eq!(gzip().level(10).unwrap_err().kind(), ErrorKind::Config);
}
