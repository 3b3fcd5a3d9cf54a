//! Atomic batches beside transactions.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use storage_core::{BatchOptions, DeleteOptions, ErrorKind, Isolation, PutOptions};
use support::{Place, kind};
use tokio::time::sleep;

fn atomic() -> BatchOptions {
    BatchOptions::new().atomic(true)
}

/// Of a transaction, a batch that it has not seen, and a reader that has seen the batch and not the transaction, there is no order.
#[tokio::test]
async fn atomic_batches_are_serializable_where_transactions_are() {
    for place in Place::all() {
        let storage = place.open().await;
        if storage.info().isolation < Isolation::Serializable {
            continue;
        }
        for delete in [false, true] {
            storage.put_batch(["a", "b", "c"].map(|key| (key, "old"))).await.unwrap();
            let tx = storage.begin().await.unwrap();
            assert_eq!(tx.get("a").await.unwrap().unwrap(), "old");
            match delete {
                true => {
                    let items = ["a", "c"].map(|key| (key, DeleteOptions::new()));
                    storage.delete_batch_with(items, atomic()).await.unwrap();
                }
                false => {
                    let items = ["a", "c"].map(|key| (key, "new", PutOptions::new()));
                    storage.put_batch_with(items, atomic()).await.unwrap();
                }
            }
            let reader = storage.begin().await.unwrap();
            assert_ne!(reader.get("a").await.unwrap(), Some("old".into()));
            assert_eq!(reader.get("b").await.unwrap().unwrap(), "old");
            reader.commit().await.unwrap();
            let written = async {
                tx.put("b", "new").await?;
                tx.commit().await
            };
            assert_eq!(kind(written.await), ErrorKind::Conflict, "{:?}", place.engine);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_atomic_batch_that_meets_a_conflict_is_made_again() {
    for place in Place::all() {
        let storage = place.open().await;
        let tasks: Vec<_> = (0..4)
            .map(|i| {
                let storage = storage.clone();
                tokio::spawn(async move {
                    for n in 0..25 {
                        let items = ["a", "b", "c"].map(|key| (key, format!("{i} {n}"), PutOptions::new()));
                        let written = storage.put_batch_with(items, atomic()).await.unwrap();
                        assert!(written.iter().all(Result::is_ok));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let values = storage.get_batch(["a", "b", "c"]).await.unwrap();
        let distinct: BTreeSet<_> = values.values().collect();
        assert_eq!((values.len(), distinct.len()), (3, 1), "{values:?}");
    }
}

/// A batch of deletes that finds no value for one key, and waits for the other, may not be told apart from the writer of both.
#[tokio::test]
async fn a_batch_of_deletes_is_of_one_moment() {
    let all = || Place::all().into_iter();
    for (place, versions) in all().map(|place| (place, None)).chain(all().map(|place| (place, NonZeroU32::new(3)))) {
        let mut config = place.config();
        config.versions = versions;
        let storage = place.connect(config).await;
        for first in [("a", "b"), ("b", "a")] {
            for key in ["a", "b"] {
                storage.delete(key).await.unwrap();
            }
            let tx = storage.begin().await.unwrap();
            tx.put(first.0, "new").await.unwrap();
            let deleting = tokio::spawn({
                let (storage, items) = (storage.clone(), [first.1, first.0].map(|key| (key, DeleteOptions::new())));
                async move { storage.delete_batch_with(items, atomic()).await }
            });
            // Long enough for the batch to wait for the transaction; where it does not, nothing is asked of it.
            sleep(Duration::from_millis(200)).await;
            let written = async {
                tx.put(first.1, "new").await?;
                tx.commit().await
            };
            let written = written.await;
            deleting.await.unwrap().unwrap();
            let left = storage.get_batch(["a", "b"]).await.unwrap().len();
            match &written {
                Ok(()) => assert_ne!(left, 1, "{:?}, versions: {versions:?}", place.engine),
                Err(e) => assert_eq!((e.kind(), left), (ErrorKind::Conflict, 0), "{:?}: {e}", place.engine),
            }
        }
    }
}
