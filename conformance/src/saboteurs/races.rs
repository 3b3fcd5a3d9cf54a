//! Stores that are right as long as nobody comes in between.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    BatchOptions, Body, Bytes, Condition, CopyOptions, DeleteOptions, Entry, GetOptions, Key, ListOptions, ListStream,
    Metadata, Object, PutOptions, RenameOptions, Result, StatOptions, async_trait,
};
use tokio::{sync::RwLock, task::yield_now};

use super::{
    table,
    wrap::{Fault, Sides, whole},
};
use crate::support::locked;

table! {
    delete_batch_ignores_conditions = DeleteBatchIgnores => ["batch/conditions_of_each_delete", "races/one_updater_wins_whatever_the_way"];
    streams_share_a_staging_place = SharedStaging::default() => ["races/streams_at_once_keep_apart"];
    keeps_the_bytes_of_a_failed_stream = KeepsBytes::default() => ["races/broken_streams_leave_nothing_behind"];
    copy_checks_first = ChecksFirst { copy: true, gap: Gap::Await } => ["damaged/no_condition_holds", "races/one_creator_wins_whatever_the_way"];
    copy_checks_first_between_threads = ChecksFirst { copy: true, gap: Gap::Sleep } => ["damaged/no_condition_holds", "races/one_creator_wins_whatever_the_way"];
    rename_checks_first = ChecksFirst { copy: false, gap: Gap::Await } => ["races/one_creator_wins_whatever_the_way"];
    rename_checks_first_between_threads = ChecksFirst { copy: false, gap: Gap::Sleep } => ["races/one_creator_wins_whatever_the_way"];
    rename_deletes_what_was_written_meanwhile = RenameDeletes(Gap::Await) => ["races/rename_spares_what_was_written_meanwhile"];
    rename_deletes_between_threads = RenameDeletes(Gap::Sleep) => ["races/rename_spares_what_was_written_meanwhile"];
    copy_reads_twice = CopyReadsTwice(Gap::Await) => ["races/every_call_beside_every_other"];
    copy_reads_twice_between_threads = CopyReadsTwice(Gap::Sleep) => ["races/every_call_beside_every_other_on_threads"];
    copy_tells_what_is_there_now = CopyTellsWhatIsThere => ["races/every_call_beside_every_other"];
    copy_shows_the_bytes_first = CopyShowsBytesFirst => ["races/every_call_beside_every_other"];
    torn_where_sizes_are_equal = TornAtEqualSize(Gap::Await) => ["races/every_call_beside_every_other"];
    torn_between_threads = TornAtEqualSize(Gap::Sleep) => ["concurrency/no_torn_reads", "races/every_call_beside_every_other_on_threads"];
    listing_holds_the_lock = ListingHoldsTheLock::default() => ["races/open_streams_block_nobody"];
}

/// Who can come in between.
#[derive(Debug)]
enum Gap {
    /// Others of the same task.
    Await,
    /// Other threads, which have long enough.
    Sleep,
}

impl Gap {
    async fn pass(&self) {
        match self {
            Self::Await => yield_now().await,
            Self::Sleep => std::thread::sleep(std::time::Duration::from_micros(20)),
        }
    }
}

#[derive(Debug)]
struct DeleteBatchIgnores;

#[async_trait]
impl Fault for DeleteBatchIgnores {
    async fn delete_batch(
        &self,
        s: Sides<'_>,
        mut items: Vec<(Key, DeleteOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<()>>> {
        for (_, options) in &mut items {
            options.condition = None;
        }
        s.inner.delete_batch(items, options).await
    }
}

/// Streams of one key are staged in one place.
#[derive(Debug, Default)]
struct SharedStaging {
    staged: Mutex<BTreeMap<Key, Vec<u8>>>,
}

#[async_trait]
impl Fault for SharedStaging {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut body = match body.into_buffer() {
            Ok(whole) => return s.inner.put(key, whole.into(), options).await,
            Err(body) => body,
        };
        let staged = || locked(&self.staged);
        staged().remove(key);
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => staged().entry(key.clone()).or_default().extend_from_slice(&piece),
                Err(e) => {
                    staged().remove(key);
                    return Err(e);
                }
            }
        }
        let bytes = staged().remove(key).unwrap_or_default();
        s.inner.put(key, bytes.into(), options).await
    }
}

/// What came before a stream broke off is put before the next one.
#[derive(Debug, Default)]
struct KeepsBytes {
    left: Mutex<Vec<u8>>,
}

#[async_trait]
impl Fault for KeepsBytes {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut body = match body.into_buffer() {
            Ok(whole) => return s.inner.put(key, whole.into(), options).await,
            Err(body) => body,
        };
        let mut bytes = std::mem::take(&mut *locked(&self.left));
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(e) => {
                    *locked(&self.left) = bytes;
                    return Err(e);
                }
            }
        }
        s.inner.put(key, bytes.into(), options).await
    }
}

/// A condition is looked at, and later the target is written without one.
#[derive(Debug)]
struct ChecksFirst {
    /// Of a copy, otherwise of a rename.
    copy: bool,
    gap: Gap,
}

impl ChecksFirst {
    async fn check(&self, s: Sides<'_>, to: &Key, condition: Option<Condition>) -> Result<()> {
        if let Some(condition) = condition {
            condition.check(s.inner.stat(to, StatOptions::new()).await?.as_ref())?;
            self.gap.pass().await;
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for ChecksFirst {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, mut options: CopyOptions) -> Result<Entry> {
        if self.copy && s.inner.stat(from, StatOptions::new()).await?.is_some() {
            self.check(s, to, options.condition.take()).await?;
        }
        s.inner.copy(from, to, options).await
    }

    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, mut options: RenameOptions) -> Result<Entry> {
        if !self.copy && from != to && s.inner.stat(from, StatOptions::new()).await?.is_some() {
            self.check(s, to, options.condition.take()).await?;
        }
        s.inner.rename(from, to, options).await
    }
}

#[derive(Debug)]
struct RenameDeletes(Gap);

#[async_trait]
impl Fault for RenameDeletes {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        if from == to {
            return s.inner.rename(from, to, options).await;
        }
        let mut copy = CopyOptions::new();
        copy.condition = options.condition;
        let entry = s.inner.copy(from, to, copy).await?;
        self.0.pass().await;
        s.inner.delete(from, DeleteOptions::new()).await.map_err(storage_core::Error::ambiguous)?;
        Ok(entry)
    }
}

/// The metadata is that of one version, the bytes those of another.
#[derive(Debug)]
struct CopyReadsTwice(Gap);

#[async_trait]
impl Fault for CopyReadsTwice {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, mut options: CopyOptions) -> Result<Entry> {
        let plain = from != to && options.version.is_none() && options.metadata.is_none();
        if let Some(entry) = s.inner.stat(from, StatOptions::new()).await?.filter(|_| plain) {
            options.metadata = entry.metadata;
            self.0.pass().await;
        }
        s.inner.copy(from, to, options).await
    }
}

/// The answer is what a look at the target finds a moment later, which may be another's write.
#[derive(Debug)]
struct CopyTellsWhatIsThere;

#[async_trait]
impl Fault for CopyTellsWhatIsThere {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let copied = s.inner.copy(from, to, options).await?;
        yield_now().await;
        Ok(s.inner.stat(to, StatOptions::new()).await?.unwrap_or(copied))
    }
}

#[derive(Debug)]
struct CopyShowsBytesFirst;

#[async_trait]
impl Fault for CopyShowsBytesFirst {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, mut options: CopyOptions) -> Result<Entry> {
        let plain = from != to && options.version.is_none() && options.metadata.is_none();
        let source = s.inner.get(from, GetOptions::new()).await?.filter(|_| plain);
        let described = |object: &Object| object.entry.metadata.as_ref().is_some_and(|metadata| !metadata.is_empty());
        let Some(source) = source.filter(described) else { return s.inner.copy(from, to, options).await };
        // Without versions to restore, since two would be made here.
        if options.condition.is_some() {
            return s.inner.copy(from, to, options).await;
        }
        options.metadata = source.entry.metadata.clone();
        let bytes = whole(source.body).await?;
        s.inner.put(to, bytes.clone().into(), PutOptions::new().metadata(Arc::new(Metadata::new()))).await?;
        yield_now().await;
        let mut write = PutOptions::new();
        write.metadata = options.metadata;
        s.inner.put(to, bytes.into(), write).await
    }
}

/// A long value is read in two halves. That its size changed meanwhile is noticed, that its bytes did is not.
#[derive(Debug)]
struct TornAtEqualSize(Gap);

#[async_trait]
impl Fault for TornAtEqualSize {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let long = |object: &Object| object.entry.size > 8;
        let plain = options.range.is_none() && options.version.is_none();
        let Some(first) = s.inner.get(key, options.clone()).await? else { return Ok(None) };
        if !plain || !long(&first) {
            return Ok(Some(first));
        }
        self.0.pass().await;
        let second = s.inner.get(key, GetOptions::new()).await?;
        let Some(second) = second.filter(|second| second.entry.size == first.entry.size) else {
            return Ok(Some(first));
        };
        let (entry, half) = (first.entry, second.entry.size as usize / 2);
        let (head, tail) = (whole(first.body).await?, whole(second.body).await?);
        if head.len() != tail.len() {
            return Ok(Some(Object::new(entry, head)));
        }
        Ok(Some(Object::new(entry, Bytes::from([&head[..half], &tail[half..]].concat()))))
    }
}

/// Whoever writes waits until every listing has ended.
#[derive(Debug, Default)]
struct ListingHoldsTheLock {
    lock: Arc<RwLock<()>>,
}

#[async_trait]
impl Fault for ListingHoldsTheLock {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let held = self.lock.clone().read_owned().await;
        let listing = s.inner.list(options).await?;
        Ok(listing.inspect_ok(move |_| _ = &held).boxed())
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        let _writing = self.lock.write().await;
        s.inner.put(key, bytes.into(), options).await
    }
}
