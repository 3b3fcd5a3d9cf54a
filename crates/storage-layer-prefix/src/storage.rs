//! The backend with the layer around it.

use std::{future::ready, sync::Arc};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions, Key,
    ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query, RenameOptions, Result,
    StatOptions, StorageBackend, Transaction, async_trait, defaults,
};

use crate::{PrefixLayer, names::Names};

/// A backend with the prefix layer around it.
#[derive(Debug)]
pub struct Prefixed<S: ?Sized> {
    names: Names,
    info: BackendInfo,
    inner: Arc<S>,
}

impl<S: StorageBackend + ?Sized> Prefixed<S> {
    /// Puts the layer around `inner`.
    ///
    /// # Errors
    /// `Config` when the prefix leaves fewer than 512 bytes for a key.
    pub fn new(inner: Arc<S>, layer: PrefixLayer) -> Result<Self> {
        let (takes, prefix) = (inner.info().limits.key, layer.prefix.len());
        if takes.saturating_sub(prefix) < Key::MIN_LIMIT {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "prefix: {prefix} bytes of prefix leave fewer than {} of the {takes} bytes that keys of this backend \
                     can have; use a shorter prefix",
                    Key::MIN_LIMIT
                ),
            ));
        }
        Ok(Self::wrap(inner, layer))
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

    pub(crate) fn wrap(inner: Arc<S>, layer: PrefixLayer) -> Self {
        let mut info = inner.info().clone();
        info.limits.key = info.limits.key.saturating_sub(layer.prefix.len());
        Self { names: Names(layer.prefix), info, inner }
    }

    fn object(&self, object: Object) -> Result<Object> {
        let mut object = self.names.object(object)?;
        let names = self.names.clone();
        object.body = object.body.map_err(move |e| names.error(e));
        Ok(object)
    }

    fn entries(&self, below: EntryStream) -> EntryStream {
        let names = self.names.clone();
        below.map(move |entry| entry.map_err(|e| names.error(e)).and_then(|entry| names.entry(entry))).boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StorageBackend + ?Sized> StorageBackend for Prefixed<S> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let object = self.inner.get(&self.names.key_below(key)?, options).await;
        object.map_err(|e| self.names.error(e))?.map(|object| self.object(object)).transpose()
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let entry = self.inner.put(&self.names.key_below(key)?, body, options).await;
        self.names.entry(entry.map_err(|e| self.names.error(e))?)
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let done = self.inner.delete(&self.names.key_below(key)?, options).await;
        done.map_err(|e| self.names.error(e))
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let entry = self.inner.stat(&self.names.key_below(key)?, options).await;
        entry.map_err(|e| self.names.error(e))?.map(|entry| self.names.entry(entry)).transpose()
    }

    async fn list(&self, mut options: ListOptions) -> Result<ListStream> {
        // Always behind the prefix, so that a key outside which is exactly the prefix does not appear.
        options.start_after = Some(self.names.text_below(options.start_after.as_deref().unwrap_or_default()));
        options.prefix = self.names.text_below(&options.prefix);
        let (names, listing) = (self.names.clone(), self.inner.list(options).await);
        let items = listing.map_err(|e| self.names.error(e))?;
        Ok(items.map(move |item| item.map_err(|e| names.error(e)).and_then(|item| names.item(item))).boxed())
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let mut below = Vec::with_capacity(items.len());
        for (key, options) in items {
            below.push((self.names.key_below(&key)?, options));
        }
        let objects = self.inner.get_batch(below).await.map_err(|e| self.names.error(e))?;
        let above = objects
            .into_iter()
            .map(|object| object.map_err(|e| self.names.error(e))?.map(|object| self.object(object)).transpose());
        Ok(above.collect())
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let mut below = Vec::with_capacity(items.len());
        for (key, body, options) in items {
            below.push((self.names.key_below(&key)?, body, options));
        }
        let entries = self.inner.put_batch(below, options).await.map_err(|e| self.names.error(e))?;
        let above = entries.into_iter().map(|entry| self.names.entry(entry.map_err(|e| self.names.error(e))?));
        Ok(above.collect())
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let mut below = Vec::with_capacity(items.len());
        for (key, options) in items {
            below.push((self.names.key_below(&key)?, options));
        }
        let done = self.inner.delete_batch(below, options).await.map_err(|e| self.names.error(e))?;
        Ok(done.into_iter().map(|done| done.map_err(|e| self.names.error(e))).collect())
    }

    async fn query(&self, mut query: Query) -> Result<EntryStream> {
        let limit = query.limit.unwrap_or(usize::MAX);
        query.prefix = self.names.text_below(&query.prefix);
        if *query.prefix == *self.names.0 {
            // A key outside which is exactly the prefix may be among the answers, and is taken out below.
            query.limit = query.limit.map(|limit| limit.saturating_add(1));
        }
        if let Some(continuation) = query.continuation.take() {
            let key = self.names.key_below(continuation.key())?;
            query.continuation = Some(continuation.with_key(key));
        }
        let entries = self.inner.query(query).await.map_err(|e| self.names.error(e))?;
        let prefix = self.names.0.clone();
        let inside = entries.try_filter(move |entry| ready(entry.key.as_str() != &*prefix));
        Ok(self.entries(inside.take(limit).boxed()))
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        let below = self.names.text_below(prefix);
        let own = match Key::parse(&below) {
            // A key outside which is exactly the prefix must stay.
            Ok(key) if prefix.is_empty() => self.inner.stat(&key, StatOptions::new()).await,
            _ => Ok(None),
        };
        if own.map_err(|e| self.names.error(e))?.is_some() {
            return defaults::clear(self, prefix).await;
        }
        self.inner.clear(&below).await.map_err(|e| self.names.error(e))
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let (from, to) = (self.names.key_below(from)?, self.names.key_below(to)?);
        let entry = self.inner.copy(&from, &to, options).await;
        self.names.entry(entry.map_err(|e| self.names.error(e))?)
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let (from, to) = (self.names.key_below(from)?, self.names.key_below(to)?);
        let entry = self.inner.rename(&from, &to, options).await;
        self.names.entry(entry.map_err(|e| self.names.error(e))?)
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        let versions = self.inner.versions(&self.names.key_below(key)?).await;
        Ok(self.entries(versions.map_err(|e| self.names.error(e))?))
    }

    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        let presigned = self.inner.presign(&self.names.key_below(key)?, options).await;
        presigned.map_err(|e| self.names.error(e))
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let transaction = self.inner.begin().await.map_err(|e| self.names.error(e))?;
        Ok(Arc::new(Prefixed::wrap(transaction, PrefixLayer { prefix: self.names.0.clone() })))
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await.map_err(|e| self.names.error(e))
    }

    async fn disconnect(&self) -> Result<()> {
        self.inner.disconnect().await
    }
}

#[async_trait]
impl<S: Transaction + ?Sized> Transaction for Prefixed<S> {
    async fn commit(&self) -> Result<()> {
        self.inner.commit().await.map_err(|e| self.names.error(e))
    }

    async fn rollback(&self) -> Result<()> {
        self.inner.rollback().await.map_err(|e| self.names.error(e))
    }
}
