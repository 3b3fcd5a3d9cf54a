//! One forwarding that applies a [`Transform`] to every method.

use std::{future::ready, sync::Arc};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, Filter,
    GetOptions, Key, ListItem, ListOptions, ListStream, Metadata, Object, PresignOptions, PresignedRequest, PutOptions,
    Query, RenameOptions, Result, StatOptions, StorageBackend, Transaction, async_trait, defaults,
};

use crate::Transform;

/// How many entries of a listing are transformed at once.
const AT_ONCE: usize = 8;

/// A backend with a transforming layer around it.
#[derive(Debug)]
pub struct Transformed<S: ?Sized, T> {
    transform: Arc<T>,
    info: BackendInfo,
    inner: Arc<S>,
}

impl<S: StorageBackend + ?Sized, T: Transform> Transformed<S, T> {
    /// Puts the layer around `inner`.
    #[must_use]
    pub fn new(inner: Arc<S>, transform: T) -> Self {
        Self::wrap(inner, Arc::new(transform))
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

    fn wrap(inner: Arc<S>, transform: Arc<T>) -> Self {
        let mut info = transform.info(inner.info());
        // Whoever sends such a request meets the bytes as they are stored.
        info.capabilities.presign = false;
        // What the store fetches itself this layer could not change.
        info.capabilities.sources = false;
        Self { info, transform, inner }
    }

    fn entries(&self, stored: EntryStream) -> EntryStream {
        let (transform, inner) = (self.transform.clone(), self.inner.clone());
        let plain = stored.map(move |stored| {
            let (transform, inner) = (transform.clone(), inner.clone());
            async move { listed(&*transform, &*inner, stored?).await }
        });
        defaults::until_error(plain.buffered(AT_ONCE)).try_filter_map(|entry| ready(Ok(entry))).boxed()
    }

    /// The entry of a write. The metadata is what was given, so it need not be had from what is stored.
    async fn written(&self, mut stored: Entry, metadata: Option<Arc<Metadata>>) -> Result<Entry> {
        stored.metadata = None;
        let key = stored.key.clone();
        let plain = self.transform.entry(&*self.inner, stored).await.map_err(Error::ambiguous)?;
        let mut plain = plain.map(own).ok_or_else(|| {
            Error::new(ErrorKind::Conflict, "the value was deleted as soon as it was written")
                .with_key(&key)
                .ambiguous()
        })?;
        plain.metadata = Some(metadata.unwrap_or_default());
        Ok(plain)
    }
}

/// The plain entry, for a listing, which one that cannot be read does not end.
async fn listed<T: Transform, S: StorageBackend + ?Sized>(
    transform: &T,
    inner: &S,
    mut stored: Entry,
) -> Result<Option<Entry>> {
    let reason = match stored.damaged.take() {
        Some(reason) => reason,
        None => match transform.entry(inner, stored.clone()).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => e,
            Err(e) if e.kind() == ErrorKind::Config => {
                Error::new(ErrorKind::Corrupt, "the entry cannot be read with this configuration; see the cause")
                    .with_source(e)
            }
            done => return Ok(done?.map(own)),
        },
    };
    stored.metadata = None;
    // Its sizes may still be those of a value that the layer wrote.
    let plain = transform.entry(inner, stored.clone()).await.ok().flatten();
    Ok(Some(own(plain.unwrap_or(stored)).into_damaged(reason)))
}

/// What the store says of the bytes as they are stored is not true of the plain value.
fn own(mut plain: Entry) -> Entry {
    plain.attributes.clear();
    plain
}

/// The same of an object.
fn own_object(mut plain: Object) -> Object {
    plain.entry = own(plain.entry);
    plain
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StorageBackend + ?Sized, T: Transform> StorageBackend for Transformed<S, T> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        // What is stored may not be readable without its metadata.
        options.entry = true;
        if let Some(range) = options.range.take() {
            let inner = &*self.inner;
            return Ok(self.transform.read_range(inner, key, range, options).await?.map(own_object));
        }
        match self.inner.get(key, options).await? {
            Some(stored) => self.transform.decode(key, stored).await.map(|plain| Some(own_object(plain))),
            None => Ok(None),
        }
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let metadata = options.metadata.clone();
        let (body, options) = self.transform.encode(key, body, options).await?;
        let stored = self.inner.put(key, body, options).await?;
        self.written(stored, metadata).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.inner.delete(key, options).await
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        match self.inner.stat(key, options).await? {
            Some(stored) => Ok(self.transform.entry(&*self.inner, stored).await?.map(own)),
            None => Ok(None),
        }
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let (transform, inner) = (self.transform.clone(), self.inner.clone());
        let plain = self.inner.list(options).await?.map(move |item| {
            let (transform, inner) = (transform.clone(), inner.clone());
            async move {
                match item? {
                    ListItem::Entry(stored) => Ok(listed(&*transform, &*inner, stored).await?.map(ListItem::Entry)),
                    prefix => Ok(Some(prefix)),
                }
            }
        });
        Ok(defaults::until_error(plain.buffered(AT_ONCE)).try_filter_map(|item| ready(Ok(item))).boxed())
    }

    async fn get_batch(&self, mut items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        items.iter_mut().for_each(|(_, options)| options.entry = true);
        if items.iter().any(|(_, options)| options.range.is_some()) {
            return defaults::get_batch(self, items).await;
        }
        let keys: Vec<Key> = items.iter().map(|(key, _)| key.clone()).collect();
        let stored = self.inner.get_batch(items).await?;
        let mut plain = Vec::with_capacity(keys.len());
        for (key, stored) in keys.iter().zip(stored) {
            plain.push(match stored {
                Ok(Some(stored)) => self.transform.decode(key, stored).await.map(|plain| Some(own_object(plain))),
                nothing => nothing,
            });
        }
        Ok(plain)
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let (mut given, mut encoded) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for (key, body, options) in items {
            given.push(options.metadata.clone());
            let (body, options) = self.transform.encode(&key, body, options).await?;
            encoded.push((key, body, options));
        }
        let mut plain = Vec::with_capacity(given.len());
        for (stored, metadata) in self.inner.put_batch(encoded, options).await?.into_iter().zip(given) {
            plain.push(match stored {
                Ok(stored) => self.written(stored, metadata).await,
                Err(e) => Err(e),
            });
        }
        Ok(plain)
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        self.inner.delete_batch(items, options).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        if !self.transform.queries_below(&*self.inner, &query).await? {
            // The store below knows other sizes, or other metadata, so the question is answered above it.
            return defaults::query(self, query).await;
        }
        if !query.filters.iter().any(Filter::is_on_metadata) {
            return Ok(self.entries(self.inner.query(query).await?));
        }
        // The store below finds values by their metadata that are damaged here. They are no answer, and do not count.
        let mut below = query;
        let limit = below.limit.take().unwrap_or(usize::MAX);
        let sound = self.entries(self.inner.query(below).await?);
        Ok(sound.try_filter(|entry| ready(entry.damaged.is_none())).take(limit).boxed())
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        self.inner.clear(prefix).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        // What is stored may be bound to its key, so it is decoded and encoded anew.
        defaults::copy(self, from, to, options).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        defaults::rename(self, from, to, options).await
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        Ok(self.entries(self.inner.versions(key).await?))
    }

    async fn presign(&self, _: &Key, _: PresignOptions) -> Result<PresignedRequest> {
        Err(Error::unsupported("presigned requests through a layer that changes the bytes of values"))
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let transaction = self.inner.begin().await?;
        let transform = self.transform.clone();
        Ok(Arc::new(Transformed::wrap(transaction, transform)))
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn disconnect(&self) -> Result<()> {
        self.inner.disconnect().await
    }
}

#[async_trait]
impl<S: Transaction + ?Sized, T: Transform> Transaction for Transformed<S, T> {
    async fn commit(&self) -> Result<()> {
        self.inner.commit().await
    }

    async fn rollback(&self) -> Result<()> {
        self.inner.rollback().await
    }
}
