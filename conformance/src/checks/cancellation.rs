//! Futures and streams that are dropped before their end.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use storage_core::{BatchOptions, Body, Bytes, Entry, GetOptions, Metadata, PutOptions, Storage};
use tokio::time::sleep;

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq, expect_some},
    support::{expect_value, keys, noise, pieces, put_all, with},
};

/// How often each operation is dropped, each time a little later.
const TIMES: u32 = 24;

/// A put that is dropped leaves the old value with its metadata or the new with its own, and the store works on.
pub async fn dropped_put(c: Context) -> Outcome {
    let s = &c.storage;
    let (old, new) = (noise(c.size(100_000), 1), noise(c.size(130_000), 2));
    for n in 0..TIMES {
        s.put("key", old.clone()).await?;
        drop_after(n, s.put("key", new.clone())).await;
        settle().await;
        let (entry, seen) = read(s, "key").await?;
        expect(seen == old || seen == new, || {
            format!("expected the old or the new value, saw another of {} bytes", seen.len())
        })?;
        expect_eq("the size", entry.size, seen.len() as u64)?;
        expect_eq("the keys", keys(s, "").await?, ["key"])?;
    }
    works(s).await
}

/// A streamed put that is dropped before its body has ended stores nothing and lists nothing.
pub async fn dropped_stream_put(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["old"]).await?;
    let value = noise(c.size(3 << 20), 3);
    for n in 0..TIMES {
        for key in ["old", "new"] {
            let begun = pieces(value.clone(), 500_000);
            let body = Body::stream(begun.chain(stream::pending()));
            drop_after(n, s.put(key, body)).await;
        }
        settle().await;
        expect_value(s, "old", Some(b"old")).await?;
        expect_value(s, "new", None).await?;
        expect_eq("the keys", keys(s, "").await?, ["old"])?;
    }
    works(s).await
}

/// The metadata of a dropped put goes with its value.
/// Profile: full
pub async fn dropped_put_keeps_metadata_with_its_value(c: Context) -> Outcome {
    let s = &c.storage;
    let metadata = |n: i64| Metadata::new().field("n", n);
    for n in 0..TIMES {
        s.put_with("key", "old", with(metadata(0))).await?;
        drop_after(n, s.put_with("key", "the new", with(metadata(1)))).await;
        settle().await;
        let (entry, seen) = read(s, "key").await?;
        let expected = metadata(i64::from(seen == "the new"));
        let seen = entry.metadata.unwrap_or_default();
        expect_eq("the metadata beside the value", &*seen, &expected)?;
    }
    Ok(())
}

/// A delete that is dropped has happened or has not.
pub async fn dropped_delete(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["other"]).await?;
    for n in 0..TIMES {
        s.put("key", "value").await?;
        drop_after(n, s.delete("key")).await;
        settle().await;
        let seen = s.get("key").await?;
        expect(seen.as_ref().is_none_or(|seen| seen == "value"), || {
            format!("expected the value or none, saw {seen:?}")
        })?;
        let listed = keys(s, "").await?;
        // It may happen between the two reads, but what is gone stays gone.
        let may_be_there = seen.is_some() && listed == ["key", "other"];
        expect(listed == ["other"] || may_be_there, || {
            format!("expected the key gone, or there with its value, saw {listed:?}")
        })?;
    }
    works(s).await
}

/// Reads and listings that are dropped, before or amid their stream, leave nothing behind.
pub async fn dropped_reads(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("large", noise(c.size(2 << 20), 4)).await?;
    put_all(s, (0..50).map(|i| format!("k{i}"))).await?;
    for n in 0..TIMES {
        drop_after(n, s.get("large")).await;
        drop_after(n, s.stat("large")).await;
        drop_after(n, s.list("")).await;
        let mut listing = s.list("").await?;
        drop_after(n, listing.next()).await;
        drop(listing);
        let object = expect_some("the object", s.open("large", GetOptions::new()).await?)?;
        let mut body = object.body.into_stream();
        drop_after(n, body.next()).await;
    }
    expect_eq("the number of keys", keys(s, "").await?.len(), 51)?;
    works(s).await
}

/// Of a batch that is dropped each item was written as a whole or not at all.
pub async fn dropped_batch(c: Context) -> Outcome {
    let s = &c.storage;
    let names: Vec<String> = (0..20).map(|i| format!("k{i:02}")).collect();
    for n in 0..TIMES {
        put_all(s, &names).await?;
        let items = names.iter().map(|key| (key, "the new value", PutOptions::new()));
        drop_after(n, s.put_batch_with(items, BatchOptions::new())).await;
        settle().await;
        for key in &names {
            let seen = expect_some("the value", s.get(key).await?)?;
            expect(seen == "the new value" || seen == *key, || {
                format!("expected the old or the new value, saw {seen:?}")
            })?;
        }
        expect_eq("the keys", keys(s, "").await?, &names[..])?;
    }
    works(s).await
}

/// A copy or rename that is dropped leaves source and target whole.
pub async fn dropped_copy_and_rename(c: Context) -> Outcome {
    let (s, value) = (&c.storage, noise(c.size(100_000), 5));
    for n in 0..TIMES {
        s.put("from", value.clone()).await?;
        s.put("to", "old").await?;
        if n % 2 == 0 {
            drop_after(n, s.copy("from", "to")).await
        } else {
            drop_after(n, s.rename("from", "to")).await
        }
        settle().await;
        let (from, to) = (s.get("from").await?, expect_some("the target", s.get("to").await?)?);
        expect(to == value || to == "old", || format!("expected the target old or new, saw {} bytes", to.len()))?;
        let kept = from.as_ref() == Some(&value) || (from.is_none() && n % 2 == 1 && to == value);
        expect(kept, || "expected the source, or the target in its place, saw neither".into())?;
    }
    works(s).await
}

/// A commit that is dropped has happened as a whole or not at all, and others go on.
/// Needs: transactions
pub async fn dropped_commit(c: Context) -> Outcome {
    let s = &c.storage;
    for n in 0..TIMES {
        s.put_batch([("a", "old"), ("b", "old")]).await?;
        let tx = s.begin().await?;
        drop_after(n, tx.put("a", "new")).await;
        tx.put("a", "new").await?;
        tx.put("b", "new").await?;
        drop_after(n, tx.commit()).await;
        settle().await;
        // One moment of both: a commit under way on another thread may end between two reads.
        let tx = s.begin().await?;
        let (a, b) = (tx.get("a").await?, tx.get("b").await?);
        drop(tx);
        expect(a == b, || format!("expected all or nothing of the transaction, saw {a:?} and {b:?}"))?;
    }
    works(s).await
}

/// Runs the future for a while and drops it: `n` times for as long as it is ready at once, later also for some time.
async fn drop_after<F: Future>(n: u32, future: F) {
    let mut future = pin!(future);
    for i in 0..=n {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if polled {
            return;
        }
        if i % 3 == 2 {
            sleep(Duration::from_micros(u64::from(n) * 20)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Gives what a dropped future had begun on another thread time to end. It may take longer, so the checks allow that it ends
/// between any two of their reads.
async fn settle() {
    sleep(Duration::from_millis(2)).await;
}

/// Entry and value, read in one call.
async fn read(s: &Storage, key: &str) -> Result<(Entry, Bytes), Failure> {
    let object = expect_some("the value", s.open(key, GetOptions::new().prefer_buffered(true)).await?)?;
    Ok((object.entry, object.body.bytes(u64::MAX).await?))
}

/// The store takes a write and gives it back.
async fn works(s: &Storage) -> Outcome {
    s.put("afterwards", "all is well").await?;
    expect_value(s, "afterwards", Some(b"all is well")).await?;
    s.delete("afterwards").await?;
    expect_value(s, "afterwards", None).await
}
