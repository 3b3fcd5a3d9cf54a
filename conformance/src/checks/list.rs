//! Listings: everything once, in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{Entry, Key, ListItem, ListOptions, Metadata, Order, OrderBy, Storage};

use crate::{
    Context, Outcome,
    assert::{expect, expect_eq, expect_some},
    support::{all, entry, joined, keys, noise, pieces, positions, put_all, sorted, usable, with_on},
};

/// An empty store, and a prefix that nothing has, list nothing.
pub async fn empty(c: Context) -> Outcome {
    expect_eq("the keys of an empty store", keys(&c.storage, "").await?, [""; 0])?;
    expect_eq("the keys with a prefix", keys(&c.storage, "a/").await?, [""; 0])?;
    c.storage.put("b", "v").await?;
    expect_eq("the keys with another prefix", keys(&c.storage, "a").await?, [""; 0])?;
    expect_eq("the keys below a key", keys(&c.storage, "b/").await?, [""; 0])
}

/// A prefix is a literal byte prefix: `%`, `_`, `.*`, `\` mean themselves, and it may end within a segment.
pub async fn prefix_is_literal(c: Context) -> Outcome {
    let all = [
        "a",
        "a%",
        "a%b",
        "a_",
        "a_b",
        "ab",
        "abc",
        "a.*",
        "a.*b",
        "a\\",
        "a\\b",
        "a*",
        "a*b",
        "a?",
        "a[b]",
        "A",
        "Ab",
        "a/b",
        "a/bc",
        "a/b/c",
        "aé",
        "ae\u{301}",
        "b",
        "ba",
        "",
        "^a",
    ];
    let all = &usable(&c.storage, all.map(|key| if key.is_empty() { "a^" } else { key }));
    put_all(&c.storage, all).await?;
    for prefix in all.iter().copied().chain(["a/", "a/b/", "a.", "a[", "a%%", "x", "", "^", "a/bcd"]) {
        let expected = sorted(all.iter().filter(|key| key.starts_with(prefix)));
        expect_eq(&format!("the keys with the prefix {prefix:?}"), keys(&c.storage, prefix).await?, expected)?;
    }
    Ok(())
}

/// The order is bytewise over the UTF-8 key: `a-b` before `a/b` before `a0`, `Z` before `a`, plain before emoji.
pub async fn byte_order(c: Context) -> Outcome {
    let all = [
        "a", "a-b", "a/b", "a0", "a.b", "a b", "a/b/c", "a/b-c", "a/b0", "Z", "z", "é", "e\u{301}", "\u{ffff}", "🦀",
        "~", "\u{7f}", "\u{80}", "\u{1}", "10", "9", "09", "1", "a//b", "a/", "B", "b", "aa", "a!",
    ];
    let all = usable(&c.storage, all);
    put_all(&c.storage, &all).await?;
    expect_eq("the keys", keys(&c.storage, "").await?, sorted(all))
}

/// Pages of any size put together are the whole, each entry once.
pub async fn pages(c: Context) -> Outcome {
    let all: Vec<String> = (0..53).map(|i| format!("{}{i}", ["p/", "q", "p"][i % 3])).collect();
    put_all(&c.storage, &all).await?;
    for size in [1, 2, 7, 52, 53, 54, 1000] {
        for prefix in ["", "p"] {
            let expected = sorted(all.iter().filter(|key| key.starts_with(prefix)));
            let options = ListOptions::new().prefix(prefix);
            expect_eq(&format!("pages of {size}"), by_pages(&c.storage, options, size).await?, expected)?;
        }
    }
    Ok(())
}

/// What is inserted between two pages is listed if it lies behind the first; nothing is listed twice or lost.
pub async fn insert_between_pages(c: Context) -> Outcome {
    put_all(&c.storage, ["b", "d", "f", "h"]).await?;
    let first = positions(&c.storage, ListOptions::new().limit(2)).await?;
    expect_eq("the first page", first, ["b", "d"])?;
    put_all(&c.storage, ["a", "c", "d0", "e", "i"]).await?;
    let second = positions(&c.storage, ListOptions::new().start_after("d")).await?;
    expect_eq("the second page", second, ["d0", "e", "f", "h", "i"])
}

/// What is deleted between two pages does not move the second, even if it was the last of the first.
pub async fn delete_between_pages(c: Context) -> Outcome {
    put_all(&c.storage, ["b", "d", "f", "h"]).await?;
    let first = positions(&c.storage, ListOptions::new().limit(2)).await?;
    expect_eq("the first page", first, ["b", "d"])?;
    for key in ["b", "d", "f"] {
        c.storage.delete(key).await?;
    }
    let second = positions(&c.storage, ListOptions::new().start_after("d")).await?;
    expect_eq("the second page", second, ["h"])
}

/// `start_after` is exclusive and need not exist; it may lie before, within or behind the prefix.
pub async fn start_after_exclusive_and_missing(c: Context) -> Outcome {
    let all = ["a", "b/1", "b/2", "b/3", "c"];
    put_all(&c.storage, all).await?;
    for prefix in ["", "b/"] {
        for start in ["b/2", "b/1\u{1}", "b/", "b/9", "a", "c", "zz", "0", "b", "\u{1}", "b/10"] {
            let expected = sorted(all.iter().filter(|key| key.starts_with(prefix) && **key > start));
            let options = ListOptions::new().prefix(prefix).start_after(start);
            let what = format!("the keys with the prefix {prefix:?} after {start:?}");
            expect_eq(&what, positions(&c.storage, options).await?, expected)?;
        }
    }
    Ok(())
}

/// One level: the entries at the prefix, and each common prefix once, up to and with its `/`.
pub async fn one_level_common_prefixes(c: Context) -> Outcome {
    let all = ["a", "a/b", "a/c/d", "a/c/e", "a-b", "a0", "b/x", "b//y", "/z", "a/c", "c/"];
    let all = usable(&c.storage, all);
    put_all(&c.storage, &all).await?;
    for prefix in ["", "a", "a/", "a/c", "a/c/", "b/", "b", "/", "c/", "x", "a/b"] {
        let expected = delimited(&all, prefix);
        let options = ListOptions::new().prefix(prefix).delimited(true);
        let seen: Vec<ListItem> = c.storage.list_with(options).await?.try_collect().await?;
        let what = format!("one level at {prefix:?}");
        for item in &seen {
            let folded = item.position().get(prefix.len()..).is_some_and(|rest| rest.contains('/'));
            let is_prefix = matches!(item, ListItem::Prefix(_));
            expect_eq(&format!("{what}: whether {:?} is a common prefix", item.position()), is_prefix, folded)?;
        }
        let seen: Vec<&str> = seen.iter().map(ListItem::position).collect();
        expect_eq(&what, seen, expected)?;
    }
    Ok(())
}

/// In one level, an item is listed when its position lies behind `start_after`, so a listing resumes behind its last item.
pub async fn one_level_resumes(c: Context) -> Outcome {
    let all = ["a", "a/b", "a/c/d", "a/c/e", "a-b", "a0", "b/x", "b/y", "c"];
    put_all(&c.storage, all).await?;
    for prefix in ["", "a/", "b"] {
        let expected = delimited(&all, prefix);
        let options = ListOptions::new().prefix(prefix).delimited(true);
        for size in [1, 2, 3] {
            let seen = by_pages(&c.storage, options.clone(), size).await?;
            expect_eq(&format!("one level at {prefix:?} by pages of {size}"), seen, expected.clone())?;
        }
        for start in ["a", "a/", "a/b", "a/c", "a/c/", "a/c/d", "a/c/zz", "b/", "b/x", "b", "0", "z"] {
            let expected: Vec<&String> = expected.iter().filter(|item| item.as_str() > start).collect();
            let seen = positions(&c.storage, options.clone().start_after(start)).await?;
            let what = format!("one level at {prefix:?} after {start:?}");
            expect_eq(&what, seen.iter().collect::<Vec<_>>(), expected)?;
        }
    }
    Ok(())
}

/// A listing sorted by size or date has every entry, in that order; ties are broken by key.
pub async fn sort_size_modified(c: Context) -> Outcome {
    let s = &c.storage;
    for (key, size) in [("e", 3), ("a", 1), ("d", 2), ("b", 3), ("c", 0)] {
        s.put(key, vec![b'x'; size]).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for (descending, expected) in [(false, ["c", "a", "d", "b", "e"]), (true, ["b", "e", "d", "a", "c"])] {
        let by = OrderBy::Size;
        let listing = s.list_sorted(ListOptions::new(), Order { by, descending }).await?;
        let seen: Vec<ListItem> = listing.try_collect().await?;
        let seen: Vec<&str> = seen.iter().map(ListItem::position).collect();
        expect_eq("the keys by size", seen, expected)?;
    }
    let mut dated = Vec::new();
    for key in ["a", "b", "c", "d", "e"] {
        dated.push((entry(s, key).await?.modified, key));
    }
    dated.sort();
    let order = Order { by: OrderBy::Modified, descending: false };
    let seen: Vec<ListItem> = s.list_sorted(ListOptions::new(), order).await?.try_collect().await?;
    let seen: Vec<&str> = seen.iter().map(ListItem::position).collect();
    let expected: Vec<&str> = dated.iter().map(|(_, key)| *key).collect();
    expect_eq("the keys by date", seen, expected)
}

/// Without etags a listing has the same keys, sizes and dates of writing, and what else it says is true.
/// Profile: full
pub async fn without_etags(c: Context) -> Outcome {
    let s = &c.storage;
    for (key, len) in [("a/b", 0), ("a/c", 7), ("b", 100), ("d", 3000)] {
        s.put_with(key, noise(c.size(len), 1), with_on(s, Metadata::new().tag("t"))).await?;
    }
    for prefix in ["", "a/"] {
        let full: Vec<Entry> = s.list(prefix).await?.try_collect().await?;
        let bare = s.list_with(ListOptions::new().prefix(prefix).etags(false)).await?;
        let bare: Vec<ListItem> = bare.try_collect().await?;
        let bare: Vec<Entry> = bare.into_iter().filter_map(ListItem::into_entry).collect();
        let told = |entries: &[Entry]| {
            let told = entries.iter().map(|entry| (entry.key.to_string(), entry.size, entry.modified));
            told.collect::<Vec<_>>()
        };
        expect_eq("the entries without etags", told(&bare), told(&full))?;
        for (bare, full) in bare.iter().zip(&full) {
            let etag = bare.etag.is_none() || bare.etag == full.etag;
            expect(etag, || format!("the etag of {bare:?}: expected that of {full:?}"))?;
            let created = bare.created.is_none() || bare.created == full.created;
            expect(created, || format!("the date of creation of {bare:?}: expected that of {full:?}"))?;
        }
    }
    let listed: Vec<Key> = s.keys().await?.try_collect().await?;
    expect_eq("the keys", listed.iter().map(Key::as_str).collect::<Vec<_>>(), ["a/b", "a/c", "b", "d"])
}

/// `limit` is the most items there are, entries and common prefixes alike; 0 is none.
pub async fn limit(c: Context) -> Outcome {
    let all = ["a", "b/1", "b/2", "c", "d/1", "e"];
    put_all(&c.storage, all).await?;
    for limit in 0..8 {
        let flat = positions(&c.storage, ListOptions::new().limit(limit)).await?;
        expect_eq(&format!("the first {limit}"), flat, &all[..limit.min(6)])?;
        let options = ListOptions::new().delimited(true).limit(limit);
        let items = ["a", "b/", "c", "d/", "e"];
        let seen = positions(&c.storage, options).await?;
        expect_eq(&format!("the first {limit} of one level"), seen, &items[..limit.min(5)])?;
    }
    Ok(())
}

/// What is being written is not listed before it is there, under any name.
pub async fn no_staging_visible(c: Context) -> Outcome {
    let s = c.storage.clone();
    s.put("old", "v").await?;
    let (pause, paused) = (tokio::sync::oneshot::channel::<()>(), tokio::sync::oneshot::channel::<()>());
    let value = noise(c.size(1 << 20), 3);
    let (resume, wait) = pause;
    let (reached, at_half) = paused;
    let half = value.slice(..value.len() / 2);
    let rest = value.slice(value.len() / 2..);
    let tail = futures_util::stream::once(async move {
        let _ = reached.send(());
        let _ = wait.await;
        Ok(rest)
    });
    let body = storage_core::Body::stream(pieces(half, 100_000).chain(tail));
    let writer = s.clone();
    let task = tokio::spawn(async move { Ok(writer.put("new", body).await?) });
    // Both ends live in this check, so the wait ends also when the put fails early: then the sender is dropped.
    let _ = at_half.await;
    let during = keys(&s, "").await;
    let value_during = s.get("new").await;
    let _ = resume.send(());
    joined(task).await?;
    expect_eq("the keys while a value is written", during?, ["old"])?;
    expect_eq("the value while it is written", value_during?, None)?;
    expect_eq("the keys afterwards", keys(&s, "").await?, ["new", "old"])
}

/// Ten thousand entries are all listed, each once, in order; so are pages of a thousand.
pub async fn ten_thousand_no_loss_no_duplicates(c: Context) -> Outcome {
    let all: Vec<String> = (0..10_000).map(|i| format!("{:02}/{:04}", i % 37, i)).collect();
    for chunk in all.chunks(2500) {
        let items = chunk.iter().map(|key| (key, ""));
        expect_eq("the number of entries written", c.storage.put_batch(items).await?.len(), 2500)?;
    }
    let expected = sorted(&all);
    let seen = keys(&c.storage, "").await?;
    expect_eq("the number of keys", seen.len(), 10_000)?;
    expect(seen == expected, || "expected every key once and in order, saw others".into())?;
    let paged = by_pages(&c.storage, ListOptions::new(), 1000).await?;
    expect(paged == expected, || "expected every key once by pages of 1,000, saw others".into())?;
    let options = ListOptions::new().delimited(true);
    expect_eq("the number of common prefixes", positions(&c.storage, options).await?.len(), 37)
}

/// A key that is there all the while is listed exactly once, however many others come and go.
pub async fn while_others_come_and_go(c: Context) -> Outcome {
    let s = c.storage.clone();
    let stable: Vec<String> = (0..100).map(|i| format!("k{i:03}-stays")).collect();
    put_all(&s, &stable).await?;
    let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (churned, stopped, counted) = (s.clone(), stop.clone(), writes.clone());
    let churn = (0..2).map(move |writer| {
        let (s, stop, writes) = (churned.clone(), stopped.clone(), counted.clone());
        async move {
            let mut i = writer;
            while !stop.load(Ordering::Relaxed) {
                let key = format!("k{:03}-{}", (i * 37) % 100, ["a", "z", "stayr", "stays0"][i % 4]);
                s.put(&key, "").await?;
                s.delete(&key).await?;
                writes.fetch_add(1, Ordering::Relaxed);
                i += 2;
                // A store that never waits must not keep the thread from those who list.
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    });
    let churn = tokio::spawn(all(churn));
    let mut outcome = Ok(());
    for round in 0..15 {
        // Each listing is made while others write; should they have failed, their error is told below.
        while writes.load(Ordering::Relaxed) <= round && !churn.is_finished() {
            tokio::task::yield_now().await;
        }
        let options = ListOptions::new();
        let seen = if round % 3 == 0 { by_pages(&s, options, 9).await } else { positions(&s, options).await };
        outcome = seen.and_then(|seen| {
            expect(seen.is_sorted(), || "expected keys in order, saw others".into())?;
            let seen: Vec<String> = seen.into_iter().filter(|key| key.ends_with("-stays")).collect();
            expect_eq("the keys that stay", &seen, &stable)
        });
        if outcome.is_err() {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    joined(churn).await?;
    outcome
}

/// A listing owns what it needs: it goes on when the handle is dropped and when its keys are deleted meanwhile.
pub async fn stream_outlives_the_call(c: Context) -> Outcome {
    let all: Vec<String> = (0..50).map(|i| format!("k{i:02}")).collect();
    put_all(&c.storage, &all).await?;
    let handle = c.second_handle().await?;
    let mut listing = handle.list("").await?;
    drop(handle);
    let first = expect_some("the first entry", listing.next().await)??;
    expect_eq("the first key", first.key.as_str(), "k00")?;
    c.storage.delete("k49").await?;
    let mut rest: Vec<String> = listing.map_ok(|entry| entry.key.to_string()).try_collect().await?;
    // The deleted one may or may not have been seen.
    rest.retain(|key| key != "k49");
    expect_eq("the other keys", rest, &all[1..49])
}

/// The whole listing, by pages of a size.
async fn by_pages(s: &Storage, options: ListOptions, size: usize) -> Outcome<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let mut page = options.clone().limit(size);
        page.start_after = all.last().cloned();
        let items = positions(s, page).await?;
        expect(items.len() <= size, || format!("expected at most {size} items, saw {}", items.len()))?;
        if items.is_empty() {
            return Ok(all);
        }
        expect(items.first() > all.last(), || {
            format!("expected items after {:?}, saw {:?}", all.last(), items.first())
        })?;
        all.extend(items);
    }
}

/// What one level at the prefix must list.
fn delimited(all: &[&str], prefix: &str) -> Vec<String> {
    let mut items = sorted(all.iter().filter_map(|key| {
        let rest = key.strip_prefix(prefix)?;
        let end = rest.find('/').map_or(rest.len(), |slash| slash + 1);
        Some(format!("{prefix}{}", &rest[..end]))
    }));
    items.dedup();
    items
}
