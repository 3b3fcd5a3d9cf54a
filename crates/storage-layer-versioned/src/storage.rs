//! The backend with the layer around it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use futures_util::TryStreamExt;
use storage_core::{
    BackendInfo, BatchOptions, Body, Consistency, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind,
    GetOptions, Key, ListOptions, ListStream, Metadata, Object, PresignOptions, PresignedRequest, PutOptions, Query,
    RenameOptions, Result, StatOptions, StorageBackend, Transaction, VersionId, async_trait, defaults,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    VersionedLayer,
    change::{Change, Source},
    history::Found,
    listing, names, stamp,
};

/// A backend with the versioned layer around it.
#[derive(Debug)]
pub struct Versioned<S: ?Sized> {
    pub(crate) settings: VersionedLayer,
    pub(crate) view: View,
    info: BackendInfo,
    /// Writers of a key wait for one another, where the backend cannot keep them apart.
    turns: Option<Vec<Mutex<()>>>,
    pub(crate) inner: Arc<S>,
}

/// How many locks there are when writers take turns.
const TURNS: usize = 64;

impl<S: StorageBackend + ?Sized> Versioned<S> {
    /// Puts the layer around `inner`.
    ///
    /// # Errors
    /// `Config` when the backend leaves less than the contract's minimum for keys or metadata.
    pub fn new(inner: Arc<S>, layer: VersionedLayer) -> Result<Self> {
        let this = Self::wrap(inner, layer);
        let limits = &this.info.limits;
        let enough = |what: &str, left: usize, least: usize, overhead: usize| {
            if left >= least {
                return Ok(());
            }
            let takes = left + overhead;
            Err(Error::new(
                ErrorKind::Config,
                format!(
                    "versions need a backend that takes {what} of {} bytes; this one takes {takes}",
                    least + overhead
                ),
            ))
        };
        enough("keys", limits.key, Key::MIN_LIMIT, names::OVERHEAD)?;
        enough("metadata", limits.metadata, Metadata::MIN_LIMIT, stamp::OVERHEAD)?;
        Ok(this)
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

    pub(crate) fn wrap(inner: Arc<S>, settings: VersionedLayer) -> Self {
        let below = inner.info().capabilities;
        let mut info = inner.info().clone();
        info.capabilities.versioning = true;
        info.capabilities.queryable = false;
        info.capabilities.sources = false;
        info.limits.key = info.limits.key.saturating_sub(names::OVERHEAD);
        info.limits.metadata = info.limits.metadata.saturating_sub(stamp::OVERHEAD);
        let turns = (!below.conditional || !below.conditional_delete).then(|| {
            info.consistency = Consistency::ProcessLocal;
            (0..TURNS).map(|_| Mutex::new(())).collect()
        });
        Self { settings, view: View { tokens: !below.version_etags }, info, turns, inner }
    }

    /// Whether writers of a key wait for one another.
    pub(crate) fn takes_turns(&self) -> bool {
        self.turns.is_some()
    }

    /// Waits until no other writer of this key is at work, if that is needed.
    pub(crate) async fn turn(&self, key: &Key) -> Option<MutexGuard<'_, ()>> {
        let turns = self.turns.as_ref()?;
        let mut hash = DefaultHasher::new();
        key.hash(&mut hash);
        Some(turns[hash.finish() as usize % turns.len()].lock().await)
    }
}

/// How what is stored below looks from above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Values carry a token, because etags do not tell versions apart.
    pub(crate) tokens: bool,
}

impl View {
    /// The user's entry for the entry of a value.
    pub(crate) fn value(self, key: Key, mut stored: Entry) -> Entry {
        stored.key = key;
        if let Some(reason) = stored.damaged.take() {
            stored.version = None;
            return stored.into_damaged(reason.map_key(|_| None));
        }
        let by_etag = stored.etag.as_ref().map(|etag| VersionId::new(etag.as_str()));
        stored.version = match &stored.metadata {
            _ if !self.tokens => by_etag,
            // The token was not loaded.
            None => None,
            Some(metadata) => match stamp::detach(metadata) {
                Ok((plain, token)) => {
                    stored.metadata = Some(plain);
                    token.map(VersionId::new).or(by_etag)
                }
                Err(reason) => return stored.into_damaged(reason),
            },
        };
        stored
    }

    /// The user's value for a stored one.
    ///
    /// # Errors
    /// `Corrupt` for a damaged one.
    pub(crate) fn object(self, key: Key, object: Object) -> Result<Object> {
        Ok(Object::new(self.value(key, object.entry).sound()?, object.body))
    }

    /// The user's entry for one of a listing.
    pub(crate) fn listed(self, mut stored: Entry) -> Result<Entry> {
        let key = names::key_above(stored.key.clone())?;
        stored.key = key.clone();
        Ok(self.value(key, stored))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StorageBackend + ?Sized> StorageBackend for Versioned<S> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        if let Some(version) = options.version.take() {
            return self.get_version(key, &version, options).await;
        }
        // The version stands in the metadata.
        options.entry = true;
        let object = self.inner.get(&names::key_below(key)?, options).await?;
        object.map(|object| self.view.object(key.clone(), object)).transpose()
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.put_value(key, body, options).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        match options.version {
            Some(version) => self.forget(key, &version).await,
            None => self.change(key, Change::Delete, options.condition).await.map(drop),
        }
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        if let Some(version) = options.version {
            return Ok(self.find(key, &version).await?.map(|found| found.entry));
        }
        let stored = self.inner.stat(&names::key_below(key)?, options).await?;
        stored.map(|entry| self.view.value(key.clone(), entry).sound()).transpose()
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        listing::list(&self.inner, self.view, options).await
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        if items.iter().any(|(_, options)| options.version.is_some()) {
            return defaults::get_batch(self, items).await;
        }
        let mut keys = Vec::with_capacity(items.len());
        let mut below = Vec::with_capacity(items.len());
        for (key, options) in items {
            below.push((names::key_below(&key)?, options.entry(true)));
            keys.push(key);
        }
        let objects = self.inner.get_batch(below).await?;
        let plain = keys
            .into_iter()
            .zip(objects)
            .map(|(key, result)| result?.map(|object| self.view.object(key, object)).transpose());
        Ok(plain.collect())
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        defaults::put_batch(self, items, options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        defaults::delete_batch(self, items, options).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        // Below a prefix that keeps the layer's own keys out, the backend can answer by itself.
        if self.view.tokens || listing::may_meet_our_own(&query.prefix) {
            return defaults::query(self, query).await;
        }
        let view = self.view;
        let entries = self.inner.query(query).await?;
        Ok(Box::pin(entries.and_then(move |entry| std::future::ready(view.listed(entry)))))
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        defaults::clear(self, prefix).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        if from == to && options == CopyOptions::new() {
            return defaults::copy(self, from, to, options).await;
        }
        let (source, metadata) = match &options.version {
            Some(version) => match self.find(from, version).await? {
                Some(Found { entry, past: Some(past) }) => (past.stored.key, options.metadata.or(entry.metadata)),
                // It may become an older one at any moment; a read follows it.
                _ => return defaults::copy(self, from, to, options).await,
            },
            // The token of the source must not become the target's.
            None if self.view.tokens && options.metadata.is_none() => {
                return defaults::copy(self, from, to, options).await;
            }
            None => (names::key_below(from)?, options.metadata),
        };
        let change = Change::Put { source: Source::Copy(source), metadata };
        self.change_to_value(to, change, options.condition).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        defaults::rename(self, from, to, options).await
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        self.all_versions(key).await
    }

    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        // What is written past the layer would replace a version that nobody has kept.
        if !options.method.reads() {
            return Err(Error::unsupported("presigned writes through the versioned layer"));
        }
        self.inner.presign(&names::key_below(key)?, options).await.map_err(|e| e.map_key(|_| Some(key.clone())))
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let transaction = self.inner.begin().await?;
        let mut within = Versioned::wrap(transaction, self.settings);
        // The store keeps transactions apart, and one that waited here could hold what another writer waits for.
        within.turns = None;
        within.info = self.info.clone();
        Ok(Arc::new(within))
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn disconnect(&self) -> Result<()> {
        self.inner.disconnect().await
    }
}

#[async_trait]
impl<S: Transaction + ?Sized> Transaction for Versioned<S> {
    async fn commit(&self) -> Result<()> {
        self.inner.commit().await
    }

    async fn rollback(&self) -> Result<()> {
        self.inner.rollback().await
    }
}
