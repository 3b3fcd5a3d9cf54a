//! Transactions that forget, at their end or before, some of what was done in them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use storage_core::{
    Body, Bytes, DeleteOptions, Entry, EntryStream, ErrorKind, GetOptions, Key, ListOptions, ListStream, Object,
    PutOptions, RenameOptions, Result, StatOptions, Transaction, async_trait,
};

use super::{
    table,
    transactions::{Base, Begins},
    wrap::{Fault, Sides, listed, streamed, value, whole, within},
};
use crate::support::locked;

table! {
    renames_at_once = Begins(|base| RenamesAtOnce { base }) => ["entries/of_writes_in_a_transaction", "isolation/conditions_hold_in_every_way", "isolation/nothing_gets_out_before_the_end"];
    versions_are_those_outside = Begins(|base| VersionsOutside { base }) => ["isolation/own_versions_are_seen"];
    write_skew_through_stat = ForgetsReads(Reads::Stat) => ["isolation/what_was_found_still_holds"];
    write_skew_through_a_listing = ForgetsReads(Reads::List) => ["isolation/what_was_found_still_holds"];
    both_create_a_key = Begins(|base| BothCreate { base, created: Mutex::default() }) => ["isolation/every_read_before_every_write"];
    deletes_whatever_the_condition = Begins(|_| DeletesAnyhow) => ["isolation/conditions_hold_in_every_way"];
    deletes_what_was_updated = Begins(|base| DeletesUpdated { base, deleted: Mutex::default(), others: AtomicUsize::new(0) }) => ["isolation/every_read_before_every_write"];
    range_of_a_large_value_is_shifted = Begins(|_| ShiftedRange) => ["isolation/ranges_of_large_values_within"];
    listing_ends_at_256_deleted = Begins(|_| EndsAtDeleted { deleted: Mutex::default() }) => ["isolation/all_of_many_writes_is_committed", "isolation/listings_pass_over_deleted_keys"];
    created_is_reset = CreatedIsReset { written: Arc::default() } => ["entries/of_writes_in_a_transaction", "isolation/created_stays"];
    commits_500_writes = Begins(|_| Commits500 { written: Mutex::default() }) => ["isolation/all_of_many_writes_is_committed"];
}

#[derive(Debug)]
struct RenamesAtOnce {
    base: Base,
}

#[async_trait]
impl Fault for RenamesAtOnce {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        // A source that only the transaction knows can only be renamed within.
        match self.base.rename(from, to, options.clone()).await {
            Err(e) if e.kind() == ErrorKind::NotFound => s.inner.rename(from, to, options).await,
            renamed => renamed,
        }
    }
}

#[derive(Debug)]
struct VersionsOutside {
    base: Base,
}

#[async_trait]
impl Fault for VersionsOutside {
    async fn versions(&self, _: Sides<'_>, key: &Key) -> Result<EntryStream> {
        self.base.versions(key).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reads {
    Stat,
    List,
}

/// One kind of read leaves no trace until the transaction has written.
#[derive(Debug)]
struct ForgetsReads(Reads);

#[async_trait]
impl Fault for ForgetsReads {
    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        let snapshot = s.inner.begin().await?;
        let tx = s.inner.begin().await?;
        Ok(within(tx, Forgets { snapshot, reads: self.0, writes: AtomicUsize::new(0) }))
    }
}

#[derive(Debug)]
struct Forgets {
    snapshot: Arc<dyn Transaction>,
    reads: Reads,
    writes: AtomicUsize,
}

impl Forgets {
    fn forgets(&self, reads: Reads) -> bool {
        self.reads == reads && self.writes.load(Ordering::SeqCst) == 0
    }
}

#[async_trait]
impl Fault for Forgets {
    const DERIVED: bool = true;

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        if self.forgets(Reads::Stat) {
            return self.snapshot.stat(key, options).await;
        }
        s.inner.stat(key, options).await
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        if self.forgets(Reads::List) {
            return self.snapshot.list(options).await;
        }
        s.inner.list(options).await
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        s.inner.put(key, body, options).await
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        s.inner.delete(key, options).await
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

/// When all that is in the way is that another has created what this one has created too, it is written over.
#[derive(Debug)]
struct BothCreate {
    base: Base,
    created: Mutex<BTreeSet<Key>>,
}

#[async_trait]
impl Fault for BothCreate {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let absent = s.inner.stat(key, StatOptions::new()).await?.is_none();
        let written = s.inner.put(key, body, options).await?;
        if absent {
            locked(&self.created).insert(key.clone());
        }
        Ok(written)
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        let within: Base = tx.clone();
        let sides = Sides { outer: &*within, inner: &within };
        let created = std::mem::take(&mut *locked(&self.created));
        let mut again = Vec::new();
        for key in created {
            if self.base.stat(&key, StatOptions::new()).await?.is_some() {
                again.extend(value(sides, &key).await?.map(|value| (key, value)));
            }
        }
        match tx.commit().await {
            Err(e) if e.kind() == ErrorKind::Conflict && !again.is_empty() => {
                for (key, value) in again {
                    self.base.put(&key, value.into(), PutOptions::new()).await?;
                }
                Ok(())
            }
            done => done,
        }
    }
}

#[derive(Debug)]
struct DeletesAnyhow;

#[async_trait]
impl Fault for DeletesAnyhow {
    async fn delete(&self, s: Sides<'_>, key: &Key, mut options: DeleteOptions) -> Result<()> {
        options.condition = None;
        s.inner.delete(key, options).await
    }
}

/// A transaction that does nothing but delete never meets a conflict.
#[derive(Debug)]
struct DeletesUpdated {
    base: Base,
    deleted: Mutex<BTreeSet<Key>>,
    others: AtomicUsize,
}

#[async_trait]
impl Fault for DeletesUpdated {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.others.fetch_add(1, Ordering::SeqCst);
        s.inner.put(key, body, options).await
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        locked(&self.deleted).insert(key.clone());
        s.inner.delete(key, options).await
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        let deleted = std::mem::take(&mut *locked(&self.deleted));
        match tx.commit().await {
            Err(e) if e.kind() == ErrorKind::Conflict && self.others.load(Ordering::SeqCst) == 0 => {
                for key in &deleted {
                    self.base.delete(key, DeleteOptions::new()).await?;
                }
                if deleted.is_empty() { Err(e) } else { Ok(()) }
            }
            done => done,
        }
    }
}

/// Of what is larger than a piece, a range begins a byte early.
#[derive(Debug)]
struct ShiftedRange;

#[async_trait]
impl Fault for ShiftedRange {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let ranged = options.range.is_some();
        let Some(object) = s.inner.get(key, options).await? else { return Ok(None) };
        if !ranged || object.entry.size < 1 << 18 {
            return Ok(Some(object));
        }
        let (entry, mut bytes) = (object.entry, whole(object.body).await?.to_vec());
        bytes.rotate_right(1);
        Ok(Some(Object::new(entry, Bytes::from(bytes))))
    }
}

/// A listing takes a page of deleted keys for its end.
#[derive(Debug)]
struct EndsAtDeleted {
    deleted: Mutex<BTreeSet<Key>>,
}

#[async_trait]
impl Fault for EndsAtDeleted {
    const DERIVED: bool = true;

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        locked(&self.deleted).insert(key.clone());
        s.inner.delete(key, options).await
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let mut last = options.start_after.clone().unwrap_or_default();
        let items = listed(s, options).await?;
        let deleted = locked(&self.deleted);
        let mut shown = Vec::new();
        for item in items {
            let position = item.position().to_owned();
            let between = deleted.iter().filter(|key| key.as_str() > &*last && key.as_str() < &*position).count();
            if between >= 256 {
                break;
            }
            last = position;
            shown.push(item);
        }
        Ok(streamed(shown))
    }
}

/// What a transaction has written was created then.
#[derive(Debug)]
struct CreatedIsReset {
    written: Arc<Mutex<BTreeSet<Key>>>,
}

#[derive(Debug)]
struct Notes(Arc<Mutex<BTreeSet<Key>>>);

#[async_trait]
impl Fault for Notes {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        locked(&self.0).insert(key.clone());
        s.inner.put(key, body, options).await
    }
}

#[async_trait]
impl Fault for CreatedIsReset {
    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        Ok(within(s.inner.begin().await?, Notes(self.written.clone())))
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let Some(mut entry) = s.inner.stat(key, options).await? else { return Ok(None) };
        if locked(&self.written).contains(key) {
            entry.created = entry.modified;
        }
        Ok(Some(entry))
    }
}

/// What was put after the first 500 keys is gone at commit.
#[derive(Debug)]
struct Commits500 {
    written: Mutex<Vec<Key>>,
}

#[async_trait]
impl Fault for Commits500 {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        locked(&self.written).push(key.clone());
        s.inner.put(key, body, options).await
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        let written = std::mem::take(&mut *locked(&self.written));
        for key in written.into_iter().skip(500) {
            tx.delete(&key, DeleteOptions::new()).await?;
        }
        tx.commit().await
    }
}
