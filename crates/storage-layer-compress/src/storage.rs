//! The backend with the layer around it.

use std::{
    future::ready,
    sync::{Arc, atomic::Ordering},
};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, Filter,
    GetOptions, Key, ListItem, ListOptions, ListStream, Metadata, Object, PresignOptions, PresignedRequest, PutOptions,
    Query, RenameOptions, Result, StatOptions, StorageBackend, Transaction, async_trait, defaults,
};
use storage_layer::is_about_metadata_alone;

use crate::{
    CompressLayer,
    codec::Codec,
    encode, format, note,
    plain::{Plain, plain_entry},
};

/// A backend with the compression layer around it.
#[derive(Debug)]
pub struct Compressed<S: ?Sized> {
    settings: CompressLayer,
    info: BackendInfo,
    plain: Plain<S>,
}

/// How many entries of a listing are looked up at once.
const AT_ONCE: usize = 8;

impl<S: StorageBackend + ?Sized> Compressed<S> {
    /// Puts the layer around `inner`.
    ///
    /// # Errors
    /// `Config` when the backend leaves less than the contract's minimum for metadata.
    pub fn new(inner: Arc<S>, layer: CompressLayer) -> Result<Self> {
        let (takes, needs) = (inner.info().limits.metadata, Metadata::MIN_LIMIT + note::OVERHEAD);
        if takes < needs {
            return Err(Error::new(
                ErrorKind::Config,
                format!("compression needs a backend that takes metadata of {needs} bytes; this one takes {takes}"),
            ));
        }
        Ok(Self::wrap(inner, layer))
    }

    /// The backend below.
    #[must_use]
    pub fn get_ref(&self) -> &Arc<S> {
        &self.plain.inner
    }

    /// The backend below, without the layer.
    #[must_use]
    pub fn into_inner(self) -> Arc<S> {
        self.plain.inner
    }

    pub(crate) fn wrap(inner: Arc<S>, settings: CompressLayer) -> Self {
        let mut info = inner.info().clone();
        info.capabilities.compression = true;
        // What concerns sizes is answered above the compression, by a scan.
        info.capabilities.queryable = false;
        // Whoever sends such a request meets the bytes as they are stored.
        info.capabilities.presign = false;
        // What the store fetches itself this layer could not compress.
        info.capabilities.sources = false;
        info.limits.value = info.limits.value.saturating_sub(format::overhead(info.limits.value));
        info.limits.metadata = info.limits.metadata.saturating_sub(note::OVERHEAD);
        Self { settings, info, plain: Plain { inner, foreign: settings.foreign } }
    }

    fn inner(&self) -> &S {
        &self.plain.inner
    }

    async fn encode(&self, body: Body, options: &mut PutOptions) -> Result<encode::Encoded> {
        let codec = Codec { algorithm: self.settings.algorithm, level: self.settings.level };
        let encoded = encode::encode(body, codec, self.info.limits.value).await?;
        options.metadata = Some(Arc::new(note::attach(options.metadata.as_deref(), encoded.note)));
        Ok(encoded)
    }

    fn entries(&self, stored: EntryStream) -> EntryStream {
        let plain = self.plain.clone();
        let entries = stored.map(move |entry| {
            let plain = plain.clone();
            async move { plain.listed(entry?).await }
        });
        entries.buffered(AT_ONCE).try_filter_map(|entry| ready(Ok(entry))).boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StorageBackend + ?Sized> StorageBackend for Compressed<S> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        // The metadata says whether and how the value is compressed.
        self.plain.get(key, options.entry(true)).await
    }

    async fn put(&self, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let encoded = self.encode(body, &mut options).await?;
        let stored = self.inner().put(key, encoded.body, options).await?;
        Ok(plain_entry(stored, encoded.plain.load(Ordering::Relaxed)))
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.inner().delete(key, options).await
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        match self.inner().stat(key, options).await? {
            Some(stored) => self.plain.entry(stored).await,
            None => Ok(None),
        }
    }

    async fn list(&self, mut options: ListOptions) -> Result<ListStream> {
        let with_metadata = std::mem::replace(&mut options.metadata, true);
        let plain = self.plain.clone();
        let items = self.inner().list(options).await?.map(move |item| {
            let plain = plain.clone();
            async move {
                let mut entry = match item? {
                    ListItem::Entry(stored) => match plain.current(stored).await? {
                        Some(entry) => entry,
                        // Deleted in the meantime.
                        None => return Ok(None),
                    },
                    prefix => return Ok(Some(prefix)),
                };
                entry.metadata = entry.metadata.filter(|_| with_metadata);
                Ok(Some(ListItem::Entry(entry)))
            }
        });
        Ok(items.buffered(AT_ONCE).try_filter_map(|item| ready(Ok(item))).boxed())
    }

    async fn get_batch(&self, mut items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        items.iter_mut().for_each(|(_, options)| options.entry = true);
        if items.iter().any(|(_, options)| options.range.is_some()) {
            return defaults::get_batch(self, items).await;
        }
        let stored = self.inner().get_batch(items.clone()).await?;
        let mut plain = Vec::with_capacity(items.len());
        for ((key, options), stored) in items.into_iter().zip(stored) {
            plain.push(match stored {
                Ok(Some(stored)) => self.plain.decode_or_get(&key, stored, options).await,
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
        let (mut sizes, mut encoded) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for (key, body, mut put) in items {
            match self.encode(body, &mut put).await {
                Ok(one) => {
                    sizes.push(Ok(one.plain));
                    encoded.push((key, one.body, put));
                }
                Err(e) if options.atomic => return Err(e.with_key(&key)),
                Err(e) => sizes.push(Err(e)),
            }
        }
        // An item that could not even be read has its own answer; the others are sent.
        let mut stored = self.inner().put_batch(encoded, options).await?.into_iter();
        let missing = || Error::new(ErrorKind::Other, "the backend answered for fewer items than it was given");
        let plain = sizes.into_iter().map(|size| {
            let size = size?;
            let entry = stored.next().unwrap_or_else(|| Err(missing()))?;
            Ok(plain_entry(entry, size.load(Ordering::Relaxed)))
        });
        Ok(plain.collect())
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        self.inner().delete_batch(items, options).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        if !is_about_metadata_alone(&query, note::is_ours) {
            return defaults::query(self, query).await;
        }
        if !query.filters.iter().any(Filter::is_on_metadata) {
            return Ok(self.entries(self.inner().query(query).await?));
        }
        // The store below finds values by their metadata that are damaged here. They are no answer, and do not count.
        let mut below = query;
        let limit = below.limit.take().unwrap_or(usize::MAX);
        let sound = self.entries(self.inner().query(below).await?);
        Ok(sound.try_filter(|entry| ready(entry.damaged.is_none())).take(limit).boxed())
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        self.inner().clear(prefix).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        if options.metadata.is_some() {
            // The note of the size belongs to the metadata that is replaced.
            return defaults::copy(self, from, to, options).await;
        }
        let stored = self.inner().copy(from, to, options).await?;
        self.plain.written(stored).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let stored = self.inner().rename(from, to, options).await?;
        self.plain.written(stored).await
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        Ok(self.entries(self.inner().versions(key).await?))
    }

    async fn presign(&self, _: &Key, _: PresignOptions) -> Result<PresignedRequest> {
        Err(Error::unsupported("presigned requests through a layer that changes the bytes of values"))
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        Ok(Arc::new(Compressed::wrap(self.inner().begin().await?, self.settings)))
    }

    async fn health(&self) -> Result<()> {
        self.inner().health().await
    }

    async fn disconnect(&self) -> Result<()> {
        self.inner().disconnect().await
    }
}

#[async_trait]
impl<S: Transaction + ?Sized> Transaction for Compressed<S> {
    async fn commit(&self) -> Result<()> {
        self.inner().commit().await
    }

    async fn rollback(&self) -> Result<()> {
        self.inner().rollback().await
    }
}
