//! Writers among themselves: transactions, several instances, and callers that go away.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream};
use storage_core::{Body, Bytes, Condition, DeleteOptions, Error, ErrorKind, PutOptions, Storage, StorageBackend};
use storage_sql::Sql;
use support::{Engine, Place, kind};

async fn number(storage: &Storage, key: &str) -> u64 {
    let value = storage.get(key).await.unwrap().unwrap_or_default();
    String::from_utf8(value.to_vec()).unwrap().parse().unwrap_or(0)
}

#[tokio::test]
async fn a_dropped_transaction_frees_the_writer() {
    for place in Place::all() {
        let (storage, other) = (place.open().await, place.open().await);
        for writer in [&storage, &other] {
            let tx = storage.begin().await.unwrap();
            tx.put("k", "tx").await.unwrap();
            drop(tx);
            let begun = Instant::now();
            writer.put("k", "plain").await.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "plain");
        }
    }
}

#[tokio::test]
async fn two_writers_in_one_task_never_hang() {
    for place in Place::all() {
        let mut config = place.config();
        // A server makes the second wait for so long.
        config.busy_timeout = Duration::from_secs(1);
        let storage = place.connect(config.clone()).await;
        for same_instance in [true, false] {
            let second = if same_instance { storage.clone() } else { place.connect(config.clone()).await };
            let (one, two) = (storage.begin().await.unwrap(), second.begin().await.unwrap());
            one.put("k", "one").await.unwrap();
            let begun = Instant::now();
            assert_eq!(kind(two.put("k", "two").await), ErrorKind::Conflict);
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
            assert_eq!(kind(two.put("other", "two").await), ErrorKind::Conflict);
            one.commit().await.unwrap();
            assert_eq!(kind(two.get("k").await), ErrorKind::Conflict);
            assert_eq!(kind(two.commit().await), ErrorKind::Conflict);
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "one");
        }
    }
}

#[tokio::test]
async fn a_plain_write_waits_for_a_transaction_only_so_long() {
    for place in Place::all() {
        let mut config = place.config();
        config.busy_timeout = Duration::from_secs(1);
        let (storage, other) = (place.connect(config.clone()).await, place.connect(config).await);
        let tx = storage.begin().await.unwrap();
        tx.put("k", "tx").await.unwrap();
        for plain in [&storage, &other] {
            let begun = Instant::now();
            let e = plain.put("k", "plain").await.unwrap_err();
            assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Timeout, false), "{e:?}");
            assert!(e.message().contains("raise `busy_timeout`"), "{e:?}");
            let waited = begun.elapsed();
            assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
            assert_eq!(plain.get("k").await.unwrap(), None);
        }
        tx.commit().await.unwrap();
        other.put("k", "plain").await.unwrap();
    }
}

#[tokio::test]
async fn too_many_transactions_time_out() {
    for place in Place::all() {
        let mut config = place.config();
        // Also the time in which a connection is to be made, on a machine that is busy with other things.
        (config.max_connections, config.busy_timeout) = (2, Duration::from_secs(1));
        let storage = place.connect(config).await;
        let open = (storage.begin().await.unwrap(), storage.begin().await.unwrap());
        assert_eq!(kind(storage.get("k").await), ErrorKind::Timeout);
        assert_eq!(kind(storage.begin().await), ErrorKind::Timeout);
        drop(open);
        storage.put("k", "v").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_count_without_losing_one() {
    for place in Place::all() {
        let instances = [place.open().await, place.open().await];
        let counting: Vec<_> = (0..4)
            .map(|i| {
                let storage = instances[i % 2].clone();
                tokio::spawn(async move {
                    for _ in 0..25 {
                        storage
                            .transaction(|tx| async move {
                                let old = tx.get("tx").await?.unwrap_or_default();
                                let n: u64 = String::from_utf8_lossy(&old).parse().unwrap_or(0);
                                tx.put("tx", (n + 1).to_string()).await
                            })
                            .await
                            .unwrap();
                        loop {
                            let entry = storage.stat("etag").await.unwrap();
                            let condition = match entry {
                                None => Condition::IfAbsent,
                                Some(entry) => Condition::IfMatch(entry.etag.unwrap()),
                            };
                            let n = number(&storage, "etag").await;
                            let options = PutOptions::new().condition(condition);
                            match storage.put_with("etag", (n + 1).to_string(), options).await {
                                Ok(_) => break,
                                Err(e)
                                    if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed) => {
                                }
                                Err(e) => panic!("{e:?}"),
                            }
                        }
                    }
                })
            })
            .collect();
        for task in counting {
            task.await.unwrap();
        }
        assert_eq!(number(&instances[0], "tx").await, 100);
        assert_eq!(number(&instances[1], "etag").await, 100);
    }
}

#[tokio::test]
async fn a_caller_that_does_not_poll_holds_nothing() {
    for place in Place::all() {
        let mut config = place.config();
        (config.max_connections, config.busy_timeout) = (2, Duration::from_secs(2));
        let storage = place.connect(config).await;
        storage.put("k", "v").await.unwrap();
        let mut reads: Vec<_> = (0..8).map(|_| Box::pin(storage.get("k"))).collect();
        let mut writes: Vec<_> = (0..8).map(|i| Box::pin(storage.put(format!("w{i}"), "v"))).collect();
        for read in &mut reads {
            let _ = read.now_or_never();
        }
        for write in &mut writes {
            let _ = write.now_or_never();
        }
        storage.put("k", "other").await.unwrap();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "other");

        // A body that never ends holds no lock, also after some of it was staged.
        let piece = || Ok::<_, Error>(Bytes::from(vec![0; 1 << 20]));
        let body = Body::stream(stream::iter((0..5).map(move |_| piece())).chain(stream::pending()));
        let put = storage.put("endless", body);
        assert!(tokio::time::timeout(Duration::from_millis(300), Box::pin(put)).await.is_err());
        storage.put("k", "again").await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_write_does_not_happen_later() {
    for place in Place::all() {
        let storage = place.open().await;
        let tx = storage.begin().await.unwrap();
        tx.put("k", "tx").await.unwrap();
        // Waits for the transaction, and is given up.
        let waiting = tokio::time::timeout(Duration::from_millis(50), storage.put("k", "late")).await;
        assert!(waiting.is_err());
        tx.commit().await.unwrap();
        // A statement that a server has begun to wait with is not called back, but whatever comes next waits for its end.
        storage.put("other", "v").await.unwrap();
        let seen = storage.get("k").await.unwrap().unwrap();
        assert!(seen == "tx" || (seen == "late" && place.engine != Engine::Sqlite), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(storage.get("k").await.unwrap().unwrap(), seen);
    }
}

#[tokio::test]
async fn disconnecting_does_not_wait_for_open_transactions() {
    for place in Place::all() {
        let storage = place.open().await;
        let tx = storage.begin().await.unwrap();
        tx.put("k", "v").await.unwrap();
        let begun = Instant::now();
        storage.backend().disconnect().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(kind(tx.get("k").await), ErrorKind::Closed);
        assert_eq!(kind(storage.get("k").await), ErrorKind::Closed);
        assert_eq!(kind(tx.commit().await), ErrorKind::Closed);
        assert_eq!(place.open().await.get("k").await.unwrap(), None);
    }
}

#[test]
fn outside_of_its_runtime_nothing_panics() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let storage = runtime.block_on(place.open());
    let tx = runtime.block_on(storage.begin()).unwrap();
    runtime.block_on(tx.put("k", "v")).unwrap();
    let kept = runtime.block_on(storage.begin()).unwrap();
    drop(tx);
    // From another executor: the work is done by the runtime of the connection.
    let _ = storage.get("k").now_or_never();
    drop(runtime);
    drop(kept);
    let other = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(kind(other.block_on(storage.get("k"))), ErrorKind::Closed);
    drop(storage);
    assert_eq!(kind(Sql::connect(place.config()).now_or_never().unwrap()), ErrorKind::Config);
    let storage = other.block_on(place.open());
    other.block_on(storage.put("k", "v")).unwrap();
}

/// What another writer has done to a value that a transaction has seen is never overwritten unseen.
#[tokio::test]
async fn a_value_that_changed_since_the_transaction_began_is_a_conflict() {
    for place in Place::all() {
        for versions in [None, 3.try_into().ok()] {
            let mut config = place.config();
            config.versions = versions;
            let ways: &[&str] = match versions {
                None => &[
                    "put",
                    "put with a tag",
                    "delete",
                    "delete if",
                    "rename",
                    "create",
                    "batch",
                    "delete batch",
                    "clear",
                ],
                Some(_) => &["delete if"],
            };
            let which = format!("{:?} with {versions:?} versions", place.engine);
            meets_conflicts(&place.connect(config).await, &which, ways).await;
        }
    }
}

async fn meets_conflicts(storage: &Storage, which: &str, ways: &[&str]) {
    for other in ["put", "delete", "delete and put", "put with a tag"] {
        for own in ways.iter().copied() {
            storage.put("k", "v").await.unwrap();
            let tx = storage.begin().await.unwrap();
            let etag = tx.stat("k").await.unwrap().unwrap().etag.unwrap();
            let tagged = || PutOptions::new().metadata(storage_core::Metadata::new().tag("t"));
            match other {
                "put" => drop(storage.put("k", "w").await.unwrap()),
                "put with a tag" => drop(storage.put_with("k", "w", tagged()).await.unwrap()),
                "delete" => storage.delete("k").await.unwrap(),
                _ => {
                    storage.delete("k").await.unwrap();
                    storage.put("k", "w").await.unwrap();
                }
            }
            let done = match own {
                "put" => tx.put("k", "own").await.map(drop),
                "put with a tag" => tx.put_with("k", "own", tagged()).await.map(drop),
                "delete" => tx.delete("k").await,
                "delete if" => tx.delete_with("k", DeleteOptions::new().if_match(&etag)).await,
                "rename" => tx.rename("k", "l").await.map(drop),
                "create" => tx.put_with("k", "own", PutOptions::new().condition(Condition::IfAbsent)).await.map(drop),
                "batch" => tx.put_batch([("j", "own"), ("k", "own")]).await.map(drop),
                "clear" => tx.clear_prefix("k").await,
                _ => tx.delete_batch(["j", "k"]).await,
            };
            let e = match done {
                Err(e) => e,
                Ok(()) => match tx.commit().await {
                    Err(e) => e,
                    Ok(()) => panic!("{own} after {other} on {which}"),
                },
            };
            assert_eq!(e.kind(), ErrorKind::Conflict, "{own} after {other} on {which}: {e:?}");
        }
    }
}

/// With versions a rename is several calls; a conflict of a later one is as definite as of the first.
#[tokio::test]
async fn a_rename_that_meets_a_conflict_is_run_again() {
    for place in Place::all() {
        let mut config = place.config();
        config.versions = 3.try_into().ok();
        let (storage, runs) = (place.connect(config).await, AtomicUsize::new(0));
        storage.put("from", "old").await.unwrap();
        let renamed = storage.transaction(|tx| {
            let (storage, runs) = (&storage, &runs);
            async move {
                tx.get("from").await?;
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    storage.put("from", "new").await?;
                }
                tx.rename("from", "to").await
            }
        });
        renamed.await.unwrap();
        assert_eq!(runs.into_inner(), 2, "{:?}", place.engine);
        assert_eq!(storage.get("from").await.unwrap(), None);
        assert_eq!(storage.get("to").await.unwrap().unwrap(), "new");
    }
}

#[tokio::test]
async fn hostile_keys_are_just_keys() {
    for place in Place::all() {
        let storage = place.open().await;
        let keys = ["'; DROP TABLE storage; --", "\" OR \"\"=\"", "a%", "a_", "a\\", "A", "a", "?1", ":x", "$1"];
        for key in keys {
            storage.put(key, key).await.unwrap();
        }
        for key in keys {
            assert_eq!(storage.get(key).await.unwrap().unwrap(), key);
        }
        assert_eq!(storage.keys().await.unwrap().count().await, keys.len());
        storage.clear_prefix("a%").await.unwrap();
        assert_eq!(storage.keys().await.unwrap().count().await, keys.len() - 1);
        let e = place
            .connect(place.config())
            .await
            .put_with("k", "secret value", PutOptions::new().condition(Condition::IfMatch("x".to_owned().into())))
            .await
            .unwrap_err();
        assert!(!format!("{e:?}").contains("secret"));
    }
}

#[tokio::test]
async fn etags_of_writes_that_were_rolled_back_are_never_used_again() {
    for place in Place::all() {
        let storage = place.open().await;
        let tx = storage.begin().await.unwrap();
        let forgotten = tx.put("k", "forgotten").await.unwrap().etag.unwrap();
        tx.rollback().await.unwrap();
        storage.put("k", "another").await.unwrap();
        let options = PutOptions::new().condition(Condition::IfMatch(forgotten));
        let late = storage.put_with("k", "late", options).await;
        assert_eq!(kind(late), ErrorKind::PreconditionFailed);
    }
}

/// What the second process of the next test does; on its own it does nothing.
#[tokio::test]
async fn child() {
    if let Ok(uri) = std::env::var("STORAGE_SQL_TEST_CHILD") {
        count(Storage::new(Sql::open(&uri).await.unwrap())).await;
    }
}

#[tokio::test]
async fn two_processes_count_without_losing_one() {
    for place in Place::all() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child"])
            .env("STORAGE_SQL_TEST_CHILD", place.uri())
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        let storage = place.open().await;
        count(storage.clone()).await;
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(status.success());
        assert_eq!(number(&storage, "n").await, 200);
    }
}

async fn count(storage: Storage) {
    for _ in 0..100 {
        let counting = storage.transaction(|tx| async move {
            let old = tx.get("n").await?.unwrap_or_default();
            let n: u64 = String::from_utf8_lossy(&old).parse().unwrap_or(0);
            tx.put("n", (n + 1).to_string()).await
        });
        counting.await.unwrap();
    }
}
