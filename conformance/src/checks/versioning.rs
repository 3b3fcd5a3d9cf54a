//! Older values that are kept.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use storage_core::{
    Body, ByteRange, CopyOptions, DeleteOptions, Entry, ErrorKind, GetOptions, Metadata, StatOptions, Storage,
    VersionId,
};

use crate::{
    Context, Outcome,
    assert::{expect, expect_bytes, expect_eq, expect_kind, expect_some},
    numbers::Pace,
    support::{entry, expect_value, keys, noise, pieces, race, with},
};

/// Every put makes a version, and they are listed newest first.
/// Needs: versioning
pub async fn listed_newest_first(c: Context) -> Outcome {
    let s = &c.storage;
    let mut written = Vec::new();
    for i in 0..5 {
        let metadata = Metadata::new().field("n", i);
        let value = vec![b'v'; i as usize];
        written.insert(0, s.put_with("key", value, with(metadata)).await?);
    }
    let seen = versions(s, "key").await?;
    expect_eq("the versions", ids(&seen)?, ids(&written)?)?;
    let distinct: BTreeSet<VersionId> = ids(&seen)?.into_iter().collect();
    expect_eq("the number of different versions", distinct.len(), 5)?;
    for (seen, written) in seen.iter().zip(&written) {
        expect_eq("the key of a version", seen.key.as_str(), "key")?;
        expect_eq("the size of a version", seen.size, written.size)?;
        if written.modified.is_some() {
            expect_eq("the date of a version", seen.modified, written.modified)?;
        }
    }
    expect_eq("the keys", keys(s, "").await?, ["key"])
}

/// The same bytes, a stream, an item of a batch and the target of a copy each make one version.
/// Needs: versioning
pub async fn every_way_to_write_makes_one(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("key", "same").await?;
    s.put("key", "same").await?;
    s.put("key", Body::stream(pieces("stream".into(), 2))).await?;
    s.put_batch([("key", "batch"), ("other", "v")]).await?;
    s.copy("other", "key").await?;
    let mut seen = Vec::new();
    for version in ids(&versions(s, "key").await?)? {
        let value = s.get_with("key", GetOptions::new().version(version)).await?;
        seen.push(expect_some("the value of a version", value)?);
    }
    expect_eq("the versions, newest first", seen, ["v", "batch", "stream", "same", "same"])
}

/// An old version is read as it was written: bytes, ranges, size and metadata.
/// Needs: versioning
pub async fn old_can_be_read(c: Context) -> Outcome {
    let s = &c.storage;
    let mut written = Vec::new();
    for i in 0..4_u64 {
        let value = noise([10, 0, c.size(2 << 20), 100][i as usize], i);
        let metadata = Metadata::new().tag(format!("v{i}"));
        written.push((s.put_with("key", value.clone(), with(metadata)).await?, value));
    }
    for (i, (written, value)) in written.into_iter().enumerate() {
        let version = expect_some("the version", written.version)?;
        let options = GetOptions::new().version(version.clone());
        let seen = expect_some("the value", s.get_with("key", options.clone()).await?)?;
        expect_bytes("the value of a version", &seen, &value)?;
        let object = expect_some("the object", s.open("key", options.clone()).await?)?;
        let stat = s.stat_with("key", StatOptions::new().version(version.clone())).await?;
        for entry in [object.entry, expect_some("the entry", stat)?] {
            expect_eq("the size of a version", entry.size, value.len() as u64)?;
            expect_eq("the version", entry.version.as_ref(), Some(&version))?;
            expect_eq("the etag of a version", entry.etag, written.etag.clone())?;
            let metadata = entry.metadata.unwrap_or_default();
            expect_eq("the metadata of a version", &*metadata, &Metadata::new().tag(format!("v{i}")))?;
        }
        if value.len() > 8 {
            let part = s.get_with("key", options.range(3..8)).await?;
            expect_bytes("a range of a version", &expect_some("a range", part)?, &value[3..8])?;
        }
    }
    Ok(())
}

/// A delete hides the key from reads and listings and keeps its versions; a later put goes on.
/// Needs: versioning
pub async fn delete_hides_and_keeps(c: Context) -> Outcome {
    let s = &c.storage;
    let first = s.put("key", "first").await?;
    let second = s.put("key", "second").await?;
    s.delete("key").await?;
    expect_value(s, "key", None).await?;
    expect_eq("the entry", s.stat("key").await?, None)?;
    expect_eq("the keys", keys(s, "").await?, [""; 0])?;
    let seen = ids(&versions(s, "key").await?)?;
    expect_eq("the versions", seen, ids(&[second.clone(), first.clone()])?)?;
    let old = GetOptions::new().version(expect_some("the version", first.version.clone())?);
    expect_eq("the old value", s.get_with("key", old).await?, Some("first".into()))?;
    let third = s.put("key", "third").await?;
    let seen = ids(&versions(s, "key").await?)?;
    expect_eq("the versions", seen, ids(&[third, second, first])?)
}

/// An old version can be deleted for good; the others and the value stay.
/// Needs: versioning
pub async fn old_can_be_deleted(c: Context) -> Outcome {
    let s = &c.storage;
    let mut written = Vec::new();
    for value in ["1", "2", "3"] {
        written.insert(0, s.put("key", value).await?);
    }
    let gone = expect_some("the version", written.remove(1).version)?;
    for _ in 0..2 {
        s.delete_with("key", DeleteOptions::new().version(gone.clone())).await?;
    }
    expect_eq("the versions", ids(&versions(s, "key").await?)?, ids(&written)?)?;
    expect_eq("the deleted version", s.get_with("key", GetOptions::new().version(gone)).await?, None)?;
    expect_value(s, "key", Some(b"3")).await
}

/// A version that does not exist, or is another key's, is `None`, and as the source of a copy `NotFound`.
/// Needs: versioning
pub async fn missing_is_none(c: Context) -> Outcome {
    let s = &c.storage;
    let gone = expect_some("the version", s.put("key", "1").await?.version)?;
    s.put("key", "2").await?;
    s.delete_with("key", DeleteOptions::new().version(gone.clone())).await?;
    for version in [gone, VersionId::new("no such version")] {
        let read = s.get_with("key", GetOptions::new().version(version.clone())).await?;
        expect_eq("a read of a missing version", read, None)?;
        let stat = s.stat_with("key", StatOptions::new().version(version.clone())).await?;
        expect_eq("a stat of a missing version", stat, None)?;
        let copy = s.copy_with("key", "to", CopyOptions::new().version(version)).await;
        expect_kind("a copy of a missing version", copy, ErrorKind::NotFound)?;
    }
    expect_eq("the versions of an absent key", versions(s, "absent").await?.len(), 0)?;
    expect_eq("the keys", keys(s, "").await?, ["key"])
}

/// The versions of a key are its own: not those of keys below or with a longer name.
/// Needs: versioning
pub async fn of_one_key_only(c: Context) -> Outcome {
    let s = &c.storage;
    for key in ["a", "a/b", "ab", "A", "a/", "a%"] {
        s.put(key, "1").await?;
        s.put(key, key).await?;
    }
    s.delete("a/b").await?;
    for key in ["a", "a/b", "ab", "A", "a/", "a%"] {
        let seen = versions(s, key).await?;
        expect_eq(&format!("the number of versions of {key:?}"), seen.len(), 2)?;
        expect(seen.iter().all(|entry| entry.key.as_str() == key), || {
            format!("expected versions of {key:?}, saw {seen:?}")
        })?;
    }
    Ok(())
}

/// An old version can be copied, also over the newest, which makes a new version.
/// Needs: versioning
pub async fn copy_restores(c: Context) -> Outcome {
    let s = &c.storage;
    let metadata = Metadata::new().tag("old");
    let old = s.put_with("key", "old", with(metadata.clone())).await?;
    s.put("key", "new").await?;
    let options = CopyOptions::new().version(expect_some("the version", old.version)?);
    for to in ["other", "key"] {
        s.copy_with("key", to, options.clone()).await?;
        expect_value(s, to, Some(b"old")).await?;
        let seen = entry(s, to).await?.metadata.unwrap_or_default();
        expect_eq("the metadata", &*seen, &metadata)?;
    }
    expect_eq("the number of versions", versions(s, "key").await?.len(), 3)
}

/// Racing writers get distinct versions, and none is lost.
/// Needs: versioning
pub async fn racing_writers_are_distinct(c: Context) -> Outcome {
    let handles = [c.storage.clone(), c.second_handle().await?];
    let written = race(4, move |i| {
        let s = handles[i % 2].clone();
        async move {
            let mut written = Vec::new();
            for round in 0..2 {
                let value = format!("{i} {round}");
                let version = s.put("key", value.clone()).await?.version;
                written.push((expect_some("the version", version)?, value));
            }
            Ok(written)
        }
    });
    let written: BTreeMap<VersionId, String> = written.await?.into_iter().flatten().collect();
    expect_eq("the number of different versions", written.len(), 8)?;
    let listed: BTreeSet<VersionId> = ids(&versions(&c.storage, "key").await?)?.into_iter().collect();
    expect_eq("the versions listed", listed, written.keys().cloned().collect::<BTreeSet<_>>())?;
    for (version, value) in written {
        let seen = c.storage.get_with("key", GetOptions::new().version(version)).await?;
        expect_eq("the value of a version", seen, Some(value.into()))?;
    }
    Ok(())
}

/// `clear` hides keys as a delete does: their versions stay, are listed, read, described and copied.
/// Needs: versioning
pub async fn clear_hides_and_keeps(c: Context) -> Outcome {
    let s = &c.storage;
    let mut written = BTreeMap::new();
    for key in ["a/1", "a/2", "b"] {
        s.put(key, "old").await?;
        let second = s.put(key, format!("new {key}")).await?;
        written.insert(key, ids(&[second])?);
    }
    s.clear_prefix("a/").await?;
    expect_eq("the keys", keys(s, "").await?, ["b"])?;
    s.clear().await?;
    expect_eq("the keys", keys(s, "").await?, [""; 0])?;
    for (key, newest) in written {
        expect_value(s, key, None).await?;
        let seen = ids(&versions(s, key).await?)?;
        expect_eq(&format!("the number of versions of {key:?} after clear"), seen.len(), 2)?;
        expect_eq("the newest version after clear", &seen[..1], &newest[..])?;
        still_there(s, key, &newest[0], format!("new {key}").as_bytes()).await?;
        s.put(key, "again").await?;
        expect_eq("the number of versions", versions(s, key).await?.len(), 3)?;
    }
    Ok(())
}

/// A rename is a put of the target and a delete of the source: the source keeps its versions, the target gets one more.
/// Needs: versioning
pub async fn rename_keeps_both(c: Context) -> Outcome {
    let s = &c.storage;
    for key in ["from", "to"] {
        s.put(key, format!("old {key}")).await?;
        s.put(key, format!("new {key}")).await?;
    }
    let (from, to) = (ids(&versions(s, "from").await?)?, ids(&versions(s, "to").await?)?);
    let renamed = ids(&[s.rename("from", "to").await?])?;
    expect_eq("the keys", keys(s, "").await?, ["to"])?;
    expect_eq("the versions of the source", ids(&versions(s, "from").await?)?, from.clone())?;
    let seen = ids(&versions(s, "to").await?)?;
    expect_eq("the versions of the target", seen, [renamed, to.clone()].concat())?;
    still_there(s, "from", &from[0], b"new from").await?;
    still_there(s, "from", &from[1], b"old from").await?;
    still_there(s, "to", &to[0], b"new to").await?;
    s.put("from", "again").await?;
    expect_eq("the number of versions", versions(s, "from").await?.len(), 3)
}

/// What `versions` says of each is what a stat of it says, metadata included, of a deleted key too.
/// Needs: versioning
pub async fn listed_as_described(c: Context) -> Outcome {
    let s = &c.storage;
    for i in 0..5_i64 {
        let metadata = if i == 2 { Metadata::new() } else { Metadata::new().tag(format!("v{i}")).field("n", i) };
        s.put_with("key", vec![b'v'; 10 - i as usize], with(metadata)).await?;
    }
    for deleted in [false, true] {
        if deleted {
            s.delete("key").await?;
        }
        let listed = versions(s, "key").await?;
        expect_eq("the number of versions", listed.len(), 5)?;
        for (i, listed) in (0..5_i64).rev().zip(listed) {
            let what = format!("version {i}, key deleted: {deleted}");
            let version = expect_some(&what, listed.version.clone())?;
            let stat = expect_some(&what, s.stat_with("key", StatOptions::new().version(version)).await?)?;
            let metadata = if i == 2 { Metadata::new() } else { Metadata::new().tag(format!("v{i}")).field("n", i) };
            expect_eq(&format!("the metadata by stat of {what}"), stat.metadata.as_deref(), Some(&metadata))?;
            expect_eq(&format!("the metadata listed of {what}"), listed.metadata.as_deref(), Some(&metadata))?;
            let of = |entry: &Entry| {
                (entry.key.clone(), entry.size, entry.etag.clone(), entry.version.clone(), entry.modified)
            };
            expect_eq(&format!("the entry listed of {what}"), of(&listed), of(&stat))?;
            expect_eq(&format!("the size of {what}"), listed.size, 10 - i as u64)?;
        }
    }
    Ok(())
}

/// A range of a version is that of its own bytes, whether the newest is longer, shorter, empty or deleted.
/// Needs: versioning
pub async fn ranges_are_its_own(c: Context) -> Outcome {
    let (s, pace) = (&c.storage, Pace::begin());
    let mut written = Vec::new();
    for (i, size) in [300_000, 20, 70_000, 3, 0].into_iter().enumerate() {
        let value = noise(c.size(size), i as u64);
        written.push((s.put("key", value.clone()).await?, value));
        if i < 2 {
            continue;
        }
        if i == 4 {
            s.delete("key").await?;
        }
        for (entry, value) in written.iter().take_while(|_| pace.goes_on()) {
            let version = expect_some("the version", entry.version.clone())?;
            still_there(s, "key", &version, value).await?;
            let len = value.len() as u64;
            for start in [len, 10, 25, 0, 65_536, len.saturating_sub(5)] {
                for range in
                    [ByteRange::from(start..start + 10), (start..).into(), ByteRange::Suffix(start), (0..start).into()]
                {
                    let what = format!("{range:?} of an old version of {len} bytes");
                    let seen = s.get_with("key", GetOptions::new().version(version.clone()).range(range)).await;
                    if let Ok(range) = range.resolve(len) {
                        let seen = expect_some(&what, seen?)?;
                        expect_bytes(&what, &seen, &value[range.start as usize..range.end as usize])?;
                    } else {
                        expect_kind(&what, seen, ErrorKind::RangeNotSatisfiable)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// A version that is kept can be read, described and copied.
async fn still_there(s: &Storage, key: &str, version: &VersionId, value: &[u8]) -> Outcome {
    let seen = s.get_with(key, GetOptions::new().version(version.clone())).await?;
    expect_bytes("the value of a version", &expect_some("the value of a version", seen)?, value)?;
    let stat = s.stat_with(key, StatOptions::new().version(version.clone())).await?;
    let stat = expect_some("the entry of a version", stat)?;
    expect_eq("the size of a version", stat.size, value.len() as u64)?;
    expect_eq("the version", stat.version.as_ref(), Some(version))?;
    s.copy_with(key, "copy of it", CopyOptions::new().version(version.clone())).await?;
    expect_value(s, "copy of it", Some(value)).await?;
    s.delete("copy of it").await?;
    Ok(())
}

async fn versions(s: &Storage, key: &str) -> Outcome<Vec<Entry>> {
    Ok(s.versions(key).await?.try_collect().await?)
}

fn ids(entries: &[Entry]) -> Outcome<Vec<VersionId>> {
    entries.iter().map(|entry| expect_some("the version of an entry", entry.version.clone())).collect()
}
