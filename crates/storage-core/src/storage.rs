//! The handle that applications hold.

mod backoff;
mod batch;
mod parallel;
mod transaction;
mod update;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};

pub use transaction::Tx;

use crate::{
    BackendInfo, Body, Continuation, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions,
    IntoKey, Key, Layer, ListItem, ListOptions, ListStream, Object, Order, OrderBy, PresignOptions, PresignedRequest,
    PutOptions, Query, RenameOptions, Result, StatOptions, StorageBackend, backend::defaults, check::check_prefix,
};

/// A handle to a storage backend, whichever it is. Cloning is cheap and shares the backend.
///
/// Keys are anything that [`IntoKey`] takes, bodies anything that converts into [`Body`]. Before a call reaches the backend,
/// the handle checks key, limits and options against what the backend declares; errors come back with operation, key and
/// backend named.
///
/// # Errors
/// Every call can fail with what the store itself meets (`Unavailable`, `TimedOut`, `PermissionDenied`, `Corrupt` and others, see
/// [`ErrorKind`]), with `InvalidKey`, with `Unsupported` for an option that the backend does not declare, and with `Closed` after
/// [`disconnect`](Storage::disconnect).
#[derive(Debug)]
pub struct Storage<B: ?Sized = dyn StorageBackend> {
    backend: Arc<B>,
    closed: Arc<Closed>,
}

impl<B: ?Sized> Clone for Storage<B> {
    fn clone(&self) -> Self {
        Self { backend: self.backend.clone(), closed: self.closed.clone() }
    }
}

/// Whether a handle was disconnected; a transaction's handle also when the storage was that it began on.
#[derive(Debug, Default)]
struct Closed {
    here: AtomicBool,
    /// Whether a call met a conflict whose outcome is definite: a transaction may then be run again.
    conflict: AtomicBool,
    above: Option<Arc<Closed>>,
}

impl Closed {
    fn is_set(&self) -> bool {
        self.here.load(Ordering::Acquire) || self.above.as_ref().is_some_and(|above| above.is_set())
    }

    fn noted(&self, e: Error) -> Error {
        if e.kind() == ErrorKind::Conflict && !e.is_ambiguous() {
            self.conflict.store(true, Ordering::Release);
        }
        e
    }
}

/// One page of a query's answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The entries, in the query's order.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<Continuation>,
}

impl Storage {
    /// A handle to a backend.
    pub fn new(backend: impl StorageBackend) -> Self {
        Self::from_arc(Arc::new(backend))
    }

    /// Puts a middleware around the backend. The layer added last sees a call first.
    #[must_use]
    pub fn layer<L: Layer<dyn StorageBackend>>(self, layer: L) -> Self {
        Self::new(layer.layer(self.backend))
    }
}

impl<B: StorageBackend> Storage<B> {
    /// A handle to a backend that keeps its type, for methods that only this backend has.
    pub fn typed(backend: B) -> Self {
        Self::from_arc(Arc::new(backend))
    }

    /// Puts a middleware around the backend. The layer added last sees a call first.
    #[must_use]
    pub fn layer<L: Layer<B>>(self, layer: L) -> Storage<L::Backend> {
        Storage::typed(layer.layer(self.backend))
    }

    /// The same handle without the backend's type, so that backends can be exchanged at run time.
    #[must_use]
    pub fn erase(self) -> Storage {
        Storage { backend: self.backend, closed: self.closed }
    }
}

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// A handle to a shared backend.
    #[must_use]
    pub fn from_arc(backend: Arc<B>) -> Self {
        Self { backend, closed: Arc::default() }
    }

    /// The backend itself. Calls on it are not checked.
    #[must_use]
    pub fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// What the backend says about itself.
    #[must_use]
    pub fn info(&self) -> &BackendInfo {
        self.backend.info()
    }

    /// The whole value; `None` when there is none. See [`StorageBackend::get`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors).
    pub async fn get(&self, key: impl IntoKey) -> Result<Option<Bytes>> {
        self.get_with(key, GetOptions::new()).await
    }

    /// The whole value or a range of it, collected. See [`StorageBackend::get`].
    ///
    /// # Errors
    /// `PreconditionFailed`, `NotModified` and `RangeNotSatisfiable` where the options ask for it; those of [every call](Storage#errors).
    pub async fn get_with(&self, key: impl IntoKey, options: GetOptions) -> Result<Option<Bytes>> {
        match self.read(key, options.prefer_buffered(true).entry(false)).await? {
            Some(object) => object.body.bytes(u64::MAX).await.map(Some),
            None => Ok(None),
        }
    }

    /// The whole value or a range of it, collected, and the entry. See [`StorageBackend::get`].
    ///
    /// # Errors
    /// As [`get_with`](Storage::get_with).
    pub async fn get_with_entry(&self, key: impl IntoKey, options: GetOptions) -> Result<Option<(Bytes, Entry)>> {
        match self.open(key, options.prefer_buffered(true)).await? {
            Some(Object { entry, body }) => Ok(Some((body.bytes(u64::MAX).await?, entry))),
            None => Ok(None),
        }
    }

    /// The entry and the body, which may be a stream. See [`StorageBackend::get`].
    ///
    /// # Errors
    /// As [`get_with`](Storage::get_with); the body can fail with those of the store while it is read.
    pub async fn open(&self, key: impl IntoKey, options: GetOptions) -> Result<Option<Object>> {
        self.read(key, options.entry(true)).await
    }

    async fn read(&self, key: impl IntoKey, mut options: GetOptions) -> Result<Option<Object>> {
        let call = self.call("get");
        let key = call.key(key)?;
        let (check, range) = (options.check(self.info()), options.range);
        let mut object = match options.parallel_reads.take() {
            Some(how) => call.run(&key, check, || Self::get_parallel(&self.backend, &key, options, how)).await?,
            None => call.run(&key, check, || self.backend.get(&key, options)).await?,
        };
        if let Some(object) = &mut object {
            let (explain, mut body) = (call.explain_later(), std::mem::take(&mut object.body));
            // What a backend says of the size binds it, so that a value that breaks off is never taken for a whole one.
            let size = object.entry.size;
            if let Ok(range) = range.map_or(Ok(0..size), |range| range.resolve(size)) {
                body = body.expecting(range.end - range.start);
            }
            object.body = body.map_err(move |e| explain(e).with_key(&key));
        }
        Ok(object)
    }

    /// Writes a value without metadata. See [`StorageBackend::put`].
    ///
    /// # Errors
    /// `TooLarge` and the error of the body; those of [every call](Storage#errors).
    pub async fn put(&self, key: impl IntoKey, value: impl Into<Body>) -> Result<Entry> {
        self.put_with(key, value, PutOptions::new()).await
    }

    /// Writes a value. See [`StorageBackend::put`].
    ///
    /// # Errors
    /// `AlreadyExists` or `PreconditionFailed` where the condition does not hold, `TooLarge`, the error of the body; those of [every call](Storage#errors).
    pub async fn put_with(&self, key: impl IntoKey, value: impl Into<Body>, options: PutOptions) -> Result<Entry> {
        let call = self.call("put");
        let (key, body) = (call.key(key)?, value.into());
        let check = options.check(self.info()).and(body.check(self.info())).and(options.check_body(&body));
        call.run(&key, check, || self.backend.put(&key, body, options)).await
    }

    /// The same as [`put`](Storage::put).
    ///
    /// # Errors
    /// As [`put`](Storage::put).
    pub async fn set(&self, key: impl IntoKey, value: impl Into<Body>) -> Result<Entry> {
        self.put(key, value).await
    }

    /// Removes a value; it need not exist. See [`StorageBackend::delete`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors).
    pub async fn delete(&self, key: impl IntoKey) -> Result<()> {
        self.delete_with(key, DeleteOptions::new()).await
    }

    /// Removes a value or a version. See [`StorageBackend::delete`].
    ///
    /// # Errors
    /// `PreconditionFailed` where the condition does not hold; those of [every call](Storage#errors).
    pub async fn delete_with(&self, key: impl IntoKey, options: DeleteOptions) -> Result<()> {
        let call = self.call("delete");
        let key = call.key(key)?;
        call.run(&key, options.check(self.info()), || self.backend.delete(&key, options)).await
    }

    /// The entry of a value, with metadata. See [`StorageBackend::stat`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors).
    pub async fn stat(&self, key: impl IntoKey) -> Result<Option<Entry>> {
        self.stat_with(key, StatOptions::new()).await
    }

    /// The entry of a value or a version of it. See [`StorageBackend::stat`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors).
    pub async fn stat_with(&self, key: impl IntoKey, options: StatOptions) -> Result<Option<Entry>> {
        let call = self.call("stat");
        let key = call.key(key)?;
        call.run(&key, options.check(self.info()), || self.backend.stat(&key, options)).await
    }

    /// Whether there is a value.
    ///
    /// # Errors
    /// Those of [every call](Storage#errors).
    pub async fn exists(&self, key: impl IntoKey) -> Result<bool> {
        Ok(self.stat(key).await?.is_some())
    }

    /// The same as [`exists`](Storage::exists).
    ///
    /// # Errors
    /// Those of [every call](Storage#errors).
    pub async fn has(&self, key: impl IntoKey) -> Result<bool> {
        self.exists(key).await
    }

    /// All entries below a literal prefix, by key, without metadata. See [`StorageBackend::list`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors), from the call or from the stream, which ends after an error.
    pub async fn list(&self, prefix: &str) -> Result<EntryStream> {
        let listing = self.list_with(ListOptions::new().prefix(prefix)).await?;
        Ok(defaults::entries(listing))
    }

    /// Entries and common prefixes, by key. See [`StorageBackend::list`].
    ///
    /// # Errors
    /// As [`list`](Storage::list).
    pub async fn list_with(&self, options: ListOptions) -> Result<ListStream> {
        let call = self.call("list");
        let listing = call.run(None, options.check(self.info()), || self.backend.list(options)).await?;
        let explain = call.explain_later();
        let explained = listing.map(move |item| match item.map_err(&explain)? {
            ListItem::Entry(entry) => Ok(ListItem::Entry(explain_damage(entry, &explain))),
            prefix => Ok(prefix),
        });
        Ok(explained.boxed())
    }

    /// A listing in another order than by key; common prefixes come first, by name. All items are held in memory and sorted;
    /// `limit` counts after sorting.
    ///
    /// # Errors
    /// As [`list`](Storage::list); `Unsupported` for ordering by a metadata field, which is what [`query`](Storage::query) is for.
    pub async fn list_sorted(&self, mut options: ListOptions, order: Order) -> Result<ListStream> {
        if let OrderBy::Field(_) = order.by {
            let e = Error::unsupported("listings ordered by a metadata field (use a query)");
            return Err(self.call("list").explain(e));
        }
        let limit = options.limit.take().unwrap_or(usize::MAX);
        let mut items: Vec<ListItem> = self.list_with(options).await?.try_collect().await?;
        let mut query = Query::new();
        query.order = order;
        items.sort_by(|a, b| match (a, b) {
            (ListItem::Entry(a), ListItem::Entry(b)) => query.compare(a, b),
            (a, b) => {
                (matches!(a, ListItem::Entry(_)), a.position()).cmp(&(matches!(b, ListItem::Entry(_)), b.position()))
            }
        });
        items.truncate(limit);
        Ok(stream::iter(items.into_iter().map(Ok)).boxed())
    }

    /// All keys, in bytewise order. No more is asked of the store than that needs: see [`ListOptions::etags`].
    ///
    /// # Errors
    /// As [`list`](Storage::list).
    pub async fn keys(&self) -> Result<BoxStream<'static, Result<Key>>> {
        let listing = self.list_with(ListOptions::new().etags(false)).await?;
        Ok(defaults::entries(listing).map_ok(|entry| entry.key).boxed())
    }

    /// The entries that answer a query. See [`StorageBackend::query`].
    ///
    /// # Errors
    /// `InvalidInput` for a query that [`Query::validate`] refuses; those of [every call](Storage#errors), from the call or from the stream.
    pub async fn query(&self, query: Query) -> Result<EntryStream> {
        let call = self.call("query");
        let entries = call.run(None, query.validate(), || self.backend.query(query)).await?;
        Ok(call.explain_entries(entries))
    }

    /// The entries up to the query's limit, and where to go on.
    ///
    /// # Errors
    /// As [`query`](Storage::query).
    pub async fn query_page(&self, query: Query) -> Result<Page> {
        let entries: Vec<Entry> = self.query(query.clone()).await?.try_collect().await?;
        let full = query.limit.is_some_and(|limit| entries.len() >= limit);
        let next = entries.last().filter(|_| full).map(|last| query.continuation_after(last));
        Ok(Page { entries, next })
    }

    /// Deletes everything in this backend's namespace. See [`StorageBackend::clear`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors). Some keys may be gone then; calling again goes on.
    pub async fn clear(&self) -> Result<()> {
        self.clear_prefix("").await
    }

    /// Deletes exactly what `list(prefix)` shows. See [`StorageBackend::clear`].
    ///
    /// # Errors
    /// As [`clear`](Storage::clear).
    pub async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        let call = self.call("clear");
        call.run(None, check_prefix(prefix), || self.backend.clear(prefix)).await
    }

    /// Copies a value with its metadata. See [`StorageBackend::copy`].
    ///
    /// # Errors
    /// `NotFound` where there is no source; those of [every call](Storage#errors).
    pub async fn copy(&self, from: impl IntoKey, to: impl IntoKey) -> Result<Entry> {
        self.copy_with(from, to, CopyOptions::new()).await
    }

    /// Copies a value. See [`StorageBackend::copy`].
    ///
    /// # Errors
    /// `NotFound` where there is no source or not that version of it; those of [`put_with`](Storage::put_with).
    pub async fn copy_with(&self, from: impl IntoKey, to: impl IntoKey, options: CopyOptions) -> Result<Entry> {
        let call = self.call("copy");
        let (from, to) = (call.key(from)?, call.key(to)?);
        let done = call.run(None, options.check(self.info()), || self.backend.copy(&from, &to, options)).await;
        done.map_err(|e| name_source_or_target(e, &from, &to))
    }

    /// Moves a value, replacing the target. See [`StorageBackend::rename`].
    ///
    /// # Errors
    /// `NotFound` where there is no source; those of [every call](Storage#errors).
    pub async fn rename(&self, from: impl IntoKey, to: impl IntoKey) -> Result<Entry> {
        self.rename_with(from, to, RenameOptions::new()).await
    }

    /// Moves a value. See [`StorageBackend::rename`].
    ///
    /// # Errors
    /// `NotFound` where there is no source; those of [`put_with`](Storage::put_with).
    pub async fn rename_with(&self, from: impl IntoKey, to: impl IntoKey, options: RenameOptions) -> Result<Entry> {
        let call = self.call("rename");
        let (from, to) = (call.key(from)?, call.key(to)?);
        let done = call.run(None, options.check(self.info()), || self.backend.rename(&from, &to, options)).await;
        done.map_err(|e| name_source_or_target(e, &from, &to))
    }

    /// The versions of a value, newest first. See [`StorageBackend::versions`].
    ///
    /// # Errors
    /// `Unsupported` where no versions are kept; those of [every call](Storage#errors).
    pub async fn versions(&self, key: impl IntoKey) -> Result<EntryStream> {
        let call = self.call("versions");
        let key = call.key(key)?;
        let versions = call.run(&key, Ok(()), || self.backend.versions(&key)).await?;
        Ok(call.explain_entries(versions))
    }

    /// A request that anybody can send until it expires, without credentials: a browser that uploads or downloads by itself. It is a
    /// secret. See [`StorageBackend::presign`].
    ///
    /// ```
    /// # async fn example(storage: storage_core::Storage) -> storage_core::Result<()> {
    /// # use std::time::Duration;
    /// use storage_core::PresignOptions;
    /// let hour = Duration::from_secs(3600);
    /// let upload = storage.presign("avatar.png", PresignOptions::put(hour).content_type("image/png")).await?;
    /// println!("{} {} with {:?}", upload.method, upload.url, upload.headers);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Unsupported` where nothing can be presigned, or not this; `InvalidInput` for a lifetime that the store does not take; those of [every call](Storage#errors).
    pub async fn presign(&self, key: impl IntoKey, options: PresignOptions) -> Result<PresignedRequest> {
        let call = self.call("presign");
        let key = call.key(key)?;
        call.run(&key, options.check(self.info()), || self.backend.presign(&key, options)).await
    }

    /// Whether the store can be reached and used right now, and if not, why. See [`StorageBackend::health`].
    ///
    /// # Errors
    /// `Closed` after [`disconnect`](Storage::disconnect); those of the store.
    pub async fn health(&self) -> Result<()> {
        self.call("health").run(None, Ok(()), || self.backend.health()).await
    }

    /// Whether [`health`](Storage::health) has nothing to report.
    pub async fn is_connected(&self) -> bool {
        self.health().await.is_ok()
    }

    /// Gives up the connection. Afterwards every call through this handle and its clones is `Closed`.
    ///
    /// # Errors
    /// Those of the store; the handle is closed all the same.
    pub async fn disconnect(&self) -> Result<()> {
        self.closed.here.store(true, Ordering::Release);
        let done = self.backend.disconnect().await;
        done.map_err(|e| e.with_operation("disconnect").with_backend(&self.info().id))
    }

    fn call(&self, operation: &'static str) -> Call<'_> {
        Call { operation, info: self.info(), closed: &self.closed }
    }
}

/// A condition is one on the target; everything else is said of the source, unless the backend says otherwise.
fn name_source_or_target(e: Error, from: &Key, to: &Key) -> Error {
    match e.kind() {
        ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed => e.with_key(to),
        _ => e.with_key(from),
    }
}

/// An error within an entry says as much as one that is returned.
fn explain_damage(mut entry: Entry, explain: impl Fn(Error) -> Error) -> Entry {
    entry.damaged = entry.damaged.map(|e| explain(e).with_key(&entry.key));
    entry
}

/// What all operations share: the checks before and the error's particulars after.
struct Call<'a> {
    operation: &'static str,
    info: &'a BackendInfo,
    closed: &'a Arc<Closed>,
}

impl Call<'_> {
    fn key(&self, key: impl IntoKey) -> Result<Key> {
        if self.closed.is_set() {
            return Err(self.explain(Error::closed()));
        }
        let key = key.into_key().map_err(|e| self.explain(e))?;
        key.check(self.info).map_err(|e| self.explain(e))?;
        Ok(key)
    }

    async fn run<'k, T, F: Future<Output = Result<T>>>(
        &self,
        key: impl Into<Option<&'k Key>>,
        check: Result<()>,
        call: impl FnOnce() -> F,
    ) -> Result<T> {
        let result = match check {
            _ if self.closed.is_set() => Err(Error::closed()),
            Err(e) => Err(e),
            Ok(()) => call().await,
        };
        result.map_err(|e| match key.into() {
            Some(key) => self.explain(e).with_key(key),
            None => self.explain(e),
        })
    }

    fn explain_each<T>(&self, keys: &[Key], results: Vec<Result<T>>) -> Vec<Result<T>> {
        let explained = keys.iter().zip(results).map(|(key, result)| result.map_err(|e| self.explain(e).with_key(key)));
        explained.collect()
    }

    /// The same for what a stream yields after the call.
    fn explain_later(&self) -> impl Fn(Error) -> Error + Send + use<> {
        let (operation, id, closed) = (self.operation, self.info.id.clone(), self.closed.clone());
        move |e| closed.noted(e).with_operation(operation).with_backend(&id)
    }

    fn explain_entries(&self, entries: EntryStream) -> EntryStream {
        let explain = self.explain_later();
        entries.map(move |entry| Ok(explain_damage(entry.map_err(&explain)?, &explain))).boxed()
    }

    fn explain(&self, e: Error) -> Error {
        let e = e.with_operation(self.operation).with_backend(&self.info.id);
        // Of an open transaction nothing is there yet, whatever it had written before the conflict.
        let open = self.closed.above.is_some() && self.operation != "commit";
        let e = if open && e.kind() == ErrorKind::Conflict { e.definite() } else { e };
        self.closed.noted(e)
    }
}
