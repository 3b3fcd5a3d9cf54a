//! Transactions: what conflicts with what, and what does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, sync::Arc};

use futures_util::TryStreamExt;
use storage_core::{
    BatchOptions, Condition, CopyOptions, DeleteOptions, Entry, ErrorKind, ListOptions, PutOptions, Query, Result,
    Storage, Tx,
};
use storage_memory::Memory;

async fn filled() -> Result<Storage> {
    let storage = Storage::new(Memory::new());
    for key in ["a/1", "a/2", "b", "c"] {
        storage.put(key, key.to_owned()).await?;
    }
    Ok(storage)
}

/// What a transaction does, by name.
async fn act(tx: &Tx, what: &str) -> Result<()> {
    match what {
        "get b" => drop(tx.get("b").await?),
        "get absent" => drop(tx.get("absent").await?),
        "stat b" => drop(tx.stat("b").await?),
        "versions b" => drop(tx.versions("b").await?.try_collect::<Vec<_>>().await?),
        "list a/" => drop(tx.list("a/").await?.try_collect::<Vec<_>>().await?),
        "list one of a/" => {
            let one = ListOptions::new().prefix("a/").limit(1);
            drop(tx.list_with(one).await?.try_collect::<Vec<_>>().await?);
        }
        "query a/" => {
            let query = Query::new().prefix("a/");
            drop(tx.query(query).await?.try_collect::<Vec<_>>().await?);
        }
        "get_batch b" => drop(tx.get_batch(["b"]).await?),
        "put b" => drop(tx.put("b", "tx").await?),
        "create absent" => {
            let once = PutOptions::new().condition(Condition::IfAbsent);
            drop(tx.put_with("absent", "tx", once).await?);
        }
        "delete b" => tx.delete("b").await?,
        "delete absent" => tx.delete("absent").await?,
        "put_batch b" => drop(tx.put_batch([("b", "tx")]).await?),
        "atomic put_batch b" => {
            let items = [("b", "tx", PutOptions::new())];
            let atomic = BatchOptions::new().atomic(true);
            drop(tx.put_batch_with(items, atomic).await?);
        }
        "delete_batch b" => tx.delete_batch(["b"]).await?,
        "clear a/" => tx.clear_prefix("a/").await?,
        "copy b to c" => drop(tx.copy("b", "c").await?),
        "rename b to c" => drop(tx.rename("b", "c").await?),
        other => unreachable!("{other}"),
    }
    Ok(())
}

#[tokio::test]
async fn every_footprint_meets_its_conflicts_and_no_others() -> Result<()> {
    // Each action, and which of the keys another writer touches conflict with it.
    let cases: [(&str, &[&str]); 18] = [
        ("get b", &["b"]),
        ("get absent", &["absent"]),
        ("stat b", &["b"]),
        ("versions b", &["b"]),
        ("list a/", &["a/1", "a/new"]),
        ("list one of a/", &["a/1", "a/new"]),
        ("query a/", &["a/1", "a/new"]),
        ("get_batch b", &["b"]),
        ("put b", &["b"]),
        ("create absent", &["absent"]),
        ("delete b", &["b"]),
        ("delete absent", &["absent"]),
        ("put_batch b", &["b"]),
        ("atomic put_batch b", &["b"]),
        ("delete_batch b", &["b"]),
        ("clear a/", &["a/1", "a/new"]),
        ("copy b to c", &["b", "c"]),
        ("rename b to c", &["b", "c"]),
    ];
    for (what, conflicting) in cases {
        for other in ["a/1", "a/new", "absent", "b", "c", "d"] {
            for deletes in [false, true] {
                let storage = filled().await?;
                let tx = storage.begin().await?;
                act(&tx, what).await?;
                tx.put("mine", "written").await?;
                if deletes {
                    storage.put(other, "").await?;
                    storage.delete(other).await?;
                } else {
                    storage.put(other, "other").await?;
                }
                let committed = tx.commit().await;
                let conflict = conflicting.contains(&other);
                let context = format!("{what}, other writer at {other}, deletes: {deletes}");
                match committed {
                    Ok(()) => assert!(!conflict, "{context}"),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Conflict, "{context}");
                        assert!(conflict, "{context}");
                        assert!(e.key().is_some() && !e.is_ambiguous(), "{context}");
                    }
                }
                assert_eq!(storage.has("mine").await?, !conflict, "{context}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn reads_repeat_and_nothing_shows_before_the_commit() -> Result<()> {
    let storage = filled().await?;
    let tx = storage.begin().await?;
    storage.put("b", "other").await?;
    assert_eq!(tx.get("b").await?.as_deref(), Some(&b"b"[..]));
    tx.put("new", "1").await?;
    assert!(tx.has("new").await? && !storage.has("new").await?);
    let keys: Vec<_> = tx.keys().await?.try_collect().await?;
    assert_eq!(keys.len(), 5);
    drop(tx);
    assert!(!storage.has("new").await?);
    Ok(())
}

#[tokio::test]
async fn who_wrote_nothing_meets_no_conflict() -> Result<()> {
    let storage = filled().await?;
    let tx = storage.begin().await?;
    let seen: Vec<_> = tx.list("").await?.try_collect().await?;
    storage.clear().await?;
    assert_eq!(seen.len(), 4);
    tx.commit().await
}

#[tokio::test]
async fn write_skew_is_impossible() -> Result<()> {
    let storage = filled().await?;
    let (one, two) = (storage.begin().await?, storage.begin().await?);
    assert!(one.has("a/1").await? && two.has("a/2").await?);
    one.delete("a/2").await?;
    two.delete("a/1").await?;
    one.commit().await?;
    let refused = two.commit().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_counter_loses_no_update() -> Result<()> {
    let storage = Arc::new(Storage::new(Memory::new()));
    storage.put("n", "0").await?;
    let tasks = (0..4).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let count = |tx: Tx| async move {
                    let old = tx.get("n").await?.unwrap_or_default();
                    let n: u32 = String::from_utf8_lossy(&old).parse().unwrap();
                    tx.put("n", (n + 1).to_string()).await
                };
                storage.transaction(count).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(storage.get("n").await?.as_deref(), Some(&b"200"[..]));
    Ok(())
}

#[tokio::test]
async fn a_transaction_ends_with_itself_and_with_its_store() -> Result<()> {
    let memory = Memory::new();
    let storage = Storage::new(memory.clone());
    let (ended, orphan) = (storage.begin().await?, storage.begin().await?);
    ended.clone().rollback().await?;
    let refused = ended.get("k").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert!(!ended.is_connected().await && orphan.is_connected().await);

    // Another handle over a clone closes the store below.
    Storage::new(memory).disconnect().await?;
    orphan.put("k", "v").await.unwrap_err();
    for refused in [orphan.put("k", "v").await.map(drop), storage.put("k", "v").await.map(drop), orphan.commit().await]
    {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    }
    Ok(())
}

#[tokio::test]
async fn an_atomic_batch_writes_all_or_nothing() -> Result<()> {
    let storage = filled().await?;
    let once = || PutOptions::new().condition(Condition::IfAbsent);
    let items = [("new", "1", once()), ("b", "2", once())];
    let atomic = BatchOptions::new().atomic(true);
    let refused = storage.put_batch_with(items.clone(), atomic.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(refused.key().map(|key| key.as_str()), Some("b"));
    assert!(!storage.has("new").await?);

    let each = storage.put_batch_with(items, BatchOptions::new()).await?;
    assert!(each[0].is_ok() && each[1].is_err());

    let stale = storage.stat("b").await?.unwrap().etag.unwrap();
    storage.put("b", "3").await?;
    let stale = DeleteOptions::new().condition(Condition::IfMatch(stale));
    let items = [("new", DeleteOptions::new()), ("b", stale)];
    let refused = storage.delete_batch_with(items, atomic).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PreconditionFailed);
    assert!(storage.has("new").await?);
    Ok(())
}

#[tokio::test]
async fn copy_and_rename_keep_their_conditions() -> Result<()> {
    let storage = filled().await?;
    let once = CopyOptions::new().condition(Condition::IfAbsent);
    let refused = storage.copy_with("b", "c", once.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    storage.copy_with("b", "d", once).await?;
    let entry = storage.rename("b", "b").await?;
    assert_eq!(storage.stat("b").await?, Some(entry));
    let gone = storage.rename("absent", "absent").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    storage.rename("b", "c").await?;
    assert_eq!(storage.get("c").await?.as_deref(), Some(&b"b"[..]));
    assert!(!storage.has("b").await?);
    Ok(())
}

/// Puts a key, or removes it with all its versions. Returns whether that changed anything.
async fn change(storage: &Storage, key: &str, remove: bool) -> Result<bool> {
    if !remove {
        return storage.put(key, "theirs").await.map(|_| true);
    }
    let versions: Vec<_> = storage.versions(key).await?.try_collect().await?;
    for entry in &versions {
        let version = DeleteOptions::new().version(entry.version.clone().unwrap());
        storage.delete_with(key, version).await?;
    }
    Ok(!versions.is_empty())
}

#[tokio::test]
async fn conflicts_are_found_among_many_keys() -> Result<()> {
    const SEED: u64 = 0x5eed;
    println!("seed {SEED:#x}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let storage = Storage::new(Memory::new());
    for n in 0..3000 {
        storage.put(format!("{n:05}"), "").await?;
    }
    let mut conflicts = 0;
    for round in 0..150 {
        let from = random.usize(0..4000);
        let mut some = || -> BTreeSet<String> {
            let near = || format!("{:05}", random.usize(from..from + 100));
            std::iter::repeat_with(near).take(5).collect()
        };
        let (reads, writes, theirs) = (some(), some(), some());
        let tx = storage.begin().await?;
        for key in &reads {
            tx.get(key).await?;
        }
        for key in &writes {
            tx.put(key, "ours").await?;
        }
        let mut expected = false;
        for (n, key) in theirs.iter().enumerate() {
            let changed = change(&storage, key, n % 2 == 0).await?;
            expected |= changed && (reads.contains(key) || writes.contains(key));
        }
        let before: Vec<_> = storage.list("").await?.try_collect().await?;
        let conflict = tx.commit().await.is_err();
        assert_eq!(conflict, expected, "round {round}");
        conflicts += usize::from(conflict);

        // Only what the transaction wrote has changed.
        let after: Vec<_> = storage.list("").await?.try_collect().await?;
        let others = |entries: Vec<Entry>| -> Vec<Entry> {
            let other = |entry: &Entry| conflict || !writes.contains(entry.key.as_str());
            entries.into_iter().filter(other).collect()
        };
        assert_eq!(others(before), others(after), "round {round}");
        for key in writes.iter().filter(|_| !conflict) {
            assert_eq!(storage.get(key).await?.as_deref(), Some(&b"ours"[..]));
        }
    }
    assert!((15..135).contains(&conflicts), "{conflicts} conflicts");
    Ok(())
}
