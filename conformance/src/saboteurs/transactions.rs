//! Transactions that are not.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt;
use storage_core::{
    Body, Condition, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions, Key, ListOptions, ListStream, Object,
    PutOptions, Result, StatOptions, StorageBackend, Transaction, async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides, pause, value, whole, within},
};
use crate::support::locked;

table! {
    commits_on_drop = Begins(|_| CommitsOnDrop) => ["transactions/drop_rolls_back"];
    rollback_commits = Begins(|_| RollbackCommits) => ["transactions/failed_work_rolls_back", "transactions/rollback_forgets"];
    writes_at_once = Begins(|base| WritesAtOnce { base }) => [
        "entries/of_writes_in_a_transaction",
        "transactions/all_or_nothing",
        "transactions/commit_makes_all_visible",
        "transactions/counter_loses_no_update",
        "transactions/delete_conflict",
        "transactions/drop_rolls_back",
        "transactions/entries_survive_commit",
        "transactions/failed_work_rolls_back",
        "transactions/invisible_before_commit",
        "transactions/many_writes",
        "transactions/own_writes_are_seen",
        "transactions/rollback_forgets",
        "transactions/serializable_excludes_write_skew",
        "transactions/write_conflict",
    ];
    does_not_see_its_writes = Begins(|base| ReadsBase { base, reads: Reads::Get }) => [
        "entries/of_writes_in_a_transaction",
        "transactions/own_writes_are_seen",
        "transactions/reads_are_repeatable",
    ];
    reads_change = Begins(|base| ReadsChange { base, written: Mutex::default() }) => [
        "transactions/all_or_nothing",
        "transactions/own_writes_are_seen",
        "transactions/reads_are_repeatable",
    ];
    lists_outside = Begins(|base| ReadsBase { base, reads: Reads::List }) => [
        "transactions/many_writes",
        "transactions/own_writes_are_seen",
        "transactions/reads_are_repeatable",
        "transactions/streams_within",
    ];
    updates_are_lost = Begins(|base| AppliesLater { base, at_once: true, written: Mutex::default() }) => [
        "entries/of_writes_in_a_transaction",
        "transactions/counter_loses_no_update",
        "transactions/delete_conflict",
        "transactions/entries_survive_commit",
        "transactions/serializable_excludes_write_skew",
        "transactions/write_conflict",
    ];
    write_skew = ReadsAreForgotten => ["transactions/serializable_excludes_write_skew"];
    open_after_its_end = Begins(|base| OpenAfterItsEnd { base, ended: AtomicBool::new(false) }) => ["transactions/closed_after_its_end"];
    clears_nothing_within = Begins(|_| ClearsNothing) => ["transactions/commit_makes_all_visible", "transactions/own_writes_are_seen"];
    broken_body_ends_it = Begins(|_| BrokenBodyEndsIt) => ["transactions/streams_within"];
    creates_by_what_is_outside = Begins(|base| CreatesByBase { base }) => ["transactions/conditions_within"];
    at_most_two_hundred_writes = Begins(|_| AtMost { writes: AtomicUsize::new(0) }) => ["transactions/many_writes"];
    etag_changes_at_commit = Begins(|_| OtherEtag) => [
        "entries/of_writes_in_a_transaction",
        "transactions/conditions_within",
        "transactions/entries_survive_commit",
    ];
    commits_one_by_one = Begins(|base| AppliesLater { base, at_once: false, written: Mutex::default() }) => [
        "cancellation/dropped_commit",
        "entries/of_writes_in_a_transaction",
        "transactions/all_or_nothing",
        "transactions/counter_loses_no_update",
        "transactions/delete_conflict",
        "transactions/entries_survive_commit",
        "transactions/serializable_excludes_write_skew",
        "transactions/write_conflict",
    ];
}

pub(super) type Base = Arc<dyn StorageBackend>;

/// Wraps each transaction, which is given the store outside of it.
#[derive(Debug)]
pub(super) struct Begins<F>(pub(super) fn(Base) -> F);

#[async_trait]
impl<F: Fault> Fault for Begins<F> {
    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        Ok(within(s.inner.begin().await?, (self.0)(s.inner.clone())))
    }
}

#[derive(Debug)]
struct CommitsOnDrop;

#[async_trait]
impl Fault for CommitsOnDrop {
    fn dropped(&self, tx: &Arc<dyn Transaction>) {
        // The store below commits without waiting; one that has ended refuses.
        let _ = tx.commit().now_or_never();
    }
}

#[derive(Debug)]
struct RollbackCommits;

#[async_trait]
impl Fault for RollbackCommits {
    async fn rollback(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        tx.commit().await
    }
}

#[derive(Debug)]
struct WritesAtOnce {
    base: Base,
}

#[async_trait]
impl Fault for WritesAtOnce {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        let written = s.inner.put(key, bytes.clone().into(), options).await?;
        self.base.put(key, bytes.into(), PutOptions::new()).await?;
        Ok(written)
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        tx.rollback().await
    }
}

#[derive(Debug, PartialEq)]
enum Reads {
    Get,
    List,
}

/// One kind of read sees the store outside.
#[derive(Debug)]
struct ReadsBase {
    base: Base,
    reads: Reads,
}

#[async_trait]
impl Fault for ReadsBase {
    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        if self.reads == Reads::Get {
            // Also in the transaction, so that it conflicts with what it has read, and so that its end is noticed.
            s.inner.stat(key, options.clone()).await?;
            return self.base.stat(key, options).await;
        }
        s.inner.stat(key, options).await
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let within = s.inner.list(options.clone()).await?;
        if self.reads == Reads::List { self.base.list(options).await } else { Ok(within) }
    }
}

/// What it has not written itself it reads as it is outside at that moment.
#[derive(Debug)]
struct ReadsChange {
    base: Base,
    written: Mutex<BTreeSet<Key>>,
}

#[async_trait]
impl Fault for ReadsChange {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let within = s.inner.get(key, options.clone()).await?;
        if locked(&self.written).contains(key) {
            return Ok(within);
        }
        self.base.get(key, options).await
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        locked(&self.written).insert(key.clone());
        s.inner.put(key, body, options).await
    }
}

/// At commit only writes are compared with those of others.
#[derive(Debug)]
struct ReadsAreForgotten;

#[async_trait]
impl Fault for ReadsAreForgotten {
    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        let snapshot = s.inner.begin().await?;
        let tx = s.inner.begin().await?;
        Ok(within(tx, Forgets { snapshot, written: AtomicBool::new(false) }))
    }
}

#[derive(Debug)]
struct Forgets {
    snapshot: Arc<dyn Transaction>,
    written: AtomicBool,
}

#[async_trait]
impl Fault for Forgets {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        // Once it writes it reads as it should, so that it sees its own writes.
        if self.written.load(Ordering::SeqCst) {
            return s.inner.get(key, options).await;
        }
        self.snapshot.get(key, options).await
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.written.store(true, Ordering::SeqCst);
        s.inner.put(key, body, options).await
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        self.snapshot.rollback().await?;
        tx.commit().await
    }

    async fn rollback(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        self.snapshot.rollback().await?;
        tx.rollback().await
    }
}

#[derive(Debug)]
struct OpenAfterItsEnd {
    base: Base,
    ended: AtomicBool,
}

#[async_trait]
impl Fault for OpenAfterItsEnd {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let store = if self.ended.load(Ordering::SeqCst) { &self.base } else { s.inner };
        store.put(key, body, options).await
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        self.ended.store(true, Ordering::SeqCst);
        tx.commit().await
    }
}

#[derive(Debug)]
struct ClearsNothing;

#[async_trait]
impl Fault for ClearsNothing {
    async fn clear(&self, _: Sides<'_>, _: &str) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct BrokenBodyEndsIt;

#[async_trait]
impl Fault for BrokenBodyEndsIt {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        match whole(body).await {
            Ok(bytes) => s.inner.put(key, bytes.into(), options).await,
            Err(e) => {
                s.inner.clear("").await?;
                Err(e)
            }
        }
    }
}

#[derive(Debug)]
struct CreatesByBase {
    base: Base,
}

#[async_trait]
impl Fault for CreatesByBase {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        if options.condition == Some(Condition::IfAbsent) {
            options.condition = None;
            if self.base.stat(key, StatOptions::new()).await?.is_some() {
                return Err(Error::new(ErrorKind::AlreadyExists, "the key exists"));
            }
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct AtMost {
    writes: AtomicUsize,
}

#[async_trait]
impl Fault for AtMost {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if self.writes.fetch_add(1, Ordering::SeqCst) >= 200 {
            return Err(Error::new(ErrorKind::TooLarge, "the transaction has too many writes"));
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct OtherEtag;

#[async_trait]
impl Fault for OtherEtag {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        entry.etag = entry.etag.map(|etag| Etag::new(format!("uncommitted {etag}")));
        Ok(entry)
    }
}

/// The last values are written at commit, whatever others have written since; one by one, or in another transaction.
#[derive(Debug)]
struct AppliesLater {
    base: Base,
    at_once: bool,
    written: Mutex<BTreeSet<Key>>,
}

impl AppliesLater {
    fn note(&self, key: &Key) {
        locked(&self.written).insert(key.clone());
    }
}

#[async_trait]
impl Fault for AppliesLater {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.note(key);
        s.inner.put(key, body, options).await
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        self.note(key);
        s.inner.delete(key, options).await
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        let written = std::mem::take(&mut *locked(&self.written));
        let within: Base = tx.clone();
        let sides = Sides { outer: &*within, inner: &within };
        let mut last = Vec::new();
        for key in written {
            let metadata = within.stat(&key, StatOptions::new()).await?.and_then(|entry| entry.metadata);
            last.push((value(sides, &key).await?, metadata, key));
        }
        tx.rollback().await?;
        let later = self.base.begin().await?;
        for (bytes, metadata, key) in last {
            let store: Base = if self.at_once { later.clone() } else { self.base.clone() };
            match bytes {
                Some(bytes) => {
                    let mut options = PutOptions::new();
                    options.metadata = metadata;
                    store.put(&key, bytes.into(), options).await?;
                }
                None => store.delete(&key, DeleteOptions::new()).await?,
            }
            if !self.at_once {
                pause().await;
            }
        }
        later.commit().await
    }
}
