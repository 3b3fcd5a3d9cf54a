//! A sound store in which values can be damaged, and stores that make the wrong thing of one.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    Body, Bytes, Comparison, Condition, DeleteOptions, Entry, EntryStream, Error, ErrorKind, Filter, GetOptions, Key,
    ListItem, ListOptions, ListStream, Metadata, Object, PutOptions, Query, Result, StatOptions, StorageBackend,
    Transaction, async_trait, defaults,
};

use crate::checks::damaged::OF_OTHERS;

use super::{
    Sides, table,
    wrap::{Fault, Wrapped, listed, streamed, within},
};

table! {
    takes_values_of_others_for_damaged = RefusesOthers => ["damaged/values_of_others_are_ordinary"];
    ends_a_listing_at_a_damaged_entry = EndsListings => ["damaged/is_listed_as_such"];
    passes_a_damaged_entry_over = PassesOver => ["damaged/is_listed_as_such"];
    lists_a_damaged_entry_as_sound = ListsAsSound => ["damaged/is_listed_as_such"];
    lists_the_metadata_of_a_damaged_entry = ListsItsMetadata => ["damaged/is_listed_as_such"];
    reads_a_damaged_value = Reads => ["damaged/reads_are_corrupt"];
    says_that_a_damaged_value_is_absent = SaysAbsent => ["damaged/reads_are_corrupt"];
    stats_a_damaged_value = Stats => ["damaged/reads_are_corrupt"];
    fails_a_batch_for_a_damaged_value = FailsTheBatch => ["damaged/reads_are_corrupt"];
    ends_a_query_at_a_damaged_entry = EndsQueries => ["damaged/queries_find_it_by_no_metadata"];
    leaves_a_damaged_entry_out_of_queries = LeavesOut => ["damaged/queries_find_it_by_no_metadata"];
    finds_a_damaged_entry_by_no_tag = FindsByNoTag => ["damaged/queries_find_it_by_no_metadata"];
    finds_a_damaged_entry_by_its_old_metadata = FindsByOldMetadata => ["damaged/queries_find_it_by_no_metadata"];
    cannot_write_over_a_damaged_value = CannotWriteOver => ["damaged/can_be_replaced_and_removed"];
    cannot_delete_a_damaged_value = CannotDelete => ["damaged/can_be_replaced_and_removed"];
    clears_up_to_a_damaged_value = ClearsUpTo => ["damaged/can_be_replaced_and_removed"];
    creates_in_place_of_a_damaged_value = Creates => ["damaged/no_condition_holds"];
    updates_a_damaged_value = Updates => ["damaged/no_condition_holds"];
    deletes_a_damaged_value_on_condition = DeletesOnCondition => ["damaged/no_condition_holds"];
}

/// The metadata field by which a damaged value is told. Its text is what the metadata was.
const DAMAGED: &str = "storage.damaged";

/// The store, in which a value written by [`damage`] is damaged.
#[must_use]
pub fn damageable(inner: Arc<dyn StorageBackend>) -> Arc<dyn StorageBackend> {
    Arc::new(Wrapped::new(inner, Marks))
}

/// Damages a value in the store below a [`damageable`] one.
///
/// # Errors
/// Those of the store.
pub async fn damage(below: &dyn StorageBackend, key: &Key) -> Result<()> {
    let Some(object) = below.get(key, GetOptions::new()).await? else {
        return Err(Error::new(ErrorKind::NotFound, "there is no value to damage").with_key(key));
    };
    let metadata = object.entry.metadata.as_ref().map_or_else(String::new, |metadata| metadata.to_json());
    let options = PutOptions::new().metadata(Metadata::new().field(DAMAGED, metadata));
    below.put(key, object.body, options).await.map(drop)
}

fn is_marked(entry: &Entry) -> bool {
    entry.metadata.as_ref().is_some_and(|metadata| metadata.fields.contains_key(DAMAGED))
}

fn reason() -> Error {
    Error::new(ErrorKind::Corrupt, "the record of the value was damaged by the suite")
}

fn judged(entry: Entry) -> Entry {
    if is_marked(&entry) { entry.into_damaged(reason()) } else { entry }
}

fn readable(object: Option<Object>) -> Result<Option<Object>> {
    match object {
        Some(object) if is_marked(&object.entry) => Err(reason().with_key(&object.entry.key)),
        object => Ok(object),
    }
}

/// No fault: what the contract asks of a store that finds a damaged value.
#[derive(Debug)]
struct Marks;

#[async_trait]
impl Fault for Marks {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        readable(s.inner.get(key, options).await?)
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        s.inner.stat(key, options).await?.map(|entry| judged(entry).sound()).transpose()
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let items = s.inner.list(options).await?;
        let judged = items.map_ok(|item| match item {
            ListItem::Entry(entry) => ListItem::Entry(judged(entry)),
            prefix => prefix,
        });
        Ok(judged.boxed())
    }

    async fn get_batch(&self, s: Sides<'_>, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let results = s.inner.get_batch(items).await?;
        Ok(results.into_iter().map(|result| readable(result?)).collect())
    }

    async fn query(&self, s: Sides<'_>, query: Query) -> Result<EntryStream> {
        let marked = Query::new().field(DAMAGED, Comparison::GreaterOrEqual, "").limit(1);
        match s.inner.query(marked).await?.try_next().await? {
            // The store below knows metadata that the damaged entry no longer has.
            Some(_) => defaults::query(s.outer, query).await,
            None => s.inner.query(query).await,
        }
    }

    async fn versions(&self, s: Sides<'_>, key: &Key) -> Result<EntryStream> {
        Ok(s.inner.versions(key).await?.map_ok(judged).boxed())
    }

    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        Ok(within(s.inner.begin().await?, Marks))
    }

    // The wrapper above spares the store, unless that is its fault.
    async fn disconnect(&self, s: Sides<'_>) -> Result<()> {
        s.inner.disconnect().await
    }
}

/// Whether the value of this key is damaged.
async fn is_damaged(s: Sides<'_>, key: &Key) -> bool {
    let entry = s.inner.stat(key, StatOptions::new()).await;
    entry.is_err_and(|e| e.kind() == ErrorKind::Corrupt)
}

async fn passed(s: Sides<'_>, options: ListOptions, what: impl Fn(Entry) -> Option<Entry>) -> Result<ListStream> {
    let items = listed(s, options).await?.into_iter().filter_map(|item| match item {
        ListItem::Entry(entry) if entry.damaged.is_some() => what(entry).map(ListItem::Entry),
        sound => Some(sound),
    });
    Ok(streamed(items.collect()))
}

/// What has no record of its own counts as damaged.
#[derive(Debug)]
struct RefusesOthers;

#[async_trait]
impl Fault for RefusesOthers {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if key.as_str() == OF_OTHERS { Err(reason()) } else { s.inner.get(key, options).await }
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        if key.as_str() == OF_OTHERS { Err(reason()) } else { s.inner.stat(key, options).await }
    }
}

#[derive(Debug)]
struct EndsListings;

#[async_trait]
impl Fault for EndsListings {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let items = s.inner.list(options).await?;
        let ended = items.and_then(|item| async {
            match item {
                ListItem::Entry(entry) => entry.sound().map(ListItem::Entry),
                prefix => Ok(prefix),
            }
        });
        Ok(ended.boxed())
    }
}

#[derive(Debug)]
struct PassesOver;

#[async_trait]
impl Fault for PassesOver {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        passed(s, options, |_| None).await
    }
}

#[derive(Debug)]
struct ListsAsSound;

#[async_trait]
impl Fault for ListsAsSound {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let as_sound = |mut entry: Entry| {
            entry.damaged = None;
            entry.metadata = Some(Arc::default());
            Some(entry)
        };
        passed(s, options, as_sound).await
    }
}

#[derive(Debug)]
struct ListsItsMetadata;

#[async_trait]
impl Fault for ListsItsMetadata {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let with_metadata = |mut entry: Entry| {
            entry.metadata = Some(Arc::default());
            Some(entry)
        };
        passed(s, options, with_metadata).await
    }
}

#[derive(Debug)]
struct Reads;

#[async_trait]
impl Fault for Reads {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        match s.inner.get(key, options).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(Object::new(Entry::new(key.clone(), 0), Bytes::new()))),
            read => read,
        }
    }
}

#[derive(Debug)]
struct SaysAbsent;

#[async_trait]
impl Fault for SaysAbsent {
    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        s.inner.stat(key, options).await.or_else(|e| if e.kind() == ErrorKind::Corrupt { Ok(None) } else { Err(e) })
    }
}

#[derive(Debug)]
struct Stats;

#[async_trait]
impl Fault for Stats {
    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        match s.inner.stat(key, options).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(Entry::new(key.clone(), 0).into_damaged(e))),
            entry => entry,
        }
    }
}

/// What one item of a batch fails with, the batch fails with.
#[derive(Debug)]
struct FailsTheBatch;

#[async_trait]
impl Fault for FailsTheBatch {
    async fn get_batch(&self, s: Sides<'_>, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let results = s.inner.get_batch(items).await?;
        let mut failed = results.iter().filter_map(|result| result.as_ref().err());
        match failed.find(|e| e.kind() == ErrorKind::Corrupt) {
            Some(e) => Err(e.clone()),
            None => Ok(results),
        }
    }
}

#[derive(Debug)]
struct EndsQueries;

#[async_trait]
impl Fault for EndsQueries {
    async fn query(&self, s: Sides<'_>, query: Query) -> Result<EntryStream> {
        Ok(s.inner.query(query).await?.and_then(|entry| async { entry.sound() }).boxed())
    }
}

#[derive(Debug)]
struct LeavesOut;

#[async_trait]
impl Fault for LeavesOut {
    async fn query(&self, s: Sides<'_>, query: Query) -> Result<EntryStream> {
        let entries: Vec<Entry> = s.inner.query(query).await?.try_collect().await?;
        Ok(streamed(entries.into_iter().filter(|entry| entry.damaged.is_none()).collect()))
    }
}

/// That no tag is asked for holds of metadata that nobody knows.
#[derive(Debug)]
struct FindsByNoTag;

#[async_trait]
impl Fault for FindsByNoTag {
    async fn query(&self, s: Sides<'_>, mut query: Query) -> Result<EntryStream> {
        query.filters.retain(|filter| !matches!(filter, Filter::AllTags(tags) if tags.is_empty()));
        s.inner.query(query).await
    }
}

/// An index still holds what the metadata was.
#[derive(Debug)]
struct FindsByOldMetadata;

#[async_trait]
impl Fault for FindsByOldMetadata {
    async fn query(&self, s: Sides<'_>, query: Query) -> Result<EntryStream> {
        if query.filters.iter().any(|filter| matches!(filter, Filter::Field { .. })) {
            let mut all = query.clone();
            all.filters.clear();
            let entries: Vec<Entry> = s.inner.query(all).await?.try_collect().await?;
            let found = entries.into_iter().filter(|entry| entry.damaged.is_some() || query.matches(entry));
            return Ok(streamed(found.collect()));
        }
        s.inner.query(query).await
    }
}

/// It looks at what is there before it writes.
#[derive(Debug)]
struct CannotWriteOver;

#[async_trait]
impl Fault for CannotWriteOver {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if options.condition.is_none() {
            s.inner.stat(key, StatOptions::new()).await?;
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct CannotDelete;

#[async_trait]
impl Fault for CannotDelete {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if options == DeleteOptions::new() {
            s.inner.stat(key, StatOptions::new()).await?;
        }
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct ClearsUpTo;

#[async_trait]
impl Fault for ClearsUpTo {
    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        let items = listed(s, ListOptions::new().prefix(prefix).metadata(true)).await?;
        if items.into_iter().filter_map(ListItem::into_entry).any(|entry| entry.damaged.is_some()) {
            return Err(reason());
        }
        s.inner.clear(prefix).await
    }
}

/// A value that cannot be read counts as none.
#[derive(Debug)]
struct Creates;

#[async_trait]
impl Fault for Creates {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        if options.condition == Some(Condition::IfAbsent) && is_damaged(s, key).await {
            options.condition = None;
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct Updates;

#[async_trait]
impl Fault for Updates {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        if matches!(options.condition, Some(Condition::IfMatch(_))) && is_damaged(s, key).await {
            options.condition = None;
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct DeletesOnCondition;

#[async_trait]
impl Fault for DeletesOnCondition {
    async fn delete(&self, s: Sides<'_>, key: &Key, mut options: DeleteOptions) -> Result<()> {
        if options.condition.is_some() && is_damaged(s, key).await {
            options.condition = None;
        }
        s.inner.delete(key, options).await
    }
}
