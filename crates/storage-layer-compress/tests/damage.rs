//! What lies below is foreign, damaged, forged, or replaced while it is read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support;

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use storage_conformance::Faults;
use storage_core::{Bytes, Condition, Entry, ErrorKind, GetOptions, Metadata, PutOptions, Result, Storage};
use storage_layer_compress::Foreign;
use storage_memory::Memory;
use support::{BLOCK, declared, gzip, noise, over, text, undeclared, zstd};

async fn kind_of(storage: &Storage, key: &str) -> Option<ErrorKind> {
    storage.get(key).await.err().map(|e| e.kind())
}

/// Puts changed bytes below, with the metadata that was there.
async fn forge(below: &Storage, key: &str, bytes: Vec<u8>) {
    let metadata = below.stat(key).await.unwrap().unwrap().metadata.unwrap();
    below.put_with(key, bytes, PutOptions::new().metadata(metadata)).await.unwrap();
}

#[tokio::test]
async fn foreign_values_are_an_error_that_loses_nothing_or_pass_as_they_are() -> Result<()> {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    let elsewhere = Memory::new();
    over(elsewhere.clone(), zstd()).put("x", text(50)).await?;
    let looks_like_ours = Storage::new(elsewhere).get("x").await?.unwrap();
    for value in [Bytes::new(), text(5), noise(100_000), looks_like_ours] {
        below.put("plain", value.clone()).await?;
        let above = over(memory.clone(), zstd());
        assert_eq!(above.stat("plain").await.unwrap_err().kind(), ErrorKind::Corrupt);
        let listed: Vec<_> = above.list("").await?.try_collect().await?;
        assert_eq!((listed.len(), listed[0].size), (1, value.len() as u64));
        assert!(listed[0].damaged.as_ref().is_some_and(|e| e.kind() == ErrorKind::Corrupt));
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
        // A range looks at the index and the trailer, and is as careful with them. An empty one needs no index.
        let form = if value.is_empty() { 0 } else { 20 };
        for bit in (stored.len() - form) * 8..stored.len() * 8 {
            let mut changed = stored.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            forge(&below, "a", changed).await;
            let part = above.get_with("a", GetOptions::new().range(0..10)).await;
            assert_eq!(part.unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit} of {layer:?}");
        }
        let note = Metadata::new().field("storage.compress", value.len() as i64 + 1);
        below.put_with("a", stored.clone(), PutOptions::new().metadata(note)).await?;
        assert_eq!(kind_of(&above, "a").await, Some(ErrorKind::Corrupt), "the metadata says another size");
        let part = above.get_with("a", GetOptions::new().range(0..10)).await;
        assert_eq!(part.unwrap_err().kind(), ErrorKind::Corrupt, "the metadata says another size");
        above.put("a", value.clone()).await?;
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

#[tokio::test]
async fn what_has_been_copied_or_renamed_is_never_denied() -> Result<()> {
    let value = Bytes::from([text(6 * BLOCK), noise(6 * BLOCK)].concat());
    let (mut definite, mut open) = (0, 0);
    for seed in 0..100 {
        let memory = Memory::new();
        // The size of such a value is in its last bytes, which are read again after it was moved.
        over(memory.clone(), zstd()).put("from", undeclared(&value)).await?;
        let faulty =
            over(Faults::new(memory.clone(), seed).before(0.3).only(["get", "stat", "copy", "rename"]), zstd());
        let done = if seed % 2 == 0 { faulty.copy("from", "to").await } else { faulty.rename("from", "to").await };
        let Err(e) = done else { continue };
        open += usize::from(e.is_ambiguous());
        definite += usize::from(!e.is_ambiguous());
        assert!(e.is_ambiguous() || !Storage::new(memory).has("to").await?, "seed {seed}: {e:?}");
    }
    assert!(definite > 5 && open > 5, "{definite} definite, {open} open");
    Ok(())
}
