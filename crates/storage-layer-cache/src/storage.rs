//! The backend with the layer around it.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use storage_core::{
    BackendInfo, BatchOptions, Body, Bytes, Consistency, CopyOptions, DeleteOptions, Entry, EntryStream, ErrorKind,
    GetOptions, Key, ListOptions, ListStream, Object, PutOptions, Query, RenameOptions, Result, StatOptions,
    StorageBackend, Transaction, async_trait,
};

use crate::{
    CacheLayer, CacheStats,
    held::Held,
    load::load,
    shared::Shared,
    write::{Write, Written},
};

/// A backend with the cache around it.
#[derive(Debug)]
pub struct Cached<S: ?Sized> {
    shared: Arc<Shared>,
    info: BackendInfo,
    /// Inside a transaction, what it has written so far: nothing of it is kept, and all of it forgotten at its commit.
    written: Option<Mutex<Written>>,
    inner: Arc<S>,
}

impl<S: StorageBackend + ?Sized> Cached<S> {
    /// Puts the layer around `inner`.
    #[must_use]
    pub fn new(inner: Arc<S>, layer: CacheLayer) -> Self {
        let mut info = inner.info().clone();
        // A validated hit is as good as a read, where an etag tells every write.
        if !(layer.validate && info.capabilities.unique_etags) {
            info.consistency = Consistency::Instance;
        }
        Self { shared: Arc::new(Shared::new(layer, &info.id)), info, written: None, inner }
    }

    /// The backend below.
    #[must_use]
    pub fn get_ref(&self) -> &Arc<S> {
        &self.inner
    }

    /// The backend below, without the layer.
    #[must_use]
    pub fn into_inner(self) -> Arc<S> {
        self.inner
    }

    /// How the cache has been doing.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.shared.stats()
    }

    /// Begins a write. Inside a transaction it is only noted: others see nothing of it until the commit.
    fn write(&self, written: Written) -> Option<Write> {
        let Some(noted) = &self.written else {
            return Some(Write::begin(&self.shared, written));
        };
        noted.lock().unwrap_or_else(PoisonError::into_inner).add(written);
        None
    }

    /// Whether a read has nothing to do with the cache.
    fn goes_below(&self, of_a_version: bool) -> bool {
        of_a_version || self.written.is_some()
    }

    /// Answers from memory, if the backend says that the value is still the same.
    async fn validated(&self, key: &Key, held: &Arc<Held>, options: GetOptions) -> Result<Option<Object>> {
        let mut unless = GetOptions::new();
        unless.if_none_match = held.entry.etag.clone();
        if unless.if_none_match.is_some() {
            match self.inner.get(key, unless).await {
                Err(e) if e.kind() == ErrorKind::NotModified => {
                    self.shared.counts.hits.add();
                    return held.answer(&options).map(Some);
                }
                Err(e) => return Err(e),
                Ok(_) => {}
            }
        }
        self.shared.forget(key, held);
        self.miss(key, options).await
    }

    async fn miss(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.shared.counts.misses.add();
        let whole = GetOptions::new().whole(options.whole);
        if options == whole {
            load(&self.shared, &self.inner, key, options).await
        } else {
            self.inner.get(key, options).await
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StorageBackend + ?Sized> StorageBackend for Cached<S> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if self.goes_below(options.version.is_some()) {
            return self.inner.get(key, options).await;
        }
        match self.shared.hit(key) {
            Some(held) if self.shared.settings.validate => self.validated(key, &held, options).await,
            Some(held) => {
                self.shared.counts.hits.add();
                held.answer(&options).map(Some)
            }
            None => self.miss(key, options).await,
        }
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut write = self.write(Written::keys([key]));
        let bytes = match &body {
            // A copy, for these bytes may be a small part of what they keep in memory.
            Body::Bytes(bytes) if self.written.is_none() && self.shared.keeps(bytes.len()) => {
                Some(Bytes::copy_from_slice(bytes))
            }
            _ => None,
        };
        let metadata = options.metadata.clone();
        let result = self.inner.put(key, body, options).await;
        if let Some(write) = &mut write {
            write.settle(&result);
            if let (Ok(entry), Some(bytes)) = (&result, bytes) {
                let mut entry = entry.clone();
                entry.metadata = Some(metadata.unwrap_or_default());
                write.keep(Held::new(entry, bytes));
            }
        }
        result
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let mut write = self.write(Written::keys([key]));
        let result = self.inner.delete(key, options).await;
        write.iter_mut().for_each(|write| write.settle(&result));
        result
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        if self.goes_below(options.version.is_some()) || self.shared.settings.validate {
            return self.inner.stat(key, options).await;
        }
        if let Some(held) = self.shared.hit(key) {
            self.shared.counts.hits.add();
            return Ok(Some(held.entry.clone()));
        }
        self.shared.counts.misses.add();
        self.inner.stat(key, options).await
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.inner.list(options).await
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        if self.goes_below(false) || self.shared.settings.validate {
            return self.inner.get_batch(items).await;
        }
        let (mut answers, mut missing) = (Vec::with_capacity(items.len()), Vec::new());
        for (key, options) in items {
            let held = if options.version.is_some() { None } else { self.shared.hit(&key) };
            answers.push(held.map(|held| held.answer(&options).map(Some)));
            match answers.last() {
                Some(Some(_)) => self.shared.counts.hits.add(),
                _ => missing.push((key, options)),
            }
        }
        if missing.is_empty() {
            return Ok(answers.into_iter().flatten().collect());
        }
        missing.iter().for_each(|_| self.shared.counts.misses.add());
        let mut below = self.inner.get_batch(missing).await?.into_iter();
        Ok(answers.into_iter().filter_map(|answer| answer.or_else(|| below.next())).collect())
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let mut write = self.write(Written::keys(items.iter().map(|(key, ..)| key)));
        let result = self.inner.put_batch(items, options).await;
        write.iter_mut().for_each(|write| write.settle_all(&result));
        result
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let mut write = self.write(Written::keys(items.iter().map(|(key, _)| key)));
        let result = self.inner.delete_batch(items, options).await;
        write.iter_mut().for_each(|write| write.settle_all(&result));
        result
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        self.inner.query(query).await
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        let mut write = self.write(Written::prefix(prefix));
        let result = self.inner.clear(prefix).await;
        write.iter_mut().for_each(|write| write.settle(&result));
        result
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let mut write = self.write(Written::keys([to]));
        let result = self.inner.copy(from, to, options).await;
        write.iter_mut().for_each(|write| write.settle(&result));
        result
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let mut write = self.write(Written::keys([from, to]));
        let result = self.inner.rename(from, to, options).await;
        write.iter_mut().for_each(|write| write.settle(&result));
        result
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        self.inner.versions(key).await
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let inner = self.inner.begin().await?;
        let info = inner.info().clone();
        Ok(Arc::new(Cached { shared: self.shared.clone(), info, written: Some(Mutex::default()), inner }))
    }

    async fn is_connected(&self) -> bool {
        self.inner.is_connected().await
    }

    async fn disconnect(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.values.invalidate_all();
        self.inner.disconnect().await
    }
}

#[async_trait]
impl<S: Transaction + ?Sized> Transaction for Cached<S> {
    async fn commit(&self) -> Result<()> {
        let noted = self.written.as_ref().map(|noted| noted.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut write = Write::begin(&self.shared, noted.unwrap_or_default());
        let result = self.inner.commit().await;
        write.settle(&result);
        result
    }

    async fn rollback(&self) -> Result<()> {
        self.inner.rollback().await
    }
}
