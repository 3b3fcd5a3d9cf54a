//! A backend of which little can be asked: no conditional writes, and etags that are hashes of the content.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::hash::{DefaultHasher, Hash, Hasher};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    BackendInfo, Body, Bytes, Capabilities, DeleteOptions, Entry, Etag, GetOptions, Key, Limits, ListItem, ListOptions,
    ListStream, Object, PutOptions, Result, StatOptions, StorageBackend, async_trait,
};
use storage_memory::Memory;

#[derive(Debug)]
pub(crate) struct Hashed {
    info: BackendInfo,
    memory: Memory,
}

impl Default for Hashed {
    fn default() -> Self {
        Self::with_limits(|_| {})
    }
}

impl Hashed {
    pub(crate) fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let memory = Memory::new();
        let mut info = memory.info().clone();
        info.id = "hashed".into();
        info.capabilities = Capabilities::new().atomic();
        change(&mut info.limits);
        Self { info, memory }
    }

    /// With conditions on puts. They hold in tests with one writer at a time.
    pub(crate) fn conditional() -> Self {
        let mut hashed = Self::default();
        hashed.info.capabilities.conditional = true;
        hashed
    }
}

async fn read(memory: &Memory, key: &Key) -> Result<Option<(Entry, Bytes)>> {
    let Some(object) = memory.get(key, GetOptions::new()).await? else {
        return Ok(None);
    };
    let value = object.body.bytes(u64::MAX).await?;
    let mut hash = DefaultHasher::new();
    value.hash(&mut hash);
    let mut entry = object.entry;
    entry.etag = Some(Etag::new(format!("\"the hash {:x}\"", hash.finish())));
    entry.version = None;
    Ok(Some((entry, value)))
}

#[async_trait]
impl StorageBackend for Hashed {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let found = read(&self.memory, key).await?;
        options.check_current(found.as_ref().map(|(entry, _)| entry))?;
        let Some((entry, mut value)) = found else {
            return Ok(None);
        };
        if let Some(range) = options.range {
            let range = range.resolve(entry.size)?;
            value = value.slice(range.start as usize..range.end as usize);
        }
        Ok(Some(Object::new(entry, value)))
    }

    async fn put(&self, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let value = body.bytes(self.info.limits.value).await?;
        if let Some(condition) = options.condition.take() {
            let found = read(&self.memory, key).await?;
            condition.check(found.as_ref().map(|(entry, _)| entry))?;
        }
        let mut written = self.memory.put(key, value.clone().into(), options).await?;
        let mut hash = DefaultHasher::new();
        value.hash(&mut hash);
        written.etag = Some(Etag::new(format!("\"the hash {:x}\"", hash.finish())));
        written.version = None;
        Ok(written)
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.memory.delete(key, options).await
    }

    async fn stat(&self, key: &Key, _: StatOptions) -> Result<Option<Entry>> {
        Ok(read(&self.memory, key).await?.map(|(entry, _)| entry))
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let (memory, metadata) = (self.memory.clone(), options.metadata);
        let items = self.memory.list(options).await?.try_filter_map(move |item| {
            let memory = memory.clone();
            async move {
                let ListItem::Entry(listed) = item else {
                    return Ok(Some(item));
                };
                let found = read(&memory, &listed.key).await?;
                Ok(found.map(|(mut entry, _)| {
                    entry.metadata = entry.metadata.filter(|_| metadata);
                    ListItem::Entry(entry)
                }))
            }
        });
        Ok(items.boxed())
    }

    async fn health(&self) -> Result<()> {
        self.memory.health().await
    }

    async fn disconnect(&self) -> Result<()> {
        self.memory.disconnect().await
    }
}
