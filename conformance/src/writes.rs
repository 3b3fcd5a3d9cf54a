//! Every write while something below it fails: what the caller hears must fit what is stored.

use futures_util::{FutureExt, future::BoxFuture, stream};
use storage_core::{
    BatchOptions, Body, Bytes, Condition, CopyOptions, DeleteOptions, Error, ErrorKind, Etag, PutOptions,
    RenameOptions, Result, Storage,
};

use crate::{
    Context, Outcome,
    assert::{brief, expect},
    calls::failed,
};

/// Calls below in which one operation can fail, at most.
pub(crate) const CALLS: usize = 64;

/// A write, which is given the etag of `a`.
type Write = fn(Storage, Etag) -> BoxFuture<'static, Result<()>>;

/// What `a`, `b` and `new` are.
type Stored = [Option<&'static str>; 3];

const KEYS: [&str; 3] = ["a", "b", "new"];
const BEFORE: Stored = [Some("old"), None, None];
/// A rename that is a copy and a delete.
const BETWEEN: Stored = [Some("old"), Some("old"), None];

/// Writes, with what is there afterwards.
const WRITES: [(&str, Write, Stored); 6] = [
    ("a put", |s, _| async move { s.put("new", "value").await.map(drop) }.boxed(), [Some("old"), None, Some("value")]),
    (
        "a put over another",
        |s, _| async move { s.put("a", "value").await.map(drop) }.boxed(),
        [Some("value"), None, None],
    ),
    (
        "a put of a stream",
        |s, _| async move { s.put("a", Body::stream(value())).await.map(drop) }.boxed(),
        [Some("value"), None, None],
    ),
    ("a delete", |s, _| async move { s.delete("a").await }.boxed(), [None, None, None]),
    ("a copy", |s, _| async move { s.copy("a", "b").await.map(drop) }.boxed(), [Some("old"), Some("old"), None]),
    ("a rename", |s, _| async move { s.rename("a", "b").await.map(drop) }.boxed(), [None, Some("old"), None]),
];

/// The same under conditions that hold, for stores that have them.
const CONDITIONAL: [(&str, Write, Stored); 6] = [
    (
        "a put if absent",
        |s, _| {
            async move { s.put_with("new", "value", PutOptions::new().condition(Condition::IfAbsent)).await.map(drop) }
                .boxed()
        },
        [Some("old"), None, Some("value")],
    ),
    (
        "a put of a stream if absent",
        |s, _| {
            let options = PutOptions::new().condition(Condition::IfAbsent);
            async move { s.put_with("new", Body::stream(value()), options).await.map(drop) }.boxed()
        },
        [Some("old"), None, Some("value")],
    ),
    (
        "a put if the etag matches",
        |s, etag| {
            let options = PutOptions::new().condition(Condition::IfMatch(etag));
            async move { s.put_with("a", "value", options).await.map(drop) }.boxed()
        },
        [Some("value"), None, None],
    ),
    (
        "a copy if absent",
        |s, _| {
            let options = CopyOptions::new().condition(Condition::IfAbsent);
            async move { s.copy_with("a", "b", options).await.map(drop) }.boxed()
        },
        [Some("old"), Some("old"), None],
    ),
    (
        "a rename if absent",
        |s, _| {
            let options = RenameOptions::new().condition(Condition::IfAbsent);
            async move { s.rename_with("a", "b", options).await.map(drop) }.boxed()
        },
        [None, Some("old"), None],
    ),
    (
        "a delete if the etag matches",
        |s, etag| {
            let options = DeleteOptions::new().condition(Condition::IfMatch(etag));
            async move {
                if s.info().capabilities.conditional_delete {
                    s.delete_with("a", options).await
                } else {
                    s.delete("a").await
                }
            }
            .boxed()
        },
        [None, None, None],
    ),
];

/// Writes of several keys, of which all happen or none, and a clear.
const TOGETHER: [(&str, Write, Stored); 3] = [
    ("a clear", |s, _| async move { s.clear().await }.boxed(), [None, None, None]),
    (
        "an atomic batch",
        |s, _| {
            let items = ["a", "new"].map(|key| (key, "value", PutOptions::new()));
            async move { s.put_batch_with(items, BatchOptions::new().atomic(true)).await.map(drop) }.boxed()
        },
        [Some("value"), None, Some("value")],
    ),
    (
        "a transaction",
        |s, _| {
            async move {
                s.transaction(|tx| async move {
                    tx.put("new", "value").await?;
                    tx.delete("a").await
                })
                .await
            }
            .boxed()
        },
        [None, None, Some("value")],
    ),
];

fn value() -> impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static {
    stream::iter(["val", "ue"].map(|piece| Ok(Bytes::from(piece))))
}

/// Lets the first call below fail, then the second, and so on, for every write. `plant` does so; `forget` ends it, and says
/// whether anything failed. `how` completes "a put, call 3 below …". The store is one of the check's.
pub(crate) async fn each_write_is_honest(
    c: &Context,
    s: &Storage,
    how: &str,
    plant: impl Fn(usize),
    forget: impl Fn() -> bool,
) -> Outcome {
    honest((c, s), how, &WRITES, &plant, &forget).await
}

/// The same for writes under conditions, of several keys and in transactions, as far as the store has them.
pub(crate) async fn each_other_write_is_honest(
    c: &Context,
    how: &str,
    plant: impl Fn(usize),
    forget: impl Fn() -> bool,
) -> Outcome {
    let (s, can) = (&c.storage, c.info().capabilities);
    if can.conditional {
        honest((c, s), how, &CONDITIONAL, &plant, &forget).await?;
    }
    honest((c, s), how, &TOGETHER[..if can.transactions { 3 } else { 1 }], &plant, &forget).await?;
    each_item_is_honest(c, how, &plant, &forget).await
}

async fn honest(
    (c, s): (&Context, &Storage),
    how: &str,
    writes: &[(&str, Write, Stored)],
    plant: &impl Fn(usize),
    forget: &impl Fn() -> bool,
) -> Outcome {
    for (what, write, after) in writes {
        for call in 0..CALLS {
            c.calls().case();
            let etag = begin(s).await?;
            plant(call);
            let result = write(s.clone(), etag).await;
            let struck = forget();
            let seen = stored(s).await?;
            let is = |expected: &Stored| {
                seen.iter().zip(expected).all(|(seen, expected)| seen.as_deref() == expected.map(str::as_bytes))
            };
            let honest = match &result {
                Ok(()) => is(after),
                Err(e) if e.is_ambiguous() => {
                    let between = what.starts_with("a rename") && is(&BETWEEN);
                    again(e) && (is(&BEFORE) || is(after) || between)
                }
                Err(e) => e.is_retryable() && is(&BEFORE),
            };
            expect(honest, || {
                let fits = fits(result.as_ref().err());
                let stored: Vec<String> =
                    KEYS.iter().zip(&seen).map(|(key, seen)| is_now(key, seen.as_ref())).collect();
                let (outcome, stored) = (outcome(result.as_ref().err()), stored.join(", "));
                format!("{what}, call {} below {how}: expected {fits}, saw {outcome}; {stored}", call + 1)
            })?;
            if !struck {
                expect(call > 0, || format!("expected {what} to reach the store below, saw no call"))?;
                break;
            }
            expect(call + 1 < CALLS, || {
                format!("{what} takes more than {CALLS} calls, and not all of them were tried")
            })?;
        }
    }
    Ok(())
}

/// What an outcome promises.
fn fits(error: Option<&Error>) -> &'static str {
    match error {
        None => "all of it done, as it was said to be",
        Some(e) if e.is_ambiguous() => {
            "an error to try again; its outcome is unknown, so that all of it is done or nothing"
        }
        Some(_) => "an error to try again; its outcome is definite, so that nothing is done",
    }
}

fn outcome(error: Option<&Error>) -> String {
    error.map_or_else(|| "success".into(), |e| format!("{}, {}", failed(e), brief(e)))
}

fn is_now(key: &str, value: Option<&Bytes>) -> String {
    value.map_or_else(|| format!("no {key:?}"), |value| format!("{key:?} = {}", brief(value)))
}

/// Whether the caller is told to look and try again: what it has done itself may be in its way.
fn again(e: &Error) -> bool {
    e.is_retryable() || matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed)
}

async fn begin(s: &Storage) -> Outcome<Etag> {
    for key in KEYS {
        s.delete(key).await?;
    }
    let entry = s.put("a", "old").await?;
    Ok(entry.etag.unwrap_or_else(|| Etag::new("none")))
}

async fn stored(s: &Storage) -> Outcome<Vec<Option<Bytes>>> {
    let mut seen = Vec::new();
    for key in KEYS {
        seen.push(s.get(key).await?);
    }
    Ok(seen)
}

/// Each item of a batch has an outcome of its own, which fits what is stored under its key.
async fn each_item_is_honest(c: &Context, how: &str, plant: &impl Fn(usize), forget: &impl Fn() -> bool) -> Outcome {
    let s = &c.storage;
    for deletes in [false, true] {
        for call in 0..CALLS {
            c.calls().case();
            begin(s).await?;
            if deletes {
                s.put("new", "old").await?;
            }
            plant(call);
            let results: Result<Vec<Result<()>>> = if deletes {
                let items = ["a", "new"].map(|key| (key, DeleteOptions::new()));
                s.delete_batch_with(items, BatchOptions::new()).await
            } else {
                let items = ["a", "new"].map(|key| (key, "value", PutOptions::new()));
                let results = s.put_batch_with(items, BatchOptions::new()).await;
                results.map(|results| results.into_iter().map(|result| result.map(drop)).collect())
            };
            let struck = forget();
            let seen = stored(s).await?;
            let items = match &results {
                Ok(results) => results.iter().map(|result| result.as_ref().err()).collect(),
                Err(e) => vec![Some(e), Some(e)],
            };
            for ((key, i), error) in [("a", 0), ("new", 2)].into_iter().zip(items) {
                let old = if key == "a" || deletes { Some("old") } else { None };
                let new = (!deletes).then_some("value");
                let is = |expected: Option<&str>| seen[i].as_deref() == expected.map(str::as_bytes);
                let honest = match error {
                    None => is(new),
                    Some(e) if e.is_ambiguous() => again(e) && (is(old) || is(new)),
                    Some(e) => e.is_retryable() && is(old),
                };
                expect(honest, || {
                    let what = if deletes { "a batch of deletes" } else { "a batch of puts" };
                    let (fits, outcome, stored) = (fits(error), outcome(error), is_now(key, seen[i].as_ref()));
                    let call = call + 1;
                    format!("{key:?} in {what}, call {call} below {how}: expected {fits}, saw {outcome}; {stored}")
                })?;
            }
            if !struck {
                break;
            }
        }
    }
    Ok(())
}
