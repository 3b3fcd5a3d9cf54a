//! Entries that say something else than what is stored.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Mutex,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    BackendInfo, Body, CopyOptions, Entry, Etag, GetOptions, Key, ListItem, ListOptions, ListStream, Object,
    PutOptions, Result, StatOptions, async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides, value, whole},
};
use crate::support::locked;

table! {
    etag_of_the_beginning = EtagOfTheBeginning => ["entries/etag_sees_every_byte"];
    streams_return_another_etag = StreamsReturnAnotherEtag => ["entries/every_write_returns_its_entry"];
    equal_writes_are_left_out = EqualWrites => ["damaged/can_be_replaced_and_removed", "damaged/no_condition_holds", "entries/an_equal_write_is_a_write", "entries/every_write_returns_its_entry"];
    an_overwrite_is_created_now = CreatedNow => ["entries/created_stays_whatever_writes", "entries/every_write_returns_its_entry"];
    a_copy_returns_the_etag_of_its_source = CopiesTheEtag => ["entries/every_write_returns_its_entry"];
    a_stat_is_the_answer_to_the_write = StatIsTheAnswer::default() => ["entries/reads_are_dated", "list/sort_size_modified", "metadata/stat_list_get_agree"];
    a_bare_read_is_taken_for_an_entry = KeepsBareReads::default() => ["entries/reads_are_dated"];
    answers_with_its_own_clock = OwnClock => [
        "basic/put_returns_entry",
        "entries/every_write_returns_its_entry",
        "metadata/modified_is_the_time_of_the_write",
        "metadata/stat_list_get_agree",
        "versioning/listed_newest_first",
    ];
    one_level_without_metadata = OneLevelWithoutMetadata => ["counts/of_entries_with_metadata", "damaged/is_listed_as_such", "metadata/listed_only_when_asked"];
}

/// The etag is a hash of the first 4 KiB, and nothing that needs better ones is declared.
#[derive(Debug)]
struct EtagOfTheBeginning;

impl EtagOfTheBeginning {
    async fn mark(&self, s: Sides<'_>, entry: &mut Entry) {
        // Whatever fails below is not the fault here.
        let Ok(Some(bytes)) = value(s, &entry.key).await else { return };
        let mut hash = DefaultHasher::new();
        bytes[..bytes.len().min(4096)].hash(&mut hash);
        entry.etag = Some(Etag::new(format!("{:x}", hash.finish())));
    }
}

#[async_trait]
impl Fault for EtagOfTheBeginning {
    const DERIVED: bool = true;

    fn declare(&self, info: &mut BackendInfo) {
        let capabilities = &mut info.capabilities;
        (capabilities.conditional, capabilities.conditional_delete) = (false, false);
        (capabilities.version_etags, capabilities.transactions, capabilities.versioning) = (false, false, false);
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        entry.version = None;
        self.mark(s, &mut entry).await;
        Ok(entry)
    }

    async fn get(&self, s: Sides<'_>, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        let conditions = options.clone();
        (options.if_match, options.if_none_match) = (None, None);
        let Some(mut object) = s.inner.get(key, options).await? else {
            return conditions.check_current(None).map(|()| None);
        };
        object.entry.version = None;
        self.mark(s, &mut object.entry).await;
        conditions.check_current(Some(&object.entry))?;
        Ok(Some(object))
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let Some(mut entry) = s.inner.stat(key, options).await? else { return Ok(None) };
        entry.version = None;
        self.mark(s, &mut entry).await;
        Ok(Some(entry))
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let mut items: Vec<ListItem> = s.inner.list(options).await?.try_collect().await?;
        for item in &mut items {
            if let ListItem::Entry(entry) = item {
                entry.version = None;
                self.mark(s, entry).await;
            }
        }
        Ok(super::wrap::streamed(items))
    }
}

#[derive(Debug)]
struct StreamsReturnAnotherEtag;

#[async_trait]
impl Fault for StreamsReturnAnotherEtag {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let streamed = !body.is_in_memory();
        let mut entry = s.inner.put(key, body, options).await?;
        if streamed {
            entry.etag = entry.etag.map(|etag| Etag::new(format!("{etag}-1")));
        }
        Ok(entry)
    }
}

/// A put of what is there already is not done, metadata included.
#[derive(Debug)]
struct EqualWrites;

#[async_trait]
impl Fault for EqualWrites {
    const DERIVED: bool = true;

    fn declare(&self, info: &mut BackendInfo) {
        info.capabilities.versioning = false;
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        let unconditional = options.condition.is_none();
        if let Some(object) = s.inner.get(key, GetOptions::new()).await?.filter(|_| unconditional) {
            let entry = object.entry;
            let same = entry.metadata.clone().unwrap_or_default() == options.metadata.clone().unwrap_or_default();
            if same && whole(object.body).await? == bytes {
                return Ok(entry);
            }
        }
        s.inner.put(key, bytes.into(), options).await
    }
}

#[derive(Debug)]
struct CreatedNow;

#[async_trait]
impl Fault for CreatedNow {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        entry.created = entry.modified;
        Ok(entry)
    }
}

/// Puts are answered without dates, and a stat gives that answer again as long as the value is the same.
#[derive(Debug, Default)]
struct StatIsTheAnswer(Mutex<HashMap<Key, Entry>>);

#[async_trait]
impl Fault for StatIsTheAnswer {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        (entry.modified, entry.created) = (None, None);
        locked(&self.0).insert(key.clone(), entry.clone());
        Ok(entry)
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let current = options.version.is_none();
        let found = s.inner.stat(key, options).await?;
        let answer = locked(&self.0).get(key).cloned().filter(|_| current);
        let same = |answer: &Entry| found.as_ref().is_some_and(|found| found.etag == answer.etag);
        Ok(answer.filter(same).or(found))
    }
}

/// What a read of the bytes alone needed of an entry, with its metadata, is the answer of each stat as long as the value is the same.
#[derive(Debug, Default)]
struct KeepsBareReads(Mutex<HashMap<Key, Entry>>);

#[async_trait]
impl Fault for KeepsBareReads {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let bytes_alone = !options.entry && options.version.is_none();
        let mut found = s.inner.get(key, options).await?;
        if let Some(object) = found.as_mut().filter(|_| bytes_alone) {
            let mut bare = Entry::new(key.clone(), object.entry.size);
            (bare.etag, bare.version) = (object.entry.etag.take(), object.entry.version.take());
            object.entry.etag = bare.etag.clone();
            let metadata = object.entry.metadata.take();
            object.entry = bare.clone();
            bare.metadata = metadata;
            locked(&self.0).insert(key.clone(), bare);
        }
        Ok(found)
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let current = options.version.is_none();
        let found = s.inner.stat(key, options).await?;
        let kept = locked(&self.0).get(key).cloned().filter(|_| current);
        let same = |kept: &Entry| found.as_ref().is_some_and(|found| found.etag == kept.etag);
        Ok(kept.filter(same).or(found))
    }
}

/// What a put returns has the date of a clock that is five seconds ahead.
#[derive(Debug)]
struct OwnClock;

#[async_trait]
impl Fault for OwnClock {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        entry.modified = entry.modified.map(|time| time + Duration::from_secs(5));
        Ok(entry)
    }
}

#[derive(Debug)]
struct CopiesTheEtag;

#[async_trait]
impl Fault for CopiesTheEtag {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let source = s.inner.stat(from, StatOptions::new()).await?;
        let unconditional = options.condition.is_none();
        let mut entry = s.inner.copy(from, to, options).await?;
        if let Some(source) = source.filter(|_| unconditional) {
            entry.etag = source.etag;
        }
        Ok(entry)
    }
}

#[derive(Debug)]
struct OneLevelWithoutMetadata;

#[async_trait]
impl Fault for OneLevelWithoutMetadata {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let drop = options.delimited && options.metadata;
        let items = s.inner.list(options).await?.map_ok(move |mut item| {
            if let ListItem::Entry(entry) = &mut item
                && drop
            {
                entry.metadata = Some(Default::default());
            }
            item
        });
        Ok(items.boxed())
    }
}
