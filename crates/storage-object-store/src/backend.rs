//! The backend: the trait in its own order. Reading, writing and listing are in files of their own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{CopyOptions as Copy, Error as Absent, GetOptions as Get, ObjectStore, ObjectStoreExt};
use storage_core::{
    BackendInfo, BatchOptions, Body, Capabilities, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind,
    GetOptions, Key, Limits, ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Result,
    StatOptions, StorageBackend, VersionId, defaults, pending::Keys,
};

use crate::{
    CloudExtensions, Config, Copied, Profile, error, meta,
    names::Names,
    probe::probe,
    requests::{Requests, before_read, before_write},
    sound::Sound,
    write::bare,
};

/// A storage backend over an [`ObjectStore`].
///
/// Clones share the connection: after `disconnect` through one, all are closed.
#[derive(Clone)]
pub struct ObjectStoreBackend {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) native: Option<Arc<dyn CloudExtensions>>,
    pub(crate) names: Names,
    pub(crate) profile: Profile,
    pub(crate) config: Config,
    pub(crate) info: BackendInfo,
    /// Whether metadata lies in a header before the value, because the store keeps no attributes.
    pub(crate) framed: bool,
    /// Whether the store compares etags as they are without their quotes.
    pub(crate) unquoted: bool,
    pub(crate) requests: Requests,
    pub(crate) sound: Sound,
    closed: AtomicBool,
}

impl ObjectStoreBackend {
    /// Probes a store and makes a backend of it.
    ///
    /// A probe writes, reads and deletes objects of its own below `.storage/probe/`; it finds out whether the store keeps
    /// attributes and honours conditions. Turn off the client's own retries: they hide the outcome of conditional writes, and
    /// the retry layer makes better ones.
    ///
    /// # Errors
    /// `Config` for a prefix that leaves no room for keys of 512 bytes or a profile that the store contradicts; the store's own
    /// when it cannot be reached, read or written.
    pub async fn connect(store: Arc<dyn ObjectStore>, profile: Profile, config: Config) -> Result<Self> {
        Self::open_store(store, None, profile, config).await
    }

    /// The same for a store that can do more than [`ObjectStore`] says.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_native(
        store: Arc<dyn ObjectStore>,
        native: Arc<dyn CloudExtensions>,
        profile: Profile,
        config: Config,
    ) -> Result<Self> {
        Self::open_store(store, Some(native), profile, config).await
    }

    async fn open_store(
        store: Arc<dyn ObjectStore>,
        native: Option<Arc<dyn CloudExtensions>>,
        profile: Profile,
        config: Config,
    ) -> Result<Self> {
        let names = Names::new(&config.prefix, profile.naming)?;
        let key_limit = names.key_limit(profile.name_limit)?;
        let found = probe(&store, native.as_ref(), &names, &profile).await?;
        let framed = !found.attributes;

        let mut capabilities = Capabilities::new().atomic();
        capabilities.streaming = profile.streaming;
        // A condition compares the store's own etag, which in a framed object is not the etag that we show.
        capabilities.conditional = found.conditions && !framed;
        capabilities.versioning = native.as_ref().is_some_and(|native| native.versioned());
        // A framed object begins with a header of ours.
        capabilities.presign = native.as_ref().is_some_and(|native| native.presigns()) && !framed;
        capabilities.encryption = found.encrypted;
        capabilities.version_etags = profile.version_etags || framed;

        let mut limits = Limits::default();
        let largest = profile.max_parts.saturating_mul(config.part_size.get() as u64);
        limits.key = key_limit;
        limits.value = limits.value.min(largest) - meta::HEADER;
        limits.metadata = match framed {
            true => meta::HEADER_LIMIT,
            false => meta::ATTRIBUTE_LIMIT,
        };
        limits.time_granularity = profile.time_granularity;

        let patience = profile.timeout;
        let mut info = BackendInfo::new(profile.id.clone(), capabilities);
        info.name.clone_from(&profile.name);
        info.description = "Values as objects of an object store".to_owned();
        info.version = env!("CARGO_PKG_VERSION").to_owned();
        info.limits = limits;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                native,
                names,
                profile,
                config,
                info,
                framed,
                unquoted: found.unquoted,
                requests: Requests::new(patience),
                sound: Sound::default(),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// The store itself, for what only it can do. Objects written to it directly may not be what this backend expects.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// What became of each item of a bulk request that named each key once. What it could not delete is tried one by one, for
    /// some stores fail where an object is written at the same time.
    async fn retry_failed_deletes(
        &self,
        results: BTreeMap<&Key, Result<()>>,
        items: &[(Key, DeleteOptions)],
    ) -> Vec<Result<()>> {
        let mut failed: BTreeMap<_, _> =
            results.into_iter().filter_map(|(key, done)| Some((key, Some(done.err()?)))).collect();
        let mut done = Vec::with_capacity(items.len());
        for (key, options) in items {
            let again = |e: &Error| e.kind() == ErrorKind::Unavailable && self.inner.native.is_some();
            done.push(match failed.get_mut(key).map(Option::take) {
                None => Ok(()),
                Some(Some(e)) if !again(&e) => Err(e),
                // The error of a key that is there twice is told once.
                Some(_) => self.delete(key, options.clone()).await,
            });
        }
        done
    }

    /// The entry of a copy that has been made, and never that of what another has written since.
    async fn copied(&self, inner: &Inner, to: &Key, made: Copied) -> Result<Entry> {
        let versioning = inner.info.capabilities.versioning;
        let version = made.version.clone().filter(|_| versioning).map(VersionId::from);
        let entry = inner.describe(to, version.as_ref()).await.map_err(Error::ambiguous)?;
        let etag = inner.profile.shown(made.etag, made.version);
        let is_it = |entry: &Entry| {
            let seen = entry.etag.as_ref().map(|etag| bare(etag.as_str()));
            etag.as_deref().is_none_or(|etag| seen == Some(bare(etag)))
        };
        entry.filter(is_it).ok_or_else(|| {
            let message =
                "the copy was replaced or deleted before it could be looked at; copy again if it is still wanted";
            Error::new(ErrorKind::Conflict, message).ambiguous().with_key(to)
        })
    }

    fn open(&self) -> Result<&Arc<Inner>> {
        match self.inner.closed.load(Ordering::Acquire) {
            true => Err(Error::closed()),
            false => Ok(&self.inner),
        }
    }
}

impl Inner {
    pub(crate) fn native(&self) -> Result<&Arc<dyn CloudExtensions>> {
        self.native.as_ref().ok_or_else(|| Error::unsupported("versions and presigned requests"))
    }
}

impl fmt::Debug for ObjectStoreBackend {
    /// The store is left out, since it may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreBackend")
            .field("id", &self.inner.info.id)
            .field("prefix", &self.inner.config.prefix)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl StorageBackend for ObjectStoreBackend {
    fn info(&self) -> &BackendInfo {
        &self.inner.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let inner = self.open()?;
        before_read(inner.requests.writes().settled(key)).await?;
        inner.read(key, options).await
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let inner = self.open()?;
        if options.condition.is_some() && !inner.info.capabilities.conditional {
            return Err(Error::unsupported("a condition on writes"));
        }
        before_write(inner.requests.writes().settled(key)).await?;
        inner.write(key, body, options).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let inner = self.open()?;
        if options.condition.is_some() {
            return Err(Error::unsupported("a condition on delete"));
        }
        before_write(inner.requests.writes().settled(key)).await?;
        let place = inner.names.place(key);
        match (inner.native.clone(), options.version) {
            (Some(native), version) => {
                let request = async move {
                    let version = version.as_ref().map(VersionId::as_str);
                    native.delete(&place, version).await.map_err(error::mark_ambiguous)
                };
                inner.requests.send(key, request).await
            }
            (None, None) => {
                let store = inner.store.clone();
                let request = async move { absent_is_fine(store.delete(&place).await) };
                inner.requests.send(key, request).await
            }
            (None, Some(_)) => Err(Error::unsupported("a version on delete")),
        }
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let inner = self.open()?;
        before_read(inner.requests.writes().settled(key)).await?;
        inner.describe(key, options.version.as_ref()).await
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let inner = self.open()?;
        before_read(inner.requests.writes().settled_prefix(&options.prefix)).await?;
        inner.items(options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let inner = self.open()?;
        if options.atomic || items.iter().any(|(_, each)| *each != DeleteOptions::new()) {
            return defaults::delete_batch(self, items, options).await;
        }
        before_write(inner.requests.writes().settled_keys(items.iter().map(|(key, _)| key))).await?;
        // A request names each key once: a defect of a server was seen otherwise.
        let distinct: BTreeSet<&Key> = items.iter().map(|(key, _)| key).collect();
        let places: Vec<_> = distinct.iter().map(|key| Ok(inner.names.place(key))).collect();
        let keys: Vec<Key> = distinct.iter().map(|key| (*key).clone()).collect();
        let store = inner.store.clone();
        let request = inner.requests.send_more(keys, |given_up| async move {
            let done = store.delete_stream(given_up.cuts(stream::iter(places)).boxed());
            done.map(|each| absent_is_fine(each.map(drop))).collect::<Vec<_>>().await
        });
        let results = request.await;
        if results.len() == distinct.len() {
            let results = distinct.into_iter().zip(results).collect();
            return Ok(self.retry_failed_deletes(results, &items).await);
        }
        // A bulk request that failed as a whole says nothing about its items.
        match results.into_iter().find_map(Result::err) {
            Some(e) if e.kind() != ErrorKind::Unsupported => Err(e),
            _ => defaults::delete_batch(self, items, options).await,
        }
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        let inner = self.open()?;
        before_write(inner.requests.writes().settled_prefix(prefix)).await?;
        let (store, native) = (inner.store.clone(), inner.native.clone());
        // Answers come in the order of what was asked.
        let asked = Arc::new(Mutex::new(VecDeque::new()));
        let asking = asked.clone();
        let places = inner.places(prefix);
        let places = places.inspect_ok(move |place| lock(&asking).push_back(place.clone())).boxed();
        let request = inner.requests.send_more(Keys::prefix(prefix), |given_up| async move {
            let mut left = Vec::new();
            let mut done = store.delete_stream(given_up.clone().cuts(places).boxed());
            while let Some(each) = done.next().await {
                let place = lock(&asked).pop_front();
                match each.map(drop) {
                    Err(e) if native.is_some() && error::is_left_by_bulk(&e) => left.extend(place),
                    each => absent_is_fine(each)?,
                }
            }
            // Some stores fail where an object is written at the same time. Those are deleted one by one, and no other a second time.
            let mut left = given_up.cuts(stream::iter(left)).boxed();
            while let (Some(native), Some(place)) = (&native, left.next().await) {
                native.delete(&place, None).await.map_err(error::mark_ambiguous)?;
            }
            Ok(())
        });
        request.await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let inner = self.open()?;
        // A native copy takes over the header of a framed object, and with it the etag; it knows no conditions but one.
        if inner.framed || from == to || options != CopyOptions::new() {
            return defaults::copy(self, from, to, options).await;
        }
        before_write(inner.requests.writes().settled_keys([from, to])).await?;
        let (source, target) = (inner.names.place(from), inner.names.place(to));
        if let Some(native) = inner.native.clone() {
            let (source, target) = (source.clone(), target.clone());
            let request = async move { native.copy(&source, &target).await.map_err(error::mark_ambiguous) };
            match inner.requests.send(to, request).await {
                Ok(Some(made)) => return self.copied(inner, to, made).await,
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::TooLarge => return defaults::copy(self, from, to, options).await,
                Err(e) => return Err(e),
            }
        }
        let store = inner.store.clone();
        let request = async move { store.copy_opts(&source, &target, Copy::new()).await };
        match inner.requests.send(to, request).await {
            Ok(()) => {}
            Err(Absent::NotFound { .. }) => {
                return Err(Error::new(ErrorKind::NotFound, "the source does not exist").with_key(from));
            }
            Err(e) => match error::overwrite(e) {
                // Some stores copy in one go only what is not too large.
                e if e.kind() == ErrorKind::TooLarge => return defaults::copy(self, from, to, options).await,
                e => return Err(e),
            },
        }
        self.copied(inner, to, Copied::default()).await
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        let inner = self.open()?;
        before_read(inner.requests.writes().settled(key)).await?;
        inner.versions(key)
    }

    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        let inner = self.open()?;
        if !inner.info.capabilities.presign {
            return Err(Error::unsupported("presigned requests"));
        }
        inner.native()?.presign(&inner.names.place(key), &options).await
    }

    async fn health(&self) -> Result<()> {
        let inner = self.open()?;
        let nothing = inner.names.probe("nothing");
        inner.get(&nothing, Get::new().with_head(true)).await.map(drop)
    }

    async fn disconnect(&self) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.requests.close();
        Ok(())
    }
}

fn absent_is_fine(deleted: object_store::Result<()>) -> Result<()> {
    match deleted {
        Ok(()) | Err(Absent::NotFound { .. }) => Ok(()),
        Err(e) => Err(error::write(e)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
