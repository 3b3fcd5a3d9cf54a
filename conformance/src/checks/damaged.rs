//! Values whose record, framing or metadata others have damaged: they are told, and can be replaced and removed.

use futures_util::TryStreamExt;
use storage_core::{
    Bytes, Comparison, Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, Etag, Filter, GetOptions, Key,
    ListItem, ListOptions, Metadata, PutOptions, Query, Storage,
};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq, expect_kind},
    support::{entries, entry, expect_value, keys, keys_of, with},
};

/// The keys: sound ones before, beside and behind the damaged one.
const KEYS: [&str; 4] = ["d/a", "d/b", "d/b/below", "d/c"];
const DAMAGED: &str = "d/b";
/// The key under which others store a value.
pub(crate) const OF_OTHERS: &str = "others/theirs";

fn metadata() -> Metadata {
    Metadata::new().content_type("text/plain").tag("t").field("n", 1)
}

/// A store in which one of four values is damaged, as another handle sees it, and the etag which that had before.
async fn damaged(c: &Context) -> Outcome<(Storage, Option<Etag>)> {
    for key in KEYS {
        c.storage.put_with(key, key, with(metadata())).await?;
    }
    let etag = entry(&c.storage, DAMAGED).await?.etag;
    again(c).await?;
    Ok((c.second_handle().await?, etag))
}

/// Damages the value.
async fn again(c: &Context) -> Outcome {
    let damaging = c.target().damaging(c.namespace(), Key::parse(DAMAGED)?);
    damaging.ok_or_else(|| Failure::NotRun("nobody has said how others damage a value of this store".into()))?.await?;
    Ok(())
}

fn is_damaged(what: &str, entry: &Entry) -> Outcome {
    expect_eq(&format!("{what}: the key"), entry.key.as_str(), DAMAGED)?;
    let kind = entry.damaged.as_ref().map(Error::kind);
    expect_eq(&format!("{what}: why {DAMAGED:?} is damaged"), kind, Some(ErrorKind::Corrupt))?;
    expect_eq(&format!("{what}: the metadata of a damaged value"), entry.metadata.as_deref(), None)
}

/// What others stored without the backend's record is an ordinary value without metadata: listed, found and read as any.
/// Profile: full
pub async fn values_of_others_are_ordinary(c: Context) -> Outcome {
    for key in KEYS {
        c.storage.put_with(key, key, with(metadata())).await?;
    }
    let storing = c.target().storing(c.namespace(), Key::parse(OF_OTHERS)?, Bytes::from_static(b"theirs"));
    storing.ok_or_else(|| Failure::NotRun("nobody has said how others store a value here".into()))?.await?;
    let s = c.second_handle().await?;
    let listed = entries(&s, "").await?;
    let theirs = listed.iter().find(|entry| entry.key.as_str() == OF_OTHERS);
    let queried: Vec<Entry> = s.query(Query::new().prefix(OF_OTHERS).all_tags([""; 0])).await?.try_collect().await?;
    let stat = s.stat(OF_OTHERS).await?;
    for (what, entry) in [("a listing", theirs), ("a query", queried.first()), ("a stat", stat.as_ref())] {
        let entry = entry.ok_or_else(|| format!("expected {what} to show {OF_OTHERS:?}, saw nothing"))?;
        expect_eq(&format!("{what}: why it is damaged"), entry.damaged.as_ref().map(Error::kind), None)?;
        expect_eq(&format!("{what}: the size"), entry.size, 6)?;
        expect_eq(&format!("{what}: the metadata"), entry.metadata.as_deref(), Some(&Metadata::new()))?;
    }
    expect_value(&s, OF_OTHERS, Some(b"theirs")).await?;
    s.put_with(OF_OTHERS, "ours", with(metadata())).await?;
    expect_value(&s, OF_OTHERS, Some(b"ours")).await?;
    expect_eq("the metadata", entry(&s, OF_OTHERS).await?.metadata.as_deref(), Some(&metadata()))?;
    s.delete(OF_OTHERS).await?;
    expect_value(&s, OF_OTHERS, None).await
}

/// A damaged value ends no listing: with metadata it is yielded in its place as damaged, without metadata and with its dates
/// where they are known, and the others are sound.
/// Profile: full
pub async fn is_listed_as_such(c: Context) -> Outcome {
    let (s, _) = damaged(&c).await?;
    let listed = entries(&s, "d/").await?;
    expect_eq("the keys", listed.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), KEYS)?;
    for entry in &listed {
        if entry.key.as_str() == DAMAGED {
            is_damaged("a listing", entry)?;
        } else {
            expect_eq("why a sound value is damaged", entry.damaged.as_ref().map(Error::kind), None)?;
            expect_eq("the metadata of a sound one", entry.metadata.as_deref(), Some(&metadata()))?;
        }
    }
    // Whether a listing that reads no metadata knows of the damage is the store's affair.
    expect_eq("the keys without metadata", keys(&s, "d/").await?, KEYS)?;
    expect_eq("the keys behind it", positions_after(&s, DAMAGED).await?, &KEYS[2..])?;
    let delimited = ListOptions::new().prefix("d/").delimited(true).metadata(true);
    let items: Vec<ListItem> = s.list_with(delimited).await?.try_collect().await?;
    let positions: Vec<&str> = items.iter().map(ListItem::position).collect();
    expect_eq("the positions of one level", positions, ["d/a", "d/b", "d/b/", "d/c"])?;
    items
        .into_iter()
        .filter_map(ListItem::into_entry)
        .filter(|entry| entry.key.as_str() == DAMAGED)
        .try_for_each(|entry| is_damaged("a one-level listing", &entry))
}

async fn positions_after(s: &Storage, start: &str) -> Outcome<Vec<String>> {
    let options = ListOptions::new().prefix("d/").start_after(start).metadata(true);
    let items: Vec<ListItem> = s.list_with(options).await?.try_collect().await?;
    Ok(items.iter().map(|item| item.position().to_owned()).collect())
}

/// `get`, a range and `stat` of a damaged value fail with `Corrupt`, also as one item of a batch, whose others succeed; a copy
/// of it fails so too, or is as damaged.
/// Profile: full
pub async fn reads_are_corrupt(c: Context) -> Outcome {
    let (s, _) = damaged(&c).await?;
    let e = expect_kind("a get", s.get(DAMAGED).await, ErrorKind::Corrupt)?;
    expect_eq("the key in the error of a get", e.key().map(Key::as_str), Some(DAMAGED))?;
    expect_kind("a range", s.get_with(DAMAGED, GetOptions::new().range(1..2)).await, ErrorKind::Corrupt)?;
    let e = expect_kind("a stat", s.stat(DAMAGED).await, ErrorKind::Corrupt)?;
    expect_eq("the key in the error of a stat", e.key().map(Key::as_str), Some(DAMAGED))?;
    let items: Outcome<Vec<_>> = KEYS.map(|key| Ok((Key::parse(key)?, GetOptions::new()))).into_iter().collect();
    let results = s.backend().get_batch(items?).await?;
    for (key, result) in KEYS.into_iter().zip(results) {
        if key == DAMAGED {
            expect_kind("an item of a batch", result, ErrorKind::Corrupt)?;
        } else {
            let object = result?.ok_or_else(|| format!("expected a value of {key:?} in a batch, saw none"))?;
            expect_eq("a sound item of a batch", &*object.body.bytes(u64::MAX).await?, key.as_bytes())?;
        }
    }
    match s.copy(DAMAGED, "to").await {
        Err(e) => expect_kind::<()>("a copy", Err(e), ErrorKind::Corrupt).map(drop),
        Ok(_) => expect_kind("a get of a copy", s.get("to").await, ErrorKind::Corrupt).map(drop),
    }
}

/// A query does not fail because of a damaged value: it yields it, but a filter on metadata, even one that every metadata
/// passes, leaves it out.
/// Profile: full
pub async fn queries_find_it_by_no_metadata(c: Context) -> Outcome {
    let (s, _) = damaged(&c).await?;
    let all: Vec<Entry> = s.query(Query::new().prefix("d/")).await?.try_collect().await?;
    expect_eq("the keys", all.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), KEYS)?;
    is_damaged("a query", &all[1])?;
    let sound = [KEYS[0], KEYS[2], KEYS[3]];
    let field = |comparison| Filter::Field { name: "n".into(), comparison, value: 1.into() };
    for filter in [
        field(Comparison::Equal),
        Filter::ContentType("text/plain".into()),
        Filter::AnyTag(["t".to_owned()].into()),
        Filter::AllTags(["t".to_owned()].into()),
        Filter::AllTags([].into()),
    ] {
        let what = format!("the keys found by {filter:?}");
        expect_eq(&what, keys_of(s.query(Query::new().prefix("d/").filter(filter)).await?).await?, sound)?;
    }
    let none = s.query(Query::new().prefix("d/").filter(field(Comparison::NotEqual))).await?;
    expect_eq("the keys whose field differs", keys_of(none).await?, [""; 0])
}

/// Put, delete, batches and clear work on a damaged value; what was written over it is sound.
/// Profile: full
pub async fn can_be_replaced_and_removed(c: Context) -> Outcome {
    let (s, _) = damaged(&c).await?;
    let written = s.put_with(DAMAGED, "new", with(metadata())).await?;
    expect_eq("the entry written is damaged", written.damaged.map(|e| e.kind()), None)?;
    sound_again(&s).await?;
    again(&c).await?;
    for result in s.put_batch_with([(DAMAGED, "new", with(metadata()))], Default::default()).await? {
        result?;
    }
    sound_again(&s).await?;
    again(&c).await?;
    s.copy_with("d/a", DAMAGED, CopyOptions::new()).await?;
    expect_value(&s, DAMAGED, Some(b"d/a")).await?;
    again(&c).await?;
    s.delete(DAMAGED).await?;
    gone(&s, "a delete").await?;
    s.put(DAMAGED, "v").await?;
    again(&c).await?;
    s.delete_batch([DAMAGED]).await?;
    gone(&s, "a batch of deletes").await?;
    s.put(DAMAGED, "v").await?;
    again(&c).await?;
    s.clear_prefix("d/").await?;
    expect_eq("the keys after clear", keys(&s, "").await?, [""; 0])
}

async fn sound_again(s: &Storage) -> Outcome {
    expect_value(s, DAMAGED, Some(b"new")).await?;
    expect_eq("the metadata", entry(s, DAMAGED).await?.metadata.as_deref(), Some(&metadata()))?;
    let damaged = entries(s, "d/").await?.into_iter().filter(|entry| entry.damaged.is_some()).count();
    expect_eq("the number of damaged entries", damaged, 0)
}

async fn gone(s: &Storage, what: &str) -> Outcome {
    expect_value(s, DAMAGED, None).await?;
    expect(!keys(s, "d/").await?.iter().any(|key| key == DAMAGED), || {
        format!("expected {DAMAGED:?} to be listed no more after {what}, saw it")
    })
}

/// A damaged value is there and has no etag: `IfAbsent` is `AlreadyExists`, and `IfMatch` with the etag that it had
/// `PreconditionFailed`.
/// Needs: conditional
/// Profile: full
pub async fn no_condition_holds(c: Context) -> Outcome {
    let (s, etag) = damaged(&c).await?;
    let absent = PutOptions::new().condition(Condition::IfAbsent);
    let result = s.put_with(DAMAGED, "new", absent).await;
    expect_kind("a put if it is absent", result, ErrorKind::AlreadyExists)?;
    let result = s.copy_with("d/a", DAMAGED, CopyOptions::new().condition(Condition::IfAbsent)).await;
    expect_kind("a copy if it is absent", result, ErrorKind::AlreadyExists)?;
    let matches = Condition::IfMatch(etag.unwrap_or_else(|| Etag::new("none")));
    let result = s.put_with(DAMAGED, "new", PutOptions::new().condition(matches.clone())).await;
    expect_kind("a put if the etag is that before the damage", result, ErrorKind::PreconditionFailed)?;
    if c.info().capabilities.conditional_delete {
        let result = s.delete_with(DAMAGED, DeleteOptions::new().condition(matches)).await;
        expect_kind("a delete if the etag is that before the damage", result, ErrorKind::PreconditionFailed)?;
    }
    expect_eq("the keys afterwards", keys(&s, "d/").await?, KEYS)
}
