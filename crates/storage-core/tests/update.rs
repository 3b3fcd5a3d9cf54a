//! Compare-and-set, and transactions that are run again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use storage_core::{
    BackendInfo, Body, Capabilities, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions, ListStream,
    Metadata, Object, PutOptions, Result, StatOptions, Storage, StorageBackend, Transaction, TransactionOptions,
    async_trait,
};
use storage_memory::Memory;

/// An application's own error.
#[derive(Debug)]
enum Own {
    Storage(Error),
    Refused,
}

impl From<Error> for Own {
    fn from(e: Error) -> Self {
        Self::Storage(e)
    }
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(e) => e.fmt(f),
            Self::Refused => f.write_str("refused"),
        }
    }
}

async fn number(storage: &Storage) -> u64 {
    let value = storage.get("n").await.unwrap();
    value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
}

#[tokio::test]
async fn racing_updates_each_count_once() {
    let storage = Storage::new(Memory::new());
    let updates = (0..20).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                let add = |old: Option<storage_core::Bytes>| {
                    let old: u64 = old.map_or(0, |old| std::str::from_utf8(&old).unwrap().parse().unwrap());
                    Ok::<_, Error>((old + 1).to_string())
                };
                storage.update("n", add).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    });
    for done in join_all(updates).await {
        done.unwrap();
    }
    assert_eq!(number(&storage).await, 100);
}

#[tokio::test]
async fn an_update_keeps_the_metadata_and_fails_as_its_function_does() {
    let storage = Storage::new(Memory::new());
    let metadata = Metadata::new().content_type("text/plain");
    storage.put_with("n", "1", PutOptions::new().metadata(metadata.clone())).await.unwrap();
    storage.update("n", |_| Ok::<_, Error>("2")).await.unwrap();
    let (value, entry) = storage.get_with_entry("n", GetOptions::new()).await.unwrap().unwrap();
    assert_eq!((&value[..], &*entry.metadata.unwrap()), (&b"2"[..], &metadata));
    let refused = storage.update("n", |_| Err::<&str, _>(Own::Refused)).await;
    assert!(matches!(refused, Err(Own::Refused)));
    assert_eq!(number(&storage).await, 2);
}

#[tokio::test]
async fn conditions_are_short_to_write() {
    let storage = Storage::new(Memory::new());
    let entry = storage.put_with("a", "1", PutOptions::new().if_absent()).await.unwrap();
    let error = storage.put_with("a", "2", PutOptions::new().if_absent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let etag = entry.etag.unwrap();
    storage.put_with("a", "3", PutOptions::new().if_match(&etag)).await.unwrap();
    let error = storage.put_with("a", "4", PutOptions::new().if_match(&etag)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
}

/// A helper that knows nothing of transactions.
async fn add(storage: &Storage) -> Result<u64> {
    let next = number(storage).await + 1;
    storage.put("n", next.to_string()).await?;
    Ok(next)
}

#[tokio::test]
async fn a_helper_runs_within_a_transaction_and_outside() {
    let storage = Storage::new(Memory::new());
    add(&storage).await.unwrap();
    let runs = AtomicUsize::new(0);
    let done = storage.transaction(|tx| {
        let (run, outside) = (runs.fetch_add(1, Ordering::Relaxed), storage.clone());
        async move {
            let next = add(&tx).await?;
            if run == 0 {
                // Somebody else is quicker.
                add(&outside).await?;
            }
            Ok::<_, Own>(next)
        }
    });
    assert_eq!(done.await.unwrap(), 3);
    assert_eq!((runs.into_inner(), number(&storage).await), (2, 3));
}

#[tokio::test]
async fn an_error_of_the_closure_ends_the_transaction_and_tries_have_a_limit() {
    let storage = Storage::new(Memory::new());
    let refused = storage.transaction(|tx| async move {
        tx.put("n", "1").await?;
        Err::<(), _>(Own::Refused)
    });
    assert!(matches!(refused.await, Err(Own::Refused)));
    assert_eq!(number(&storage).await, 0);
    let runs = Arc::new(AtomicUsize::new(0));
    let never = |options: TransactionOptions| {
        let (storage, runs) = (storage.clone(), runs.clone());
        async move {
            let always_beaten = |tx: storage_core::Tx| {
                runs.fetch_add(1, Ordering::Relaxed);
                let storage = storage.clone();
                async move {
                    add(&tx).await?;
                    add(&storage).await?;
                    Ok::<_, Error>(())
                }
            };
            storage.transaction_with(options, always_beaten).await.unwrap_err()
        }
    };
    assert_eq!(never(TransactionOptions::new().tries(3)).await.kind(), ErrorKind::Conflict);
    assert_eq!(runs.swap(0, Ordering::Relaxed), 3);
    never(TransactionOptions::new().budget(Duration::ZERO)).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// Reads fail as planned, the last failure first; then they find nothing.
#[derive(Clone, Debug)]
struct Failing {
    info: BackendInfo,
    failures: Arc<Mutex<Vec<Error>>>,
}

#[async_trait]
impl StorageBackend for Failing {
    fn info(&self) -> &BackendInfo {
        &self.info
    }
    async fn get(&self, _: &Key, _: GetOptions) -> Result<Option<Object>> {
        self.failures.lock().unwrap().pop().map_or(Ok(None), Err)
    }
    async fn put(&self, _: &Key, _: Body, _: PutOptions) -> Result<Entry> {
        Err(Error::unsupported("writing"))
    }
    async fn delete(&self, _: &Key, _: DeleteOptions) -> Result<()> {
        Err(Error::unsupported("deleting"))
    }
    async fn stat(&self, _: &Key, _: StatOptions) -> Result<Option<Entry>> {
        Ok(None)
    }
    async fn list(&self, _: ListOptions) -> Result<ListStream> {
        Err(Error::unsupported("listing"))
    }
    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Transaction for Failing {
    async fn commit(&self) -> Result<()> {
        Ok(())
    }
    async fn rollback(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_conflict_that_a_call_meets_is_tried_again_and_nothing_else_is() {
    let conflict = || Error::new(ErrorKind::Conflict, "busy");
    let gone = Error::new(ErrorKind::Unavailable, "gone");
    for (failures, runs, expected) in [
        (vec![], 1, None),
        (vec![conflict(), conflict()], 3, None),
        (vec![conflict(); 9], 4, Some(ErrorKind::Conflict)),
        // Before the commit nothing is there, so that every conflict is definite.
        (vec![conflict().ambiguous(), conflict()], 3, None),
        (vec![gone, conflict()], 2, Some(ErrorKind::Unavailable)),
    ] {
        let info = BackendInfo::new("failing", Capabilities::new());
        let storage = Storage::new(Failing { info, failures: Arc::new(Mutex::new(failures)) });
        let ran = AtomicUsize::new(0);
        let work = |tx: storage_core::Tx| {
            ran.fetch_add(1, Ordering::Relaxed);
            async move { tx.get("n").await.map(drop) }
        };
        let done = storage.transaction_with(TransactionOptions::new().tries(4), work).await;
        assert_eq!((ran.into_inner(), done.as_ref().err().map(Error::kind)), (runs, expected));
        assert!(done.err().is_none_or(|e| e.backend() == Some("failing")));
    }
}

#[tokio::test]
async fn whose_conflict_it_was_decides_not_what_the_closure_returns() {
    let conflict = || Error::new(ErrorKind::Conflict, "busy");
    let info = BackendInfo::new("failing", Capabilities::new());
    let storage = Storage::new(Failing { info, failures: Arc::new(Mutex::new(vec![conflict()])) });
    let ran = AtomicUsize::new(0);
    // What the call met is hidden in an error of the application's own.
    let hidden = |tx: storage_core::Tx| {
        ran.fetch_add(1, Ordering::Relaxed);
        async move { tx.get("n").await.map(drop).map_err(|_| Own::Refused) }
    };
    storage.transaction(hidden).await.unwrap();
    assert_eq!(ran.swap(0, Ordering::Relaxed), 2);
    // No call of the transaction met this one: it is the application's own.
    let own = |_| {
        ran.fetch_add(1, Ordering::Relaxed);
        async move { Err::<(), _>(conflict()) }
    };
    assert_eq!(storage.transaction(own).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(ran.into_inner(), 1);
}
