//! Moving a value.

use std::sync::Arc;

use storage_core::{Condition, ErrorKind, Metadata, RenameOptions};

use crate::{
    Context, Outcome,
    assert::{expect_eq, expect_kind, expect_some},
    support::{entry, expect_value, keys, noise, with},
};

/// Afterwards the value is under the new key only, whatever was there before.
pub async fn moves(c: Context) -> Outcome {
    let (s, large) = (&c.storage, noise(c.size(3 << 20), 1));
    for value in [&b"value"[..], &large, b""] {
        s.put("from", value.to_vec()).await?;
        s.put("to", "old and longer than the value").await?;
        let written = s.rename("from", "to").await?;
        expect_eq("the key", written.key.as_str(), "to")?;
        expect_eq("the size", written.size, value.len() as u64)?;
        expect_value(s, "to", Some(value)).await?;
        expect_value(s, "from", None).await?;
        expect_eq("the keys", keys(s, "").await?, ["to"])?;
    }
    s.rename("to", "to/below/it").await?;
    expect_eq("the keys", keys(s, "").await?, ["to/below/it"])
}

/// The metadata moves along.
/// Profile: full
pub async fn keeps_metadata(c: Context) -> Outcome {
    let (s, metadata) = (&c.storage, Metadata::new().content_type("text/plain").tag("t").field("n", 1));
    s.put_with("from", "value", with(metadata.clone())).await?;
    s.put_with("to", "old", with(Metadata::new().tag("old"))).await?;
    s.rename("from", "to").await?;
    expect_eq("the metadata", entry(s, "to").await?.metadata, Some(Arc::new(metadata)))
}

/// A source that is the target is left as it is.
pub async fn onto_itself(c: Context) -> Outcome {
    let (s, large) = (&c.storage, noise(c.size(2 << 20), 2));
    for value in [&b"value"[..], &large] {
        s.put("key", value.to_vec()).await?;
        let seen = s.rename("key", "key").await?;
        expect_eq("the size", seen.size, value.len() as u64)?;
        expect_value(s, "key", Some(value)).await?;
    }
    expect_eq("the keys", keys(s, "").await?, ["key"])
}

/// A source that does not exist is `NotFound`, and the target stays.
pub async fn missing_source(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("to", "old").await?;
    for to in ["to", "new", "absent"] {
        expect_kind("a rename of nothing", s.rename("absent", to).await, ErrorKind::NotFound)?;
    }
    expect_value(s, "to", Some(b"old")).await?;
    expect_eq("the keys", keys(s, "").await?, ["to"])
}

/// A condition on a rename is one on its target; when it fails the source stays.
/// Needs: conditional
pub async fn conditional(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("a", "1").await?;
    s.put("b", "2").await?;
    let absent = || RenameOptions::new().condition(Condition::IfAbsent);
    let refused = s.rename_with("a", "b", absent()).await;
    expect_kind("a rename if absent to what exists", refused, ErrorKind::AlreadyExists)?;
    expect_value(s, "a", Some(b"1")).await?;
    expect_value(s, "b", Some(b"2")).await?;
    let first = s.rename_with("a", "to", absent()).await?;
    expect_value(s, "a", None).await?;
    let etag = expect_some("the etag", first.etag)?;
    let matching = || RenameOptions::new().condition(Condition::IfMatch(etag.clone()));
    s.rename_with("b", "to", matching()).await?;
    expect_value(s, "to", Some(b"2")).await?;
    s.put("c", "3").await?;
    let stale = s.rename_with("c", "to", matching()).await;
    expect_kind("a rename with a stale etag", stale, ErrorKind::PreconditionFailed)?;
    expect_value(s, "c", Some(b"3")).await?;
    expect_eq("the keys", keys(s, "").await?, ["c", "to"])
}
