//! The backend: one lock around the data.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use storage_config::{Clock, SystemClock};
use storage_core::{
    BackendInfo, BatchOptions, Body, Capabilities, CopyOptions, DeleteOptions, Entry, EntryStream, Error, GetOptions,
    Isolation, Key, ListOptions, ListStream, Object, PutOptions, RenameOptions, Result, StatOptions, StorageBackend,
    Transaction, async_trait,
};

use crate::{Config, listing::Listing, store::Store, transaction::MemoryTransaction};

/// A store in memory. Clones share it; dropping the last one, or disconnecting any, frees it.
#[derive(Clone)]
pub struct Memory {
    info: Arc<BackendInfo>,
    /// `None` once disconnected.
    store: Arc<RwLock<Option<Store>>>,
}

impl Memory {
    /// An empty store with the default configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(Config::default())
    }

    /// An empty store.
    #[must_use]
    pub fn with_config(config: Config) -> Self {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// An empty store that takes the time of its writes from this clock. If the clock goes backwards, the times stand still.
    #[must_use]
    pub fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Self {
        let capabilities = Capabilities::new()
            .atomic()
            .conditional()
            .conditional_delete()
            .version_etags()
            .transactions()
            .versioning()
            .queryable();
        let mut info = BackendInfo::new("memory", capabilities);
        info.name = "Memory".into();
        info.description = env!("CARGO_PKG_DESCRIPTION").into();
        info.version = env!("CARGO_PKG_VERSION").into();
        info.isolation = Isolation::Serializable;
        info.limits.time_granularity = Duration::from_nanos(1);
        if let Some(max) = config.max_value {
            info.limits.value = max;
        }
        Self::over(Arc::new(info), Store::new(config.max_versions, config.max_deleted, clock))
    }

    fn over(info: Arc<BackendInfo>, store: Store) -> Self {
        Self { info, store: Arc::new(RwLock::new(Some(store))) }
    }

    /// A store of its own that begins as a copy.
    pub(crate) fn fork(&self, store: Store) -> Self {
        Self::over(self.info.clone(), store)
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Store) -> T) -> Result<T> {
        // Every change of the store is whole before anything that can panic, so a poisoned lock guards good data.
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.as_ref().map(read).ok_or_else(Error::closed)
    }

    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        write(store.as_mut().ok_or_else(Error::closed)?)
    }

    /// Closes this and all clones.
    pub(crate) fn close(&self) -> Option<Store> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        store.take()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys and values are the application's own affair.
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[async_trait]
impl StorageBackend for Memory {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.read(|store| store.get(key, &options))?
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let value = body.collect(self.info.limits.value).await?;
        self.write(|store| store.put(key, value, options))
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.write(|store| store.delete(key, options))
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.read(|store| {
            let version = store.find(key, options.version.as_ref())?;
            Some(version.entry.clone())
        })
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let chains = self.read(|store| store.chains().clone())?;
        Ok(Listing::new(chains, options).boxed())
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        self.read(|store| {
            let results = items.iter().map(|(key, options)| store.get(key, options));
            results.collect()
        })
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let mut ready = Vec::with_capacity(items.len());
        for (key, body, options) in items {
            let value = body.collect(self.info.limits.value).await;
            ready.push((key, (value, options)));
        }
        self.write(|store| {
            store.batch(ready, options.atomic, |store, key, (value, options)| store.put(key, value?, options))
        })
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        self.write(|store| store.batch(items, options.atomic, Store::delete))
    }

    // The default of `query` is as native as it gets: the listing it scans is a snapshot taken in constant time.

    async fn clear(&self, prefix: &str) -> Result<()> {
        self.write(|store| {
            store.clear(prefix);
            Ok(())
        })
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        self.write(|store| store.copy(from, to, options))
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        self.write(|store| store.rename(from, to, options))
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        let chain = self.read(|store| store.chains().get(key).cloned())?;
        let entries: Vec<Result<Entry>> =
            chain.iter().flat_map(|chain| chain.newest_first()).map(|version| Ok(version.entry.clone())).collect();
        Ok(stream::iter(entries).boxed())
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let base = self.read(Store::clone)?;
        Ok(Arc::new(MemoryTransaction::new(self.clone(), base)))
    }

    async fn health(&self) -> Result<()> {
        self.read(|_| ())
    }

    async fn disconnect(&self) -> Result<()> {
        self.close();
        Ok(())
    }
}
