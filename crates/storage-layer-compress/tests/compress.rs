//! What lies below, what comes back, and what it costs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support;

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use storage_conformance::{METHODS, Recorder, call};
use storage_core::{
    BatchOptions, Body, Bytes, CopyOptions, Entry, Error, ErrorKind, Filter, GetOptions, ListOptions, Metadata,
    OrderBy, PutOptions, Query, Result, Storage,
};
use storage_layer_compress::{CompressLayer, Foreign};
use storage_memory::Memory;
use support::{BLOCK, declared, gzip, noise, over, text, undeclared, zstd};
use tokio::sync::Notify;

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
        let expected = match *method {
            "begin" => vec!["begin", "transaction.rollback"],
            // A request that went past the layer would meet the bytes as they are stored.
            "presign" => vec![],
            method => vec![method],
        };
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
        let short = Body::with_len(len as u64 + 1, stream::iter([Ok(noise(len))]));
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
