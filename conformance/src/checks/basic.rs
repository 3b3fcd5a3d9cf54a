//! Values under keys.

use storage_core::{GetOptions, ListOptions};

use crate::{
    Context, Outcome,
    assert::{expect, expect_eq},
    support::{entry, expect_value, keys, noise, positions, usable},
};

/// What was put is what get returns, whatever its size.
pub async fn roundtrip(c: Context) -> Outcome {
    for wanted in [1, 2, 1000, 4096, 70_000, (1 << 20) + 1] {
        let size = c.size(wanted);
        let value = noise(size, size as u64);
        c.storage.put("key", value.clone()).await?;
        expect_value(&c.storage, "key", Some(&value)).await?;
        expect_eq("the size", entry(&c.storage, "key").await?.size, size as u64)?;
    }
    Ok(())
}

/// An empty value is a value, not absence.
pub async fn empty_value(c: Context) -> Outcome {
    let s = &c.storage;
    expect_eq("the size put", s.put("empty", "").await?.size, 0)?;
    expect_value(s, "empty", Some(b"")).await?;
    expect_eq("the size", entry(s, "empty").await?.size, 0)?;
    expect_eq("the keys", keys(s, "").await?, ["empty"])
}

/// Every byte is kept as it is, in any place.
pub async fn all_byte_values(c: Context) -> Outcome {
    let forward: Vec<u8> = (0..=255).collect();
    let backward: Vec<u8> = (0..=255).rev().collect();
    for value in [forward, backward, b"\r\n".to_vec(), vec![0; 9], vec![0xff; 9]] {
        c.storage.put("bytes", value.clone()).await?;
        expect_value(&c.storage, "bytes", Some(&value)).await?;
    }
    Ok(())
}

/// A put replaces the value as a whole, also a longer one.
pub async fn overwrite(c: Context) -> Outcome {
    for value in ["a longer value", "short", "", "longer again"] {
        c.storage.put("key", value).await?;
        expect_value(&c.storage, "key", Some(value.as_bytes())).await?;
        let size = entry(&c.storage, "key").await?.size;
        expect_eq("the size", size, value.len() as u64)?;
    }
    expect_eq("the keys", keys(&c.storage, "").await?, ["key"])
}

/// `get` and `stat` of an absent key are `None`.
pub async fn missing_is_none(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("there/below", "v").await?;
    for key in usable(s, ["absent", "there", "there/", "there/below/further", "there/belo"]) {
        expect_value(s, key, None).await?;
        expect_eq(&format!("the entry of {key:?}"), s.stat(key).await?, None)?;
        let opened = s.open(key, GetOptions::new()).await?;
        expect(opened.is_none(), || format!("open {key:?}: expected nothing, saw {opened:?}"))?;
    }
    Ok(())
}

/// `delete` removes the value from reads and listings, and only that one.
pub async fn delete_removes(c: Context) -> Outcome {
    let s = &c.storage;
    for key in ["a", "b", "bb", "c"] {
        s.put(key, key).await?;
    }
    s.delete("b").await?;
    expect_value(s, "b", None).await?;
    expect_eq("the entry", s.stat("b").await?, None)?;
    expect_eq("the keys", keys(s, "").await?, ["a", "bb", "c"])?;
    s.put("b", "again").await?;
    expect_value(s, "b", Some(b"again")).await
}

/// `delete` is idempotent: the key need not exist.
pub async fn delete_idempotent(c: Context) -> Outcome {
    c.storage.delete("never").await?;
    c.storage.put("once", "v").await?;
    c.storage.delete("once").await?;
    c.storage.delete("once").await?;
    expect_value(&c.storage, "once", None).await
}

/// A write is still there when the store is opened again.
pub async fn reopen_persists(c: Context) -> Outcome {
    let value = noise(c.size(100_000), 1);
    c.storage.put("kept", value.clone()).await?;
    c.storage.put("gone", "v").await?;
    c.storage.delete("gone").await?;
    let again = c.open_again().await?;
    expect_value(&again, "kept", Some(&value)).await?;
    expect_eq("the keys", keys(&again, "").await?, ["kept"])
}

/// `put` returns the entry it wrote: key, size, and what a stat says afterwards; it may lack dates.
pub async fn put_returns_entry(c: Context) -> Outcome {
    for value in ["first", "the second"] {
        let written = c.storage.put("key", value).await?;
        expect_eq("the key", written.key.as_str(), "key")?;
        expect_eq("the size", written.size, value.len() as u64)?;
        let seen = entry(&c.storage, "key").await?;
        expect_eq("the size by stat", seen.size, written.size)?;
        expect_eq("the etag by stat", seen.etag, written.etag)?;
        expect_eq("the version by stat", seen.version, written.version)?;
        if written.modified.is_some() {
            expect_eq("the date by stat", seen.modified, written.modified)?;
        }
    }
    Ok(())
}

/// Once acknowledged, a write or delete is seen by every read and listing, through every handle.
pub async fn acknowledged_is_visible(c: Context) -> Outcome {
    let other = c.second_handle().await?;
    for i in 0..20 {
        let (key, value) = (format!("key{}", i % 3), format!("value{i}"));
        c.storage.put(&key, value.clone()).await?;
        for handle in [&c.storage, &other] {
            expect_value(handle, &key, Some(value.as_bytes())).await?;
            expect_eq("the size", entry(handle, &key).await?.size, value.len() as u64)?;
            let listed = positions(handle, ListOptions::new().prefix(key.as_str())).await?;
            expect_eq("the listing after a put", listed, [key.as_str()])?;
        }
        if i % 4 == 3 {
            c.storage.delete(&key).await?;
            for handle in [&other, &c.storage] {
                expect_value(handle, &key, None).await?;
                let listed = keys(handle, &key).await?;
                expect_eq("the listing after a delete", listed, [""; 0])?;
            }
        }
    }
    Ok(())
}

/// Keys do not influence one another.
pub async fn keys_are_independent(c: Context) -> Outcome {
    let mut rng = c.rng();
    let mut model = std::collections::BTreeMap::new();
    for _ in 0..100 {
        let key = format!("k{}", rng.u8(0..12));
        if rng.u8(0..4) == 0 {
            c.storage.delete(&key).await?;
            model.remove(&key);
        } else {
            let value = noise(rng.usize(0..300), rng.u64(..));
            c.storage.put(&key, value.clone()).await?;
            model.insert(key, value);
        }
    }
    for i in 0..12 {
        let key = format!("k{i}");
        expect_value(&c.storage, &key, model.get(&key).map(|value| &value[..])).await?;
    }
    let expected: Vec<&String> = model.keys().collect();
    expect_eq("the keys", keys(&c.storage, "").await?.iter().collect::<Vec<_>>(), expected)
}
