//! Entries that say something else than what is stored.

use std::hash::{DefaultHasher, Hash, Hasher};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    BackendInfo, Body, CopyOptions, Entry, Etag, GetOptions, Key, ListItem, ListOptions, ListStream, Object,
    PutOptions, Result, StatOptions, async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides, value, whole},
};

table! {
    etag_of_the_beginning = EtagOfTheBeginning => ["entries/etag_sees_every_byte"];
    streams_return_another_etag = StreamsReturnAnotherEtag => ["entries/every_write_returns_its_entry"];
    equal_writes_are_left_out = EqualWrites => ["damaged/can_be_replaced_and_removed", "damaged/no_condition_holds", "entries/an_equal_write_is_a_write", "entries/every_write_returns_its_entry"];
    an_overwrite_is_created_now = CreatedNow => ["entries/created_stays_whatever_writes", "entries/every_write_returns_its_entry"];
    a_copy_returns_the_etag_of_its_source = CopiesTheEtag => ["entries/every_write_returns_its_entry"];
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
        (capabilities.unique_etags, capabilities.transactions, capabilities.versioning) = (false, false, false);
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
        let drop = options.one_level && options.metadata;
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
