//! Several operations in one call.

use std::collections::BTreeMap;

use futures_util::stream;
use storage_core::{
    BatchOptions, Body, Bytes, Condition, DeleteOptions, Error, ErrorKind, GetOptions, Key, Metadata, PutOptions,
    StorageBackend,
};

use crate::{
    Context, Outcome,
    assert::{expect, expect_bytes, expect_eq, expect_kind, expect_some},
    support::{entry, expect_value, key, keys, sorted, with},
};

/// Empty input.
const NO_PUTS: [(&str, &str, PutOptions); 0] = [];
const NO_DELETES: [(&str, DeleteOptions); 0] = [];

/// Empty input gives an empty result.
pub async fn empty(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("key", "v").await?;
    let puts = s.put_batch_with(NO_PUTS, BatchOptions::new()).await?;
    expect_eq("the results of no puts", puts.len(), 0)?;
    let deletes = s.delete_batch_with(NO_DELETES, BatchOptions::new()).await?;
    expect_eq("the results of no deletes", deletes.len(), 0)?;
    expect_eq("the results of no gets", s.get_batch([""; 0]).await?.len(), 0)?;
    expect_value(s, "key", Some(b"v")).await
}

/// Each item has one result, in the order of the input, whatever the order of keys.
pub async fn order_preserved(c: Context) -> Outcome {
    let s = &c.storage;
    let names = ["m", "z", "a", "q/x", "b", "0", "y", "c", "x", "d", "w", "e"];
    let items = names.iter().enumerate().map(|(i, name)| (*name, vec![b'v'; i + 1], PutOptions::new()));
    let written = s.put_batch_with(items, BatchOptions::new()).await?;
    expect_eq("the number of results of puts", written.len(), names.len())?;
    for (i, (name, result)) in names.iter().zip(written).enumerate() {
        let written = result?;
        expect_eq("the key of a result", written.key.as_str(), *name)?;
        expect_eq("the size of a result", written.size, i as u64 + 1)?;
        expect_eq("the etag of a result", written.etag, entry(s, name).await?.etag)?;
    }
    let mut items: Vec<(Key, GetOptions)> = Vec::new();
    for name in names {
        items.push((key(name)?, GetOptions::new().prefer_buffered(true)));
    }
    items.insert(5, (key("absent")?, GetOptions::new()));
    let read = s.backend().get_batch(items.clone()).await?;
    expect_eq("the number of results of gets", read.len(), items.len())?;
    for ((name, _), result) in items.iter().zip(read) {
        match result? {
            None => expect_eq("the key without a value", name.as_str(), "absent")?,
            Some(object) => {
                expect_eq("the key of an object", object.entry.key.as_str(), name.as_str())?;
                let size = object.entry.size as usize;
                expect_bytes("its value", &object.body.bytes(u64::MAX).await?, &vec![b'v'; size])?;
            }
        }
    }
    let found = s.get_batch(names).await?;
    expect_eq("the number of values found", found.len(), names.len())
}

/// An item that fails does so alone: the others are done, and its error is in its place.
pub async fn per_item_failure(c: Context) -> Outcome {
    let s = &c.storage;
    let items = [("a", whole("1")), ("b", failing()), ("c", whole("3")), ("d", failing()), ("e", whole("5"))];
    let items = items.map(|(name, body)| (name, body, PutOptions::new()));
    let results = s.put_batch_with(items, BatchOptions::new()).await?;
    expect_eq("the number of results", results.len(), 5)?;
    for (result, name) in results.into_iter().zip(["a", "b", "c", "d", "e"]) {
        if ["b", "d"].contains(&name) {
            expect_kind(&format!("the result of {name}"), result, ErrorKind::InvalidInput)?;
        } else {
            expect_eq("the key of a result", result?.key.as_str(), name)?;
        }
    }
    expect_eq("the keys", keys(s, "").await?, ["a", "c", "e"])?;
    expect_value(s, "e", Some(b"5")).await
}

/// Of several items with the same key the last wins.
pub async fn duplicates_last_wins(c: Context) -> Outcome {
    let s = &c.storage;
    let items = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("a", "3"), ("b", "2")];
    expect_eq("the number of results", s.put_batch(items).await?.len(), 6)?;
    for (name, value) in [("a", "3"), ("b", "2"), ("c", "1")] {
        expect_value(s, name, Some(value.as_bytes())).await?;
    }
    let found = s.get_batch(["a", "b", "a"]).await?;
    expect_eq("the number of different keys found", found.len(), 2)?;
    s.delete_batch(["a", "a", "b"]).await?;
    expect_eq("the keys", keys(s, "").await?, ["c"])
}

/// A batch of deletes removes exactly its keys; they need not exist.
pub async fn deletes(c: Context) -> Outcome {
    let s = &c.storage;
    s.put_batch(["a", "a/b", "b", "c", "d"].map(|name| (name, name))).await?;
    let items = ["b", "never", "d", "a"].map(|name| (name, DeleteOptions::new()));
    let results = s.delete_batch_with(items, BatchOptions::new()).await?;
    expect_eq("the number of results", results.len(), 4)?;
    results.into_iter().collect::<Result<Vec<()>, Error>>()?;
    expect_eq("the keys", keys(s, "").await?, ["a/b", "c"])
}

/// Each item is written with its own metadata.
/// Profile: full
pub async fn metadata_of_each_item(c: Context) -> Outcome {
    let items = (0..20).map(|i| {
        let options = if i % 3 == 0 { PutOptions::new() } else { with(Metadata::new().field("n", i)) };
        (format!("k{i:02}"), "v", options)
    });
    for result in c.storage.put_batch_with(items, BatchOptions::new()).await? {
        result?;
    }
    for i in 0..20 {
        let seen = entry(&c.storage, &format!("k{i:02}")).await?.metadata.unwrap_or_default();
        let expected = if i % 3 == 0 { Metadata::new() } else { Metadata::new().field("n", i) };
        expect_eq(&format!("the metadata of item {i}"), &*seen, &expected)?;
    }
    Ok(())
}

/// A batch may be larger than what the store takes at once.
pub async fn over_native_limit_2500(c: Context) -> Outcome {
    let (s, names) = (&c.storage, (0..2500).map(|i| format!("k{i:04}")).collect::<Vec<_>>());
    let written = s.put_batch(names.iter().map(|name| (name, name.clone()))).await?;
    let seen: Vec<&str> = written.iter().map(|entry| entry.key.as_str()).collect();
    expect(seen == names, || "expected one entry for each item in order, saw others".into())?;
    let found: BTreeMap<Key, Bytes> = s.get_batch(&names).await?;
    expect_eq("the number of values found", found.len(), names.len())?;
    let wrong = found.iter().find(|(name, value)| name.as_str().as_bytes() != &value[..]);
    expect(wrong.is_none(), || format!("expected each key's own value, saw {wrong:?}"))?;
    s.delete_batch(names.iter().filter(|name| name.as_str() != "k1234")).await?;
    expect_eq("the keys", keys(s, "").await?, ["k1234"])
}

/// In a batch too, a condition decides for its item alone.
/// Needs: conditional
pub async fn conditions_of_each_item(c: Context) -> Outcome {
    let s = &c.storage;
    let there = s.put("there", "old").await?;
    let stale = expect_some("the etag", there.etag)?;
    s.put("there", "newer").await?;
    let absent = || PutOptions::new().condition(Condition::IfAbsent);
    let items = [
        ("new", "v", absent()),
        ("there", "v", absent()),
        ("there", "v", PutOptions::new().condition(Condition::IfMatch(stale))),
        ("last", "v", PutOptions::new()),
    ];
    let mut results = s.put_batch_with(items, BatchOptions::new()).await?.into_iter();
    let mut next = || expect_some("a result for each item", results.next());
    next()??;
    expect_kind("a put if absent of what exists", next()?, ErrorKind::AlreadyExists)?;
    expect_kind("a put with a stale etag", next()?, ErrorKind::PreconditionFailed)?;
    next()??;
    expect_value(s, "there", Some(b"newer")).await?;
    expect_eq("the keys", keys(s, "").await?, ["last", "new", "there"])
}

/// In a batch of deletes too, a condition decides for its item alone, however many items there are; with `atomic` for all.
/// Needs: conditional_delete
pub async fn conditions_of_each_delete(c: Context) -> Outcome {
    let s = &c.storage;
    for n in [1, 2, 9, 40, 130] {
        let names: Vec<String> = (0..n).map(|i| format!("k{i:03}")).collect();
        let first = s.put_batch(names.iter().map(|name| (name, "old"))).await?;
        // Every third item is written again; the first and the last are among them, or are not.
        let stale: Vec<usize> = (0..n).filter(|i| (i + n) % 3 == 0 || n == 1).collect();
        s.put_batch(stale.iter().map(|i| (&names[*i], "newer"))).await?;
        let items = |absent: bool| {
            let items = names.iter().zip(&first).enumerate().map(|(i, (name, entry))| {
                let condition = entry.etag.clone().map(Condition::IfMatch);
                let mut options = DeleteOptions::new();
                // Others have none.
                options.condition = condition.filter(|_| i % 4 != 1 || stale.contains(&i));
                (name.clone(), options)
            });
            let etag = first[0].etag.clone().map(Condition::IfMatch);
            let mut missing = DeleteOptions::new();
            missing.condition = etag;
            items.chain(absent.then(|| ("absent".to_owned(), missing))).collect::<Vec<_>>()
        };
        if s.info().capabilities.transactions {
            let refused = s.delete_batch_with(items(false), BatchOptions::new().atomic(true)).await;
            expect_kind("an atomic batch of deletes with a stale etag", refused, ErrorKind::PreconditionFailed)?;
            expect_eq("the number of keys afterwards", keys(s, "").await?.len(), n)?;
        }
        let results = s.delete_batch_with(items(true), BatchOptions::new()).await?;
        expect_eq("the number of results", results.len(), n + 1)?;
        for (i, result) in results.into_iter().enumerate() {
            if i == n {
                expect_kind("a delete of an absent key by its etag", result, ErrorKind::PreconditionFailed)?;
            } else if stale.contains(&i) {
                expect_kind(&format!("delete {i} of {n} with a stale etag"), result, ErrorKind::PreconditionFailed)?;
            } else {
                result?;
            }
        }
        let left: Vec<&String> = stale.iter().map(|i| &names[*i]).collect();
        expect_eq("the keys that were spared", keys(s, "").await?.iter().collect::<Vec<_>>(), &left[..])?;
        s.clear().await?;
    }
    Ok(())
}

/// With `atomic` all items are written, in order, the last of a key winning.
/// Needs: transactions
pub async fn atomic_form(c: Context) -> Outcome {
    let (s, atomic) = (&c.storage, BatchOptions::new().atomic(true));
    s.put("a", "old").await?;
    let items = [("c", "1"), ("a", "2"), ("b", "3"), ("a", "4")];
    let items = items.map(|(name, value)| (name, value, PutOptions::new()));
    let results = s.put_batch_with(items, atomic.clone()).await?;
    let mut seen = Vec::new();
    for result in results {
        seen.push(result?.key.to_string());
    }
    expect_eq("the keys of the results", seen, ["c", "a", "b", "a"])?;
    expect_value(s, "a", Some(b"4")).await?;
    let deletes = ["a", "never", "c"].map(|name| (name, DeleteOptions::new()));
    expect_eq("the number of results", s.delete_batch_with(deletes, atomic.clone()).await?.len(), 3)?;
    expect_eq("the keys", keys(s, "").await?, ["b"])?;
    let none = s.put_batch_with(NO_PUTS, atomic).await?;
    expect_eq("the results of an empty atomic batch", none.len(), 0)
}

/// With `atomic` an item's failure is the batch's failure, and nothing is written.
/// Needs: transactions
pub async fn atomic_all_or_nothing(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("a", "old").await?;
    let items = [("a", whole("new")), ("b", whole("new")), ("c", failing()), ("d", whole("new"))];
    let items = items.map(|(name, body)| (name, body, PutOptions::new()));
    let result = s.put_batch_with(items, BatchOptions::new().atomic(true)).await;
    expect_kind("an atomic batch with an item that fails", result, ErrorKind::InvalidInput)?;
    expect_eq("the keys", keys(s, "").await?, sorted(["a"]))?;
    expect_value(s, "a", Some(b"old")).await
}

/// All or nothing holds for a batch with much metadata too, which a store may have to write in several steps.
/// Profile: full
/// Needs: transactions
pub async fn atomic_with_much_metadata(c: Context) -> Outcome {
    const ITEMS: usize = 150;
    let s = &c.storage;
    let described = |i: usize| {
        let fields = (0..40).fold(Metadata::new(), |metadata, n| metadata.field(format!("f{n}"), (i * n) as i64));
        (0..5).fold(fields, |metadata, n| metadata.tag(format!("t{}", i + n)))
    };
    let items = |last: Body| {
        let items = (0..ITEMS).map(|i| (format!("k{i:03}"), whole("v"), with(described(i))));
        items.chain([("last".into(), last, PutOptions::new())]).collect::<Vec<_>>()
    };
    let result = s.put_batch_with(items(failing()), BatchOptions::new().atomic(true)).await;
    expect_kind("an atomic batch whose last item fails", result, ErrorKind::InvalidInput)?;
    expect_eq("the keys", keys(s, "").await?, [""; 0])?;
    for result in s.put_batch_with(items(whole("v")), BatchOptions::new().atomic(true)).await? {
        result?;
    }
    for i in 0..ITEMS {
        let seen = entry(s, &format!("k{i:03}")).await?.metadata.unwrap_or_default();
        expect_eq(&format!("the metadata of item {i}"), &*seen, &described(i))?;
    }
    Ok(())
}

fn whole(value: &'static str) -> Body {
    value.into()
}

/// A body that breaks off with an error.
fn failing() -> Body {
    let error = Error::new(ErrorKind::InvalidInput, "the check's own broken body");
    Body::stream(stream::iter([Ok(Bytes::from("begin")), Err(error)]))
}
