//! What goes wrong is said, and said right.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, stream};
use storage_core::{
    BatchOptions, Body, Bytes, Condition, Error, ErrorKind, GetOptions, PresignOptions, PutOptions, Query, Storage,
};

use crate::{
    Context, Failure, Namespace, Outcome,
    assert::{expect, expect_eq, expect_kind},
    proxy::Mode,
    refuse::{REFUSABLE, refused},
    support::{expect_value, keys, noise, pieces},
};

/// An error names kind, operation, key and backend, its message says something, and a refusal is definite.
pub async fn taxonomy(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("key", "0123456789").await?;
    let range = s.get_with("key", GetOptions::new().range(11..)).await.err();
    described(s, range, ErrorKind::RangeNotSatisfiable, "get", "key")?;
    let copy = s.copy("absent", "to").await.err();
    described(s, copy, ErrorKind::NotFound, "copy", "absent")?;
    let rename = s.rename("absent", "to").await.err();
    described(s, rename, ErrorKind::NotFound, "rename", "absent")?;
    let short = s.put("key", Body::with_len(5, stream::empty())).await.err();
    described(s, short, ErrorKind::InvalidInput, "put", "key")?;
    let error = Error::new(ErrorKind::PermissionDenied, "the check's own broken body");
    let broken = s.put("key", Body::stream(stream::iter([Ok(Bytes::from("a")), Err(error)]))).await.err();
    described(s, broken, ErrorKind::PermissionDenied, "put", "key")?;
    let inverted = s.get_with("key", GetOptions::new().range(storage_core::ByteRange::Bounded(5, 3))).await.err();
    described(s, inverted, ErrorKind::InvalidInput, "get", "key")
}

/// The kinds of failed conditions, each with a definite outcome.
/// Needs: conditional
pub async fn conditions_taxonomy(c: Context) -> Outcome {
    let s = &c.storage;
    let stale = Condition::IfMatch(storage_core::Etag::new("no such etag"));
    s.put("key", "v").await?;
    let create = s.put_with("key", "v", PutOptions::new().condition(Condition::IfAbsent)).await.err();
    described(s, create, ErrorKind::AlreadyExists, "put", "key")?;
    let update = s.put_with("key", "v", PutOptions::new().condition(stale)).await.err();
    described(s, update, ErrorKind::PreconditionFailed, "put", "key")
}

/// What is not declared is refused with `Unsupported`, operation by operation, and nothing is done.
pub async fn unsupported_is_explicit(c: Context) -> Outcome {
    let declared = c.info().capabilities;
    let undeclared = || {
        let names = declared.iter().filter_map(|(name, declared)| (!declared).then_some(name));
        names.filter(|name| REFUSABLE.contains(name))
    };
    if undeclared().next().is_none() {
        return Err(Failure::NotRun("everything that could be refused is declared".into()));
    }
    for name in undeclared() {
        refused(name, &c.storage).await?;
    }
    Ok(())
}

/// A value over `limits.value` is `TooLarge` before anything is stored, also when its length is not declared.
pub async fn value_too_large(c: Context) -> Outcome {
    let (s, limit) = (&c.storage, c.info().limits.value);
    if limit > 64 << 20 {
        return Err(Failure::NotRun("the target takes values of more than 64 MiB".into()));
    }
    let value = noise(limit as usize + 1, 1);
    s.put("key", value.slice(1..)).await?;
    for body in [Body::from(value.clone()), Body::stream(pieces(value.clone(), 1 << 20))] {
        expect_kind("a put over the limit", s.put("over", body).await, ErrorKind::TooLarge)?;
    }
    expect_value(s, "key", Some(&value[1..])).await?;
    expect_eq("the keys", keys(s, "").await?, ["key"])
}

/// While a server does not answer, every operation, opening included, ends with an error that can be tried again.
pub async fn unreachable_times_out(c: Context) -> Outcome {
    /// The default timeout of an operation, and some more.
    const PATIENCE: Duration = Duration::from_secs(40);
    let namespace = Namespace::proxied();
    let s = c.open_in(&namespace).await?;
    s.put("key", "v").await?;
    let network = namespace.network()?;
    network.set(Mode::Hang);
    let put = async { s.put("other", "v").await.map(drop) };
    // One that no cache can know.
    let get = async { s.get("unseen").await.map(drop) };
    let list = async { s.list("").await?.try_next().await.map(drop) };
    let open = async { c.target().open(&namespace).await.map(drop) };
    let ended = tokio::time::timeout(PATIENCE, async { tokio::join!(put, get, list, open) }).await;
    let ended = ended.map_err(|_| format!("expected an end within {} seconds, saw none", PATIENCE.as_secs()))?;
    for (what, result) in [("put", ended.0), ("get", ended.1), ("list", ended.2), ("open", ended.3)] {
        let retryable = result.as_ref().is_err_and(Error::is_retryable);
        expect(retryable, || format!("{what} without an answer: expected an error to retry, saw {result:?}"))?;
    }
    network.set(Mode::Cut);
    network.set(Mode::Pass);
    let until = Instant::now() + PATIENCE;
    while let Err(e) = s.get("key").await {
        expect(e.is_retryable() && Instant::now() < until, || format!("expected it to go on, saw {e:?}"))?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    expect_value(&s, "key", Some(b"v")).await
}

/// No error, `Debug` or log line, at whatever level, contains a secret.
pub async fn secrets_redacted(c: Context) -> Outcome {
    if c.target().secrets().is_empty() {
        return Err(Failure::NotRun("the target has no secret".into()));
    }
    // In another process, because what is logged can be caught only for all of one.
    let mut other = c.process_elsewhere("provoke", 0)?;
    other.expect("done").await
}

/// After `disconnect` every call is `Closed`: through this handle and its clones, and where the backend gives up a connection, so
/// that its `health` is `Closed`, through every handle of it.
pub async fn closed_after_disconnect(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("key", "v").await?;
    let (clone, other) = (s.clone(), Storage::from_arc(s.backend().clone()));
    s.backend().disconnect().await?;
    if other.health().await.is_err_and(|e| e.kind() == ErrorKind::Closed) {
        closed(&other).await?;
    } else {
        // There was nothing to give up, so whoever has not disconnected goes on.
        expect_value(&other, "key", Some(b"v")).await?;
        s.disconnect().await?;
    }
    closed(s).await?;
    closed(&clone).await?;
    expect(!clone.is_connected().await, || "expected a handle that was disconnected to say so, saw it connected".into())
}

async fn closed(s: &Storage) -> Outcome {
    let capabilities = s.info().capabilities;
    let mut results = vec![
        ("get", s.get("key").await.err()),
        ("put", s.put("key", "late").await.err()),
        ("delete", s.delete("key").await.err()),
        ("stat", s.stat("key").await.err()),
        ("list", s.list("").await.err()),
        ("query", s.query(Query::new()).await.err()),
        ("clear", s.clear().await.err()),
        ("copy", s.copy("key", "to").await.err()),
        ("rename", s.rename("key", "to").await.err()),
    ];
    // Each item of a batch may carry the error, or the batch as a whole.
    results.push(("get_batch", s.get_batch(["key"]).await.err()));
    results.push(("put_batch", s.put_batch([("key", "late")]).await.err()));
    results.push(("delete_batch", s.delete_batch(["key"]).await.err()));
    if capabilities.versioning {
        results.push(("versions", s.versions("key").await.err()));
    }
    if capabilities.presign {
        let minute = Duration::from_secs(60);
        results.push(("presign", s.presign("key", PresignOptions::get(minute)).await.err()));
    }
    if capabilities.transactions {
        results.push(("begin", s.begin().await.err()));
        let atomic = BatchOptions::new().atomic(true);
        let batch = s.put_batch_with([("key", "late", PutOptions::new())], atomic).await.err();
        results.push(("an atomic batch", batch));
    }
    for (what, error) in results {
        let kind = error.map(|e| e.kind());
        expect_eq(&format!("the error of {what} after disconnect"), kind, Some(ErrorKind::Closed))?;
    }
    Ok(())
}

fn described(s: &Storage, error: Option<Error>, kind: ErrorKind, operation: &str, key: &str) -> Outcome {
    let what = format!("{operation} {key:?}");
    let e = expect_kind(&what, error.map_or(Ok(()), Err), kind)?;
    expect_eq(&format!("{what}: the operation"), e.operation(), Some(operation))?;
    expect_eq(&format!("{what}: the key"), e.key().map(|key| key.as_str()), Some(key))?;
    expect_eq(&format!("{what}: the backend"), e.backend(), Some(&*s.info().id))?;
    expect(!e.message().trim().is_empty(), || format!("{what}: expected a message, saw none"))?;
    expect(!e.is_ambiguous(), || format!("{what}: expected a definite outcome, saw {e:?}"))
}
