//! Writes that happen only if something holds: check and write are one step.

use std::sync::Arc;

use storage_core::{
    Condition, DeleteOptions, Entry, ErrorKind, Etag, GetOptions, Metadata, PutOptions, Result, Storage,
};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_bytes, expect_eq, expect_kind, expect_some},
    calls::failed,
    support::{entry, expect_value, key, keys, race, with},
};

/// `IfAbsent` creates once; what exists is `AlreadyExists` and stays as it is. After a delete it creates again.
/// Needs: conditional
pub async fn create_once(c: Context) -> Outcome {
    let s = &c.storage;
    let create = |value: &'static str| s.put_with("key", value, absent());
    create("first").await?;
    for _ in 0..3 {
        expect_kind("a second creation", create("second").await, ErrorKind::AlreadyExists)?;
    }
    expect_value(s, "key", Some(b"first")).await?;
    s.delete("key").await?;
    create("third").await?;
    expect_value(s, "key", Some(b"third")).await?;
    s.put_with("empty", "", absent()).await?;
    let again = s.put_with("empty", "v", absent()).await;
    expect_kind("a creation over an empty value", again, ErrorKind::AlreadyExists)?;
    Ok(())
}

/// Of racing creators exactly one wins and the others get `AlreadyExists`; the value is the winner's.
/// Needs: conditional
pub async fn create_race_one_winner(c: Context) -> Outcome {
    let handles = handles(&c).await?;
    for round in 0..12 {
        let (handles, key) = (handles.clone(), format!("key{round}"));
        let contested = key.clone();
        let results = race(handles.len(), move |i| {
            let (s, key) = (handles[i].clone(), contested.clone());
            async move { Ok(s.put_with(&key, format!("{i}"), absent()).await) }
        });
        let winner = one_winner(results.await?, ErrorKind::AlreadyExists)?;
        expect_value(&c.storage, &key, Some(winner.to_string().as_bytes())).await?;
    }
    Ok(())
}

/// `IfMatch` with the current etag writes, and the etag it returns is current afterwards.
/// Needs: conditional
pub async fn update_match(c: Context) -> Outcome {
    let s = &c.storage;
    let mut current = etag(s.put("key", "0").await?)?;
    for i in 1..6 {
        let value = format!("{i}");
        current = etag(s.put_with("key", value.clone(), matching(&current)).await?)?;
        expect_value(s, "key", Some(value.as_bytes())).await?;
        expect_eq("the etag by stat", entry(s, "key").await?.etag, Some(current.clone()))?;
    }
    Ok(())
}

/// `IfMatch` with an etag of other bytes is `PreconditionFailed`, and value and metadata stay.
/// Needs: conditional
pub async fn update_stale(c: Context) -> Outcome {
    let (s, metadata) = (&c.storage, Metadata::new().tag("kept"));
    let stale = etag(s.put("key", "old").await?)?;
    s.put_with("key", "current", with(metadata.clone())).await?;
    for wrong in [stale, Etag::new("no such etag"), Etag::new("")] {
        let result = s.put_with("key", "new", matching(&wrong).metadata(Metadata::new())).await;
        expect_kind("an update with a stale etag", result, ErrorKind::PreconditionFailed)?;
    }
    expect_value(s, "key", Some(b"current")).await?;
    expect_eq("the metadata", entry(s, "key").await?.metadata, Some(Arc::new(metadata)))
}

/// `IfMatch` on an absent key is `PreconditionFailed`, also after a delete, and creates nothing.
/// Needs: conditional
pub async fn update_missing(c: Context) -> Outcome {
    let s = &c.storage;
    let gone = etag(s.put("key", "v").await?)?;
    s.delete("key").await?;
    for key in ["key", "never"] {
        let result = s.put_with(key, "new", matching(&gone)).await;
        expect_kind("an update of an absent key", result, ErrorKind::PreconditionFailed)?;
    }
    expect_eq("the keys", keys(s, "").await?, [""; 0])
}

/// Of racing updates of the same etag exactly one wins and the others get `PreconditionFailed`.
/// Needs: conditional
pub async fn update_race_one_winner(c: Context) -> Outcome {
    let handles = handles(&c).await?;
    let mut current = etag(c.storage.put("key", "start").await?)?;
    for round in 0..12 {
        let (handles, seen) = (handles.clone(), current.clone());
        let results = race(handles.len(), move |i| {
            let (s, seen) = (handles[i].clone(), seen.clone());
            async move { Ok(s.put_with("key", format!("{round} {i}"), matching(&seen)).await) }
        });
        let winner = one_winner(results.await?, ErrorKind::PreconditionFailed)?;
        expect_value(&c.storage, "key", Some(format!("{round} {winner}").as_bytes())).await?;
        current = etag(entry(&c.storage, "key").await?)?;
    }
    Ok(())
}

/// An etag is of one write: the same bytes written again, new metadata, or a new life after a delete do not match it.
/// Needs: conditional, version_etags
pub async fn no_aba(c: Context) -> Outcome {
    let s = &c.storage;
    let stale = |what: &'static str, first: Etag| async move {
        let result = s.put_with("key", "mine", matching(&first)).await;
        expect_kind(what, result, ErrorKind::PreconditionFailed).map(drop)
    };
    let first = etag(s.put("key", "A").await?)?;
    s.put("key", "B").await?;
    s.put("key", "A").await?;
    stale("an update after A, B, A", first).await?;
    let second = etag(entry(s, "key").await?)?;
    s.put_with("key", "A", with(Metadata::new().tag("t"))).await?;
    stale("an update after new metadata", second).await?;
    let third = etag(entry(s, "key").await?)?;
    s.delete("key").await?;
    s.put("key", "A").await?;
    stale("an update after a delete and a put", third).await?;
    expect_value(s, "key", Some(b"A")).await
}

/// `IfMatch` with the current etag deletes; a stale one, or an absent key, is `PreconditionFailed`.
/// Needs: conditional_delete
pub async fn conditional_delete(c: Context) -> Outcome {
    let s = &c.storage;
    let stale = etag(s.put("key", "old").await?)?;
    let current = etag(s.put("key", "new").await?)?;
    let refused = s.delete_with("key", delete(&stale)).await;
    expect_kind("a delete with a stale etag", refused, ErrorKind::PreconditionFailed)?;
    expect_value(s, "key", Some(b"new")).await?;
    s.delete_with("key", delete(&current)).await?;
    expect_value(s, "key", None).await?;
    for key in ["key", "never"] {
        let absent = s.delete_with(key, delete(&current)).await;
        expect_kind("a conditional delete of an absent key", absent, ErrorKind::PreconditionFailed)?;
    }
    Ok(())
}

/// Of updates and deletes of the same etag exactly one wins.
/// Needs: conditional, conditional_delete
pub async fn delete_race_one_winner(c: Context) -> Outcome {
    // All of them, every second one, all but one.
    let deletes = |round: usize, i: usize| [true, i.is_multiple_of(2), i != 3][round % 3];
    let handles = handles(&c).await?;
    for round in 0..12 {
        let (handles, name) = (handles.clone(), format!("key{round}"));
        let seen = etag(c.storage.put(&name, "old").await?)?;
        let contested = name.clone();
        let results = race(handles.len(), move |i| {
            let (s, seen, name) = (handles[i].clone(), seen.clone(), contested.clone());
            async move {
                if deletes(round, i) {
                    let deleted = s.delete_with(&name, delete(&seen)).await;
                    return Ok(deleted.map(|()| None));
                }
                Ok(s.put_with(&name, "new", matching(&seen)).await.map(Some))
            }
        });
        let winner = one_winner(results.await?, ErrorKind::PreconditionFailed)?;
        let expected = (!deletes(round, winner)).then_some(&b"new"[..]);
        expect_value(&c.storage, &name, expected).await?;
    }
    Ok(())
}

/// Reads take `if_match` (else `PreconditionFailed`, also when the key is absent) and `if_none_match` (else
/// `NotModified`; `None` when the key is absent), with ranges too.
/// Profile: full
pub async fn read_conditions(c: Context) -> Outcome {
    let s = &c.storage;
    let Some(old) = s.put("key", "the old value").await?.etag else {
        return Err(Failure::NotRun("the target's entries have no etag".into()));
    };
    let current = etag(s.put("key", "the new value").await?)?;
    for range in [None, Some((4..7).into())] {
        let expected: &[u8] = if range.is_some() { b"new" } else { b"the new value" };
        let options = || {
            let mut options = GetOptions::new();
            options.range = range;
            options
        };
        for fits in [options().if_match(current.clone()), options().if_none_match(old.clone())] {
            let seen = expect_some("the value", s.get_with("key", fits).await?)?;
            expect_bytes("the value", &seen, expected)?;
        }
        let result = s.get_with("key", options().if_match(old.clone())).await;
        expect_kind("a read if another etag matches", result, ErrorKind::PreconditionFailed)?;
        let result = s.get_with("key", options().if_none_match(current.clone())).await;
        expect_kind("a read unless the current etag matches", result, ErrorKind::NotModified)?;
        let result = s.get_with("absent", options().if_match(current.clone())).await;
        expect_kind("a read of an absent key if an etag matches", result, ErrorKind::PreconditionFailed)?;
        let result = s.get_with("absent", options().if_none_match(current.clone())).await?;
        expect_eq("a read of an absent key unless an etag matches", result, None)?;
    }
    Ok(())
}

/// A delete cannot require that its key is absent: `InvalidInput`.
/// Needs: conditional_delete
pub async fn delete_if_absent_is_invalid(c: Context) -> Outcome {
    c.storage.put("key", "v").await?;
    let options = DeleteOptions::new().condition(Condition::IfAbsent);
    let result = c.storage.delete_with(key("key")?, options).await;
    expect_kind("a delete if absent", result, ErrorKind::InvalidInput)?;
    expect_value(&c.storage, "key", Some(b"v")).await
}

fn absent() -> PutOptions {
    PutOptions::new().condition(Condition::IfAbsent)
}

fn matching(etag: &Etag) -> PutOptions {
    PutOptions::new().condition(Condition::IfMatch(etag.clone()))
}

fn delete(etag: &Etag) -> DeleteOptions {
    DeleteOptions::new().condition(Condition::IfMatch(etag.clone()))
}

fn etag(entry: Entry) -> Outcome<Etag> {
    expect_some("the etag, without which nothing is conditional", entry.etag)
}

/// Six handles, some of them of another instance.
async fn handles(c: &Context) -> Outcome<Vec<Storage>> {
    let other = c.second_handle().await?;
    Ok((0..6).map(|i| if i % 3 == 0 { other.clone() } else { c.storage.clone() }).collect())
}

/// The one that succeeded; all others must have failed with this kind.
fn one_winner<T: std::fmt::Debug>(results: Vec<Result<T>>, others: ErrorKind) -> Outcome<usize> {
    let winners: Vec<usize> = (0..results.len()).filter(|i| results[*i].is_ok()).collect();
    expect(winners.len() == 1, || {
        let outcome = |result: &Result<T>| result.as_ref().map_or_else(failed, |_| "done".into());
        let outcomes: Vec<String> = results.iter().map(outcome).collect();
        format!("expected one winner, saw {} in [{}]", winners.len(), outcomes.join(", "))
    })?;
    for result in results.into_iter().filter(Result::is_err) {
        expect_kind("the result of a loser", result, others)?;
    }
    Ok(winners[0])
}
