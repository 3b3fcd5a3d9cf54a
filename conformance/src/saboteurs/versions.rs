//! Versions that are lost, mixed up or ignored.

use std::{collections::HashSet, sync::Mutex};

use futures_util::TryStreamExt;
use storage_core::{
    Body, CopyOptions, DeleteOptions, Entry, EntryStream, GetOptions, Key, ListOptions, Object, PutOptions,
    RenameOptions, Result, StatOptions, async_trait, defaults,
};

use super::{
    table,
    wrap::{Fault, Sides, pause, streamed},
};
use crate::support::locked;

table! {
    oldest_first = Lists(|entries| entries.reverse()) => [
        "versioning/clear_hides_and_keeps",
        "versioning/delete_hides_and_keeps",
        "versioning/every_way_to_write_makes_one",
        "versioning/listed_as_described",
        "versioning/listed_newest_first",
        "versioning/old_can_be_deleted",
        "versioning/rename_keeps_both",
    ];
    streams_replace_the_newest = StreamsReplace => ["faults/fail_after", "faults/fail_before", "versioning/every_way_to_write_makes_one"];
    old_values_have_new_metadata = NewMetadata => ["versioning/old_can_be_read"];
    delete_purges = DeletePurges => [
        "faults/fail_after",
        "faults/fail_before",
        "versioning/delete_hides_and_keeps",
        "versioning/listed_as_described",
        "versioning/of_one_key_only",
        "versioning/ranges_are_its_own",
    ];
    old_versions_stay = OldVersionsStay => ["versioning/missing_is_none", "versioning/old_can_be_deleted"];
    missing_version_is_the_newest = MissingIsNewest => ["versioning/missing_is_none", "versioning/old_can_be_deleted"];
    versions_by_prefix = ByPrefix => ["versioning/of_one_key_only"];
    copies_the_newest = CopiesTheNewest => [
        "versioning/clear_hides_and_keeps",
        "versioning/copy_restores",
        "versioning/missing_is_none",
        "versioning/ranges_are_its_own",
        "versioning/rename_keeps_both",
    ];
    an_old_range_ends_with_the_newest = OldRangeIsCut => ["versioning/ranges_are_its_own"];
    no_stat_of_what_was_deleted = NoStatOfDeleted => [
        "versioning/clear_hides_and_keeps",
        "versioning/listed_as_described",
        "versioning/ranges_are_its_own",
        "versioning/rename_keeps_both",
    ];
    clear_purges = ClearPurges => ["versioning/clear_hides_and_keeps"];
    rename_takes_the_versions_along = RenamePurges => ["versioning/rename_keeps_both"];
    versions_have_no_metadata = Lists(|entries| for entry in entries { entry.metadata = None; }) => ["versioning/listed_as_described"];
    racing_versions_are_lost = RacingVersions::default() => ["faults/fail_after", "faults/fail_before", "versioning/racing_writers_are_distinct"];
}

async fn versions_of(s: Sides<'_>, key: &Key) -> Result<Vec<Entry>> {
    s.inner.versions(key).await?.try_collect().await
}

async fn purge(s: Sides<'_>, entry: &Entry) -> Result<()> {
    let mut options = DeleteOptions::new();
    options.version.clone_from(&entry.version);
    s.inner.delete(&entry.key, options).await
}

#[derive(Debug)]
struct Lists(fn(&mut Vec<Entry>));

#[async_trait]
impl Fault for Lists {
    async fn versions(&self, s: Sides<'_>, key: &Key) -> Result<EntryStream> {
        let mut entries = versions_of(s, key).await?;
        (self.0)(&mut entries);
        Ok(streamed(entries))
    }
}

#[derive(Debug)]
struct StreamsReplace;

#[async_trait]
impl Fault for StreamsReplace {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let streamed = !body.is_in_memory();
        let written = s.inner.put(key, body, options).await?;
        if let Some(before) = versions_of(s, key).await?.get(1).filter(|_| streamed) {
            purge(s, before).await?;
        }
        Ok(written)
    }
}

#[derive(Debug)]
struct NewMetadata;

#[async_trait]
impl Fault for NewMetadata {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let old = options.version.is_some();
        let mut found = s.inner.get(key, options).await?;
        if let (Some(object), true) = (&mut found, old)
            && let Some(current) = s.inner.stat(key, StatOptions::new()).await?
        {
            object.entry.metadata = current.metadata;
        }
        Ok(found)
    }
}

#[derive(Debug)]
struct DeletePurges;

#[async_trait]
impl Fault for DeletePurges {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        let all = options.version.is_none();
        s.inner.delete(key, options).await?;
        for entry in versions_of(s, key).await?.iter().filter(|_| all) {
            purge(s, entry).await?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OldVersionsStay;

#[async_trait]
impl Fault for OldVersionsStay {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if options.version.is_some() {
            return Ok(());
        }
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct MissingIsNewest;

#[async_trait]
impl Fault for MissingIsNewest {
    async fn get(&self, s: Sides<'_>, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        if let Some(object) = s.inner.get(key, options.clone()).await? {
            return Ok(Some(object));
        }
        options.version = None;
        s.inner.get(key, options).await
    }
}

#[derive(Debug)]
struct ByPrefix;

#[async_trait]
impl Fault for ByPrefix {
    async fn versions(&self, s: Sides<'_>, key: &Key) -> Result<EntryStream> {
        let listing = s.inner.list(ListOptions::new().prefix(key.as_str())).await?;
        let below: Vec<Entry> = defaults::entries(listing).try_collect().await?;
        let mut entries = versions_of(s, key).await?;
        for other in below.iter().filter(|other| other.key != *key) {
            entries.extend(versions_of(s, &other.key).await?);
        }
        Ok(streamed(entries))
    }
}

#[derive(Debug)]
struct CopiesTheNewest;

#[async_trait]
impl Fault for CopiesTheNewest {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, mut options: CopyOptions) -> Result<Entry> {
        options.version = None;
        s.inner.copy(from, to, options).await
    }
}

#[derive(Debug)]
struct OldRangeIsCut;

#[async_trait]
impl Fault for OldRangeIsCut {
    async fn get(&self, s: Sides<'_>, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        if options.version.is_some()
            && let Some(range) = options.range
            && let Some(newest) = s.inner.stat(key, StatOptions::new()).await?
        {
            options.range = Some(range.resolve(newest.size)?.into());
        }
        s.inner.get(key, options).await
    }
}

#[derive(Debug)]
struct NoStatOfDeleted;

#[async_trait]
impl Fault for NoStatOfDeleted {
    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        match s.inner.stat(key, StatOptions::new()).await? {
            None => Ok(None),
            Some(_) => s.inner.stat(key, options).await,
        }
    }
}

#[derive(Debug)]
struct ClearPurges;

#[async_trait]
impl Fault for ClearPurges {
    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        let listing = s.inner.list(ListOptions::new().prefix(prefix)).await?;
        let cleared: Vec<Entry> = defaults::entries(listing).try_collect().await?;
        s.inner.clear(prefix).await?;
        for entry in cleared {
            for version in versions_of(s, &entry.key).await? {
                purge(s, &version).await?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RenamePurges;

#[async_trait]
impl Fault for RenamePurges {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let entry = s.inner.rename(from, to, options).await?;
        // Whatever fails below is not the fault here.
        for version in versions_of(s, from).await.iter().flatten().filter(|_| from != to) {
            let _ = purge(s, version).await;
        }
        Ok(entry)
    }
}

/// Of two versions written at the same time the older is lost.
#[derive(Debug, Default)]
struct RacingVersions {
    busy: Mutex<HashSet<Key>>,
}

#[async_trait]
impl Fault for RacingVersions {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let lock = || locked(&self.busy);
        let alone = lock().insert(key.clone());
        pause().await;
        let written = s.inner.put(key, body, options).await;
        lock().remove(key);
        let written = written?;
        if let Some(before) = versions_of(s, key).await?.get(1).filter(|_| !alone) {
            purge(s, before).await?;
        }
        Ok(written)
    }
}
