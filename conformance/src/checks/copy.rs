//! Copies: with metadata, sharing nothing.

use std::sync::Arc;

use storage_core::{Condition, CopyOptions, ErrorKind, Metadata};

use crate::{
    Context, Outcome,
    assert::{expect_eq, expect_kind, expect_some},
    support::{entry, expect_value, keys, noise, with},
};

/// A copy has the value and, unless others are given, the metadata of its source.
/// Profile: full
pub async fn keeps_metadata(c: Context) -> Outcome {
    let s = &c.storage;
    let metadata = Metadata::new().content_type("text/plain").tag("t").field("n", 1).field("x", 1.0);
    s.put_with("from", "value", with(metadata.clone())).await?;
    let written = s.copy("from", "to").await?;
    expect_eq("the key", written.key.as_str(), "to")?;
    expect_eq("the size", written.size, 5)?;
    expect_value(s, "to", Some(b"value")).await?;
    expect_eq("the metadata", entry(s, "to").await?.metadata, Some(Arc::new(metadata.clone())))?;
    let other = Metadata::new().field("n", "two");
    s.copy_with("from", "to", CopyOptions::new().metadata(other.clone())).await?;
    expect_eq("the metadata given", entry(s, "to").await?.metadata, Some(Arc::new(other)))?;
    expect_eq("the source's metadata", entry(s, "from").await?.metadata, Some(Arc::new(metadata)))
}

/// A copy is a whole value, replaces the target, and leaves the source.
pub async fn replaces_the_target(c: Context) -> Outcome {
    let (s, large) = (&c.storage, noise(c.size(3 << 20), 1));
    s.put("large", large.clone()).await?;
    s.put("small", "small").await?;
    s.put("to", "old").await?;
    for (from, value) in [("large", &large[..]), ("small", b"small"), ("large", &large)] {
        let written = s.copy(from, "to").await?;
        expect_eq("the size", written.size, value.len() as u64)?;
        expect_value(s, "to", Some(value)).await?;
        expect_value(s, from, Some(value)).await?;
    }
    expect_eq("the keys", keys(s, "").await?, ["large", "small", "to"])
}

/// Afterwards source and copy share nothing: changing or deleting one leaves the other.
pub async fn does_not_alias(c: Context) -> Outcome {
    let (s, large) = (&c.storage, noise(c.size(2 << 20), 2));
    for value in [&b"value"[..], &large] {
        s.put("from", value.to_vec()).await?;
        s.copy("from", "a").await?;
        s.copy("from", "b").await?;
        s.put("from", "changed").await?;
        expect_value(s, "a", Some(value)).await?;
        s.put("a", "changed too").await?;
        expect_value(s, "b", Some(value)).await?;
        expect_value(s, "from", Some(b"changed")).await?;
        s.delete("from").await?;
        s.delete("a").await?;
        expect_value(s, "b", Some(value)).await?;
    }
    Ok(())
}

/// A source that is the target is left as it is.
pub async fn onto_itself(c: Context) -> Outcome {
    let (s, large) = (&c.storage, noise(c.size(2 << 20), 3));
    for value in [&b"value"[..], &large, b""] {
        s.put("key", value.to_vec()).await?;
        let seen = s.copy("key", "key").await?;
        expect_eq("the size", seen.size, value.len() as u64)?;
        expect_value(s, "key", Some(value)).await?;
    }
    expect_eq("the keys", keys(s, "").await?, ["key"])
}

/// A source that is the target can be given new metadata.
/// Profile: full
pub async fn onto_itself_with_metadata(c: Context) -> Outcome {
    let (s, metadata) = (&c.storage, Metadata::new().tag("new"));
    s.put_with("key", "value", with(Metadata::new().tag("old"))).await?;
    s.copy("key", "key").await?;
    let kept = entry(s, "key").await?.metadata;
    expect_eq("the metadata kept", kept, Some(Arc::new(Metadata::new().tag("old"))))?;
    s.copy_with("key", "key", CopyOptions::new().metadata(metadata.clone())).await?;
    expect_eq("the metadata given", entry(s, "key").await?.metadata, Some(Arc::new(metadata)))?;
    expect_value(s, "key", Some(b"value")).await
}

/// A source that does not exist is `NotFound`, and the target stays.
pub async fn missing_source(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("to", "old").await?;
    s.put("absent/below", "v").await?;
    for to in ["to", "new", "absent"] {
        expect_kind("a copy of nothing", s.copy("absent", to).await, ErrorKind::NotFound)?;
    }
    expect_value(s, "to", Some(b"old")).await?;
    expect_eq("the keys", keys(s, "").await?, ["absent/below", "to"])
}

/// A condition on a copy is one on its target.
/// Needs: conditional
pub async fn conditional(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("from", "value").await?;
    let absent = || CopyOptions::new().condition(Condition::IfAbsent);
    let first = s.copy_with("from", "to", absent()).await?;
    expect_value(s, "to", Some(b"value")).await?;
    s.put("from", "newer").await?;
    let again = s.copy_with("from", "to", absent()).await;
    expect_kind("a copy if absent to what exists", again, ErrorKind::AlreadyExists)?;
    expect_value(s, "to", Some(b"value")).await?;
    let etag = expect_some("the etag", first.etag)?;
    let matching = || CopyOptions::new().condition(Condition::IfMatch(etag.clone()));
    s.copy_with("from", "to", matching()).await?;
    expect_value(s, "to", Some(b"newer")).await?;
    let stale = s.copy_with("from", "to", matching()).await;
    expect_kind("a copy with a stale etag", stale, ErrorKind::PreconditionFailed)?;
    let missing = s.copy_with("from", "absent", matching()).await;
    expect_kind("a copy with an etag to nothing", missing, ErrorKind::PreconditionFailed)?;
    expect_eq("the keys", keys(s, "").await?, ["from", "to"])
}
