//! Writes that become visible together, or never.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    BatchOptions, Body, Condition, Entry, Error, ErrorKind, GetOptions, Isolation, ListOptions, Metadata, PutOptions,
    Query, Storage, Tx,
};
use tokio::time::{sleep, timeout};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq, expect_kind, expect_some},
    support::{
        entries, entry, expect_value, joined, keys, keys_of, looked_at_while, noise, pieces, put_all, race, sorted,
        with,
    },
};

/// How long a step waits for another transaction before it goes on: a store may let one wait for the other.
const PATIENCE: Duration = Duration::from_millis(300);

/// All writes become visible at commit: puts, deletes, copies, renames, batches and clears.
/// Needs: transactions
pub async fn commit_makes_all_visible(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["copied", "renamed", "deleted", "old/1", "old/2", "stays"]).await?;
    let tx = s.begin().await?;
    tx.put_with("put", "v", with(Metadata::new().tag("t"))).await?;
    tx.put("stays", "changed").await?;
    tx.delete("deleted").await?;
    tx.copy("copied", "copy").await?;
    tx.rename("renamed", "moved").await?;
    tx.put_batch([("batch/1", "v"), ("batch/2", "v")]).await?;
    tx.clear_prefix("old/").await?;
    tx.commit().await?;
    let expected = sorted(["batch/1", "batch/2", "copied", "copy", "moved", "put", "stays"]);
    expect_eq("the keys", keys(s, "").await?, expected)?;
    for (key, value) in [("put", "v"), ("stays", "changed"), ("copy", "copied"), ("moved", "renamed")] {
        expect_value(s, key, Some(value.as_bytes())).await?;
    }
    let metadata = entry(s, "put").await?.metadata.unwrap_or_default();
    expect_eq("the metadata", &*metadata, &Metadata::new().tag("t"))
}

/// A transaction sees its own writes in every kind of read.
/// Needs: transactions
pub async fn own_writes_are_seen(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a", "b", "c"]).await?;
    let tx = s.begin().await?;
    tx.put_with("a", "changed", with(Metadata::new().field("n", 1))).await?;
    tx.put("new/1", "v").await?;
    tx.delete("b").await?;
    expect_value(&tx, "a", Some(b"changed")).await?;
    expect_value(&tx, "b", None).await?;
    expect_value(&tx, "new/1", Some(b"v")).await?;
    expect_eq("stat", tx.stat("b").await?, None)?;
    expect_eq("the size", entry(&tx, "a").await?.size, 7)?;
    expect_eq("a range", tx.get_with("a", GetOptions::new().range(1..3)).await?, Some("ha".into()))?;
    expect_eq("the keys", keys(&tx, "").await?, ["a", "c", "new/1"])?;
    let level: Vec<_> = tx.list_with(ListOptions::new().delimited(true)).await?.try_collect().await?;
    let level: Vec<&str> = level.iter().map(storage_core::ListItem::position).collect();
    expect_eq("one level", level, ["a", "c", "new/"])?;
    let listed = entries(&tx, "a").await?;
    let metadata = listed.first().and_then(|entry| entry.metadata.clone()).unwrap_or_default();
    expect_eq("the metadata listed", &*metadata, &Metadata::new().field("n", 1))?;
    let answer = keys_of(tx.query(Query::new().equals("n", 1)).await?).await?;
    expect_eq("the answer of a query", answer, ["a"])?;
    expect_eq("a batch", tx.get_batch(["a", "b", "c"]).await?.len(), 2)?;
    tx.copy("new/1", "new/2").await?;
    tx.rename("new/1", "c").await?;
    expect_eq("the keys", keys(&tx, "").await?, ["a", "c", "new/2"])?;
    expect_value(&tx, "c", Some(b"v")).await?;
    tx.clear_prefix("new/").await?;
    expect_eq("the keys", keys(&tx, "").await?, ["a", "c"])?;
    tx.commit().await?;
    expect_eq("the keys", keys(s, "").await?, ["a", "c"])
}

/// Nothing is visible outside before commit, nor to another transaction.
/// Needs: transactions
pub async fn invisible_before_commit(c: Context) -> Outcome {
    let (s, other) = (&c.storage, c.second_handle().await?);
    put_all(s, ["a", "b"]).await?;
    let tx = s.begin().await?;
    tx.put("a", "new").await?;
    tx.put("c", "new").await?;
    tx.delete("b").await?;
    for handle in [s, &other] {
        unchanged(handle).await?;
    }
    // A store may make a second transaction wait for the first; then there is nothing to see.
    if let Ok(second) = timeout(PATIENCE, other.begin()).await {
        unchanged(&*second?).await?;
    }
    tx.commit().await?;
    for handle in [s, &other] {
        expect_eq("the keys", keys(handle, "").await?, ["a", "c"])?;
        expect_value(handle, "a", Some(b"new")).await?;
    }
    Ok(())
}

/// After `rollback` nothing was written.
/// Needs: transactions
pub async fn rollback_forgets(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a", "b"]).await?;
    let tx = s.begin().await?;
    tx.put("a", "new").await?;
    tx.put("c", noise(c.size(1 << 20), 1)).await?;
    tx.delete("b").await?;
    tx.rollback().await?;
    unchanged(s).await
}

/// A transaction that is dropped is rolled back, and another writer proceeds within a second.
/// Needs: transactions
pub async fn drop_rolls_back(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a", "b"]).await?;
    for _ in 0..5 {
        let tx = s.begin().await?;
        tx.put("a", "new").await?;
        tx.put("c", "new").await?;
        tx.delete("b").await?;
        drop(tx);
        let next = timeout(Duration::from_secs(1), s.put("b", "b")).await;
        next.map_err(|_| "expected another writer to proceed within a second, saw it wait")??;
        let next = timeout(Duration::from_secs(1), s.transaction(|tx| async move { tx.put("a", "a").await })).await;
        next.map_err(|_| "expected another transaction to proceed within a second, saw it wait")??;
    }
    unchanged(s).await
}

/// What `transaction` runs is rolled back when it fails, and its error is returned.
/// Needs: transactions
pub async fn failed_work_rolls_back(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a", "b"]).await?;
    let result = s.transaction(|tx| async move {
        tx.put("a", "new").await?;
        tx.put("c", "new").await?;
        Err::<(), _>(Error::new(ErrorKind::Other, "the check's own failure"))
    });
    let error = expect_kind("a transaction whose work fails", result.await, ErrorKind::Other)?;
    expect_eq("the message", error.message(), "the check's own failure")?;
    unchanged(s).await
}

/// What a transaction has read it reads again, whatever others write meanwhile.
/// Needs: transactions
pub async fn reads_are_repeatable(c: Context) -> Outcome {
    let (s, other) = (&c.storage, c.second_handle().await?);
    put_all(s, ["a", "b"]).await?;
    let tx = s.begin().await?;
    unchanged(&tx).await?;
    // It may have to wait until the transaction has ended, which comes below in any case.
    let writer = tokio::spawn(async move {
        other.put("a", "new").await?;
        other.put("c", "new").await?;
        other.delete("b").await?;
        Ok(())
    });
    for _ in 0..3 {
        sleep(PATIENCE / 3).await;
        unchanged(&tx).await?;
    }
    tx.rollback().await?;
    joined(writer).await?;
    expect_eq("the keys", keys(s, "").await?, ["a", "c"])
}

/// Of two transactions that read and write the same key one wins; the other gets a retryable `Conflict` that wrote
/// nothing, or ran after it.
/// Needs: transactions
pub async fn write_conflict(c: Context) -> Outcome {
    let handles = [c.storage.clone(), c.second_handle().await?];
    for round in 0..6 {
        c.storage.put("n", "0").await?;
        let handles = handles.clone();
        let results = race(2, move |i| {
            let s = handles[i].clone();
            async move {
                let increment = async {
                    let tx = s.begin().await?;
                    let seen = number(&tx, "n").await?;
                    // Both have read, unless the store makes one wait.
                    sleep(Duration::from_millis(20)).await;
                    tx.put("n", (seen + 1).to_string()).await?;
                    tx.put(format!("by {i}"), "v").await?;
                    tx.commit().await
                };
                Ok(increment.await)
            }
        });
        let (mut wins, mut written) = (0, Vec::new());
        for (i, result) in results.await?.into_iter().enumerate() {
            if result.is_ok() {
                wins += 1;
                written.push(format!("by {i}"));
                continue;
            }
            let error = expect_kind("the transaction that lost", result, ErrorKind::Conflict)?;
            expect(!error.is_ambiguous(), || format!("expected a conflict to be definite, saw {error:?}"))?;
        }
        expect(wins > 0, || format!("round {round}: expected a winner, saw two conflicts"))?;
        expect_eq("the number", number(&c.storage, "n").await?, wins)?;
        expect_eq("the keys written", keys(&c.storage, "by ").await?, written)?;
        c.storage.clear().await?;
    }
    Ok(())
}

/// A key that another has deleted since the transaction saw it, or deleted and written again as it was, is a `Conflict` for
/// the transaction that writes it, unless the other had to wait for its end.
/// Needs: transactions
pub async fn delete_conflict(c: Context) -> Outcome {
    let s = &c.storage;
    for again in [false, true] {
        s.put("n", "0").await?;
        let tx = s.begin().await?;
        let seen = number(&tx, "n").await?;
        let other = c.second_handle().await?;
        let mut other = tokio::spawn(async move {
            other.delete("n").await?;
            if again {
                other.put("n", "0").await?;
            }
            Outcome::Ok(())
        });
        let waits = timeout(PATIENCE, &mut other).await.is_err();
        let update = async {
            tx.put("n", (seen + 1).to_string()).await?;
            tx.commit().await
        };
        let result = update.await;
        if waits {
            joined(other).await?;
        }
        if !waits || result.is_err() {
            let error = expect_kind("a put of what was deleted meanwhile", result, ErrorKind::Conflict)?;
            expect(!error.is_ambiguous(), || format!("expected a conflict to be definite, saw {error:?}"))?;
        }
        expect_value(s, "n", again.then_some(b"0")).await?;
    }
    Ok(())
}

/// Updates are never lost: increments in transactions on four threads add up.
/// Needs: transactions
pub async fn counter_loses_no_update(c: Context) -> Outcome {
    let handles = [c.storage.clone(), c.second_handle().await?];
    c.storage.put("n", "0").await?;
    race(4, move |i| {
        let s = handles[i % 2].clone();
        async move {
            for _ in 0..12 {
                s.transaction(|tx| async move {
                    let seen = number(&tx, "n").await?;
                    // Others have read it too by then, unless the store makes them wait.
                    sleep(Duration::from_millis(1)).await;
                    tx.put("n", (seen + 1).to_string()).await
                })
                .await?;
            }
            Ok(())
        }
    })
    .await?;
    expect_eq("the number", number(&c.storage, "n").await?, 48)
}

/// All or nothing, for readers too: keys that are only written together are seen together.
/// Needs: transactions
pub async fn all_or_nothing(c: Context) -> Outcome {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let other = c.second_handle().await?;
    let handles = vec![c.storage.clone(), other.clone(), c.storage.clone(), other];
    c.storage.put_batch(KEYS.map(|key| (key, "0"))).await?;
    let write = |s: Storage, n: usize| async move {
        // An atomic batch is a transaction too.
        if n % 2 == 1 {
            let items = KEYS.map(|key| (key, n.to_string(), PutOptions::new()));
            return match s.put_batch_with(items, BatchOptions::new().atomic(true)).await {
                // Somebody else's transaction was faster.
                Err(e) if e.kind() == ErrorKind::Conflict => Ok(()),
                written => Ok(written.map(drop)?),
            };
        }
        let work = |tx: Tx| async move {
            for key in KEYS {
                tx.put(key, n.to_string()).await?;
                sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, Error>(())
        };
        Ok(s.transaction(work).await?)
    };
    looked_at_while(handles, write, |s| async move { together(&s, KEYS).await }).await
}

/// Reads the keys in one transaction, in which they must have the same value.
async fn together(s: &Storage, keys: [&'static str; 3]) -> Outcome {
    let work = |tx: Tx| async move {
        let mut seen = Vec::new();
        for key in keys {
            seen.push(tx.get(key).await?);
            tokio::task::yield_now().await;
        }
        Ok::<_, Error>(seen)
    };
    let seen = s.transaction(work).await?;
    let same = seen.windows(2).all(|pair| pair[0] == pair[1]);
    expect(same, || format!("expected the values of one transaction, saw {seen:?}"))
}

/// `serializable` excludes write skew: of two transactions that each read what the other writes, one gives way.
/// Needs: transactions
pub async fn serializable_excludes_write_skew(c: Context) -> Outcome {
    if c.info().isolation < Isolation::Serializable {
        return Err(Failure::NotRun("the target's isolation is not serializable".into()));
    }
    let handles = [c.storage.clone(), c.second_handle().await?];
    for _ in 0..5 {
        c.storage.put_batch([("a", "1"), ("b", "1")]).await?;
        let handles = handles.clone();
        race(2, move |i| {
            let s = handles[i].clone();
            async move {
                s.transaction(|tx| async move {
                    let sum = number(&tx, "a").await? + number(&tx, "b").await?;
                    sleep(Duration::from_millis(20)).await;
                    if sum == 2 {
                        tx.put(["a", "b"][i], "0").await?;
                    }
                    Ok::<_, Failure>(())
                })
                .await
            }
        })
        .await?;
        let left = number(&c.storage, "a").await? + number(&c.storage, "b").await?;
        expect_eq("how many are left on duty", left, 1)?;
    }
    Ok(())
}

/// After `commit` or `rollback` every call is `Closed`.
/// Needs: transactions
pub async fn closed_after_its_end(c: Context) -> Outcome {
    for commit in [true, false] {
        let tx = c.storage.begin().await?;
        tx.put("key", "v").await?;
        let clone = tx.clone();
        if commit {
            tx.commit().await?
        } else {
            tx.rollback().await?
        }
        let closed = |what: &str, kind: Option<ErrorKind>| expect_eq(what, kind, Some(ErrorKind::Closed));
        closed("get", clone.get("key").await.err().map(|e| e.kind()))?;
        closed("put", clone.put("key", "late").await.err().map(|e| e.kind()))?;
        closed("delete", clone.delete("key").await.err().map(|e| e.kind()))?;
        closed("stat", clone.stat("key").await.err().map(|e| e.kind()))?;
        closed("list", clone.list("").await.err().map(|e| e.kind()))?;
        closed("rollback", clone.clone().rollback().await.err().map(|e| e.kind()))?;
        closed("commit", clone.commit().await.err().map(|e| e.kind()))?;
    }
    expect_value(&c.storage, "key", Some(b"v")).await
}

/// A streamed put works within a transaction; one whose body breaks off stores nothing and leaves the rest.
/// Needs: transactions
pub async fn streams_within(c: Context) -> Outcome {
    let (s, value) = (&c.storage, noise(c.size(3 << 20), 2));
    let tx = s.begin().await?;
    tx.put("before", "v").await?;
    tx.put("large", Body::stream(pieces(value.clone(), 300_000))).await?;
    let error = Error::new(ErrorKind::InvalidInput, "the check's own broken body");
    let broken = pieces(value.clone(), 300_000).chain(stream::iter([Err(error)]));
    let result = tx.put("broken", Body::stream(broken)).await;
    expect_kind("a put of a body that breaks off", result, ErrorKind::InvalidInput)?;
    expect_value(&tx, "large", Some(&value)).await?;
    expect_eq("the keys within", keys(&tx, "").await?, ["before", "large"])?;
    tx.commit().await?;
    expect_value(s, "large", Some(&value)).await?;
    expect_eq("the keys", keys(s, "").await?, ["before", "large"])
}

/// Conditions within a transaction see its own writes; one that fails leaves the rest.
/// Needs: transactions, conditional
pub async fn conditions_within(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a"]).await?;
    let tx = s.begin().await?;
    let absent = || PutOptions::new().condition(Condition::IfAbsent);
    let again = tx.put_with("a", "new", absent()).await;
    expect_kind("a creation of what exists", again, ErrorKind::AlreadyExists)?;
    let created = tx.put_with("b", "1", absent()).await?;
    let again = tx.put_with("b", "2", absent()).await;
    expect_kind("a second creation", again, ErrorKind::AlreadyExists)?;
    let etag = expect_some("the etag", created.etag)?;
    let matching = || PutOptions::new().condition(Condition::IfMatch(etag.clone()));
    tx.put_with("b", "3", matching()).await?;
    let stale = tx.put_with("b", "4", matching()).await;
    expect_kind("an update with a stale etag", stale, ErrorKind::PreconditionFailed)?;
    tx.delete("a").await?;
    tx.put_with("a", "back", absent()).await?;
    tx.commit().await?;
    expect_value(s, "a", Some(b"back")).await?;
    expect_value(s, "b", Some(b"3")).await
}

/// A transaction may write many keys, and an atomic batch within it belongs to it.
/// Needs: transactions
pub async fn many_writes(c: Context) -> Outcome {
    let s = &c.storage;
    let all: Vec<String> = (0..300).map(|i| format!("k{i:03}")).collect();
    let tx = s.begin().await?;
    for key in &all[..100] {
        tx.put(key, key.clone()).await?;
    }
    put_all(&tx, &all[100..]).await?;
    expect_eq("the number of keys within", keys(&tx, "").await?.len(), 300)?;
    expect_eq("the keys outside", keys(s, "").await?, [""; 0])?;
    tx.commit().await?;
    expect_eq("the keys", keys(s, "").await?, all)
}

/// The entry that a put within a transaction returns is the one that is there after the commit.
/// Needs: transactions
pub async fn entries_survive_commit(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a"]).await?;
    let tx = s.begin().await?;
    let written: Vec<Entry> = tx.put_batch([("a", "new"), ("b", "v")]).await?;
    tx.commit().await?;
    for written in written {
        let seen = entry(s, written.key.as_str()).await?;
        expect_eq("the size", seen.size, written.size)?;
        expect_eq("the etag", seen.etag, written.etag)?;
    }
    Ok(())
}

/// The store with `a` and `b` as they were put.
async fn unchanged(s: &Storage) -> Outcome {
    expect_value(s, "a", Some(b"a")).await?;
    expect_value(s, "b", Some(b"b")).await?;
    expect_value(s, "c", None).await?;
    expect_eq("the size", entry(s, "a").await?.size, 1)?;
    expect_eq("the keys", keys(s, "").await?, ["a", "b"])
}

async fn number(s: &Storage, key: &str) -> storage_core::Result<i64> {
    let value = s.get(key).await?.unwrap_or_default();
    let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("expected a number, saw {value:?}")))
}
