//! The backend with the cache in front of it.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use storage_core::{
    BackendInfo, BatchOptions, Body, Bytes, Consistency, CopyOptions, DeleteOptions, Entry, EntryStream, Error,
    GetOptions, Key, ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query,
    RenameOptions, Result, StatOptions, StorageBackend, Transaction, async_trait,
};

use crate::{
    CacheLayer, Stats,
    load::{self, Loaded, Read},
    table::{Join, Scope, Table, Ticket},
    transaction::Bypass,
    value::Value,
};

/// A backend with the cache layer around it.
pub struct Cache<S: ?Sized> {
    max_value: u64,
    validate: bool,
    info: BackendInfo,
    table: Arc<Table>,
    inner: Arc<S>,
}

impl<S: StorageBackend + ?Sized> Cache<S> {
    /// Puts the layer around `inner`.
    #[must_use]
    pub fn new(inner: Arc<S>, layer: CacheLayer) -> Self {
        let mut info = inner.info().clone();
        info.consistency = Consistency::ProcessLocal;
        let table = Arc::new(Table::new(&layer, &info.id));
        Self { max_value: layer.largest(), validate: layer.validate, info, table, inner }
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

    /// What the cache did up to now, and what it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.table.stats()
    }

    /// The current value, where it may be served without asking below.
    fn at_hand(&self, key: &Key) -> Option<Arc<Value>> {
        self.table.lookup(key).filter(|_| !self.validate)
    }

    /// What answers such a read. A value whose entry is not all there and is wanted is asked for it below; `None` if it is not the
    /// current one any more.
    async fn answering(&self, key: &Key, value: Arc<Value>, options: &GetOptions) -> Result<Option<Arc<Value>>> {
        if value.answers(options) {
            return Ok(Some(value));
        }
        let now = self.inner.stat(key, StatOptions::new()).await?;
        Ok(self.learn(key, &value, now.as_ref()))
    }

    /// What a stat says of a value whose entry was not all there: the value with it, or that it is another by now.
    fn learn(&self, key: &Key, value: &Arc<Value>, now: Option<&Entry>) -> Option<Arc<Value>> {
        match now {
            Some(now) if now.etag == value.entry.etag && now.size == value.entry.size => {
                Some(self.table.complete(key, value, now.clone()))
            }
            _ => {
                self.table.forget(key, value);
                None
            }
        }
    }

    /// The answer of a value that is at hand.
    async fn answer(&self, key: &Key, value: Arc<Value>, options: GetOptions) -> Result<Option<Object>> {
        match self.answering(key, value, &options).await? {
            Some(value) => value.answer(&options),
            None => self.inner.get(key, options).await,
        }
    }

    /// The right to keep what a read with these options finds.
    fn ticket(&self, key: &Key, options: &GetOptions) -> Option<Ticket> {
        let all = options.version.is_none() && options.range.is_none();
        all.then(|| self.table.ticket(key)).flatten()
    }

    /// What was read, kept if it is small enough and there is a right to it.
    async fn keep(&self, ticket: Option<Ticket>, found: Option<Object>) -> Result<Option<Object>> {
        match (ticket, found) {
            (Some(ticket), Some(object)) => match load::read(object, self.max_value).await? {
                Read::Small(entry, bytes) => {
                    ticket.keep(entry.clone(), bytes.clone());
                    Ok(Some(Object::new(entry, bytes)))
                }
                Read::Large(object) => Ok(Some(object)),
            },
            (_, found) => Ok(found),
        }
    }

    /// The value by a load that all who ask for it meanwhile share.
    async fn shared(&self, key: &Key, options: GetOptions, known: Option<Arc<Value>>) -> Result<Option<Object>> {
        let counts = &self.table.counts;
        let is_known = known.is_some();
        let begin = |ticket| load::load(self.inner.clone(), ticket, options.prefer_buffered, self.max_value, known);
        let (load, first) = match self.table.join(key, is_known, begin) {
            Join::Begun(load) => (load, true),
            Join::Joined(load) => (load, false),
            Join::Kept(value) => {
                counts.read(true);
                return self.answer(key, value, options).await;
            }
            Join::Alone => {
                counts.read(false);
                return self.inner.get(key, options).await;
            }
        };
        match load.await {
            Ok(Loaded::Known(value)) => {
                counts.read(true);
                self.answer(key, value, options).await
            }
            Ok(Loaded::Read(value)) => {
                counts.read(!first);
                value.answer(&options)
            }
            Ok(Loaded::Absent) => {
                counts.read(!first);
                options.check_current(None).map(|()| None)
            }
            Ok(Loaded::Large(object)) => {
                counts.read(false);
                if is_plain(&options)
                    && let Some(object) = load::take(&object)
                {
                    return Ok(Some(object));
                }
                self.inner.get(key, options).await
            }
            Err(e) => {
                counts.read(!first);
                Err(e)
            }
        }
    }

    /// A write that can touch these keys.
    async fn write<T>(&self, scope: Scope, write: BoxFuture<'_, Result<T>>) -> Result<T> {
        let guard = self.table.begin(scope);
        let result = write.await;
        guard.end(|_| is_doubtful(&result));
        result
    }

    /// A batch of writes, one for each key.
    async fn write_each<T>(
        &self,
        keys: Vec<Key>,
        write: BoxFuture<'_, Result<Vec<Result<T>>>>,
    ) -> Result<Vec<Result<T>>> {
        let guard = self.table.begin(Scope::Keys(keys));
        let results = write.await;
        guard.end(|i| match &results {
            Ok(results) => results.get(i).is_some_and(is_doubtful),
            Err(e) => e.is_ambiguous(),
        });
        results
    }
}

/// Whether all of the current value is asked for, whatever it is.
fn is_plain(options: &GetOptions) -> bool {
    options.range.is_none() && options.if_match.is_none() && options.if_none_match.is_none()
}

/// Whether what was called may still happen.
pub(crate) fn is_doubtful<T>(result: &Result<T>) -> bool {
    result.as_ref().is_err_and(Error::is_ambiguous)
}

/// What is written past the cache it could not forget.
///
/// # Errors
/// `Unsupported`.
pub(crate) fn refuse_writes(options: &PresignOptions) -> Result<()> {
    match options.method.reads() {
        true => Ok(()),
        false => Err(Error::unsupported("presigned writes through a cache, which would not see them")),
    }
}

/// The whole value of a body that can be kept.
fn whole(body: &Body, max: u64) -> Option<Bytes> {
    let buffer = body.buffer().filter(|buffer| buffer.len() <= max)?;
    buffer.clone().into_bytes().ok()
}

/// What the answer to the put says of the value, and whether that is all that a stat would say: a date that only a stat knows would
/// be missing as long as the value is kept.
fn kept_entry(written: &Entry, size: usize, options: PutOptions) -> Option<(Entry, bool)> {
    let dated = written.modified.is_some() && written.created.is_some();
    (written.etag.is_some() && written.size == size as u64).then(|| {
        let mut entry = written.clone();
        entry.metadata.get_or_insert(options.metadata.unwrap_or_default());
        (entry, dated)
    })
}

impl<S: ?Sized> fmt::Debug for Cache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is kept is the application's own affair.
        f.debug_struct("Cache").field("over", &self.info.id).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StorageBackend + ?Sized> StorageBackend for Cache<S> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if options.version.is_some() {
            return self.inner.get(key, options).await;
        }
        match self.table.lookup(key) {
            Some(value) if !self.validate => {
                self.table.counts.read(true);
                self.answer(key, value, options).await
            }
            None if !is_plain(&options) => {
                self.table.counts.read(false);
                let ticket = self.ticket(key, &options);
                // What is kept has all of its entry.
                let options = if ticket.is_some() { options.entry(true) } else { options };
                let found = self.inner.get(key, options).await?;
                self.keep(ticket, found).await
            }
            known => self.shared(key, options, known).await,
        }
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        // The body of a value that the store fetches itself is empty.
        let value = whole(&body, self.max_value).filter(|_| options.source.is_none());
        let guard = self.table.begin(Scope::Keys(vec![key.clone()]));
        let result = self.inner.put(key, body, options.clone()).await;
        let kept = value.zip(result.as_ref().ok());
        match kept.and_then(|(value, written)| Some((kept_entry(written, value.len(), options)?, value))) {
            // A copy, because the caller's bytes may be a small part of something large.
            Some((entry, value)) => guard.keep(entry, Bytes::copy_from_slice(&value)),
            None => guard.end(|_| is_doubtful(&result)),
        }
        result
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.write(Scope::Keys(vec![key.clone()]), self.inner.delete(key, options)).await
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        if options.version.is_none() && !self.validate {
            let value = self.table.lookup(key);
            let whole = value.as_ref().filter(|value| value.whole_entry);
            self.table.counts.read(whole.is_some());
            if let Some(value) = whole {
                return Ok(Some(value.entry.clone()));
            }
            let now = self.inner.stat(key, options).await?;
            if let Some(value) = value {
                self.learn(key, &value, now.as_ref());
            }
            return Ok(now);
        }
        self.inner.stat(key, options).await
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.inner.list(options).await
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let mut results = Vec::with_capacity(items.len());
        let (mut places, mut tickets, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (key, options)) in items.into_iter().enumerate() {
            let current = options.version.is_none();
            let value = current.then(|| self.at_hand(&key)).flatten().filter(|value| value.answers(&options));
            if current {
                self.table.counts.read(value.is_some());
            }
            results.push(match value {
                Some(value) => value.answer(&options),
                None => {
                    places.push(place);
                    let ticket = self.ticket(&key, &options);
                    let options = if ticket.is_some() { options.entry(true) } else { options };
                    tickets.push(ticket);
                    rest.push((key, options));
                    Ok(None)
                }
            });
        }
        if rest.is_empty() && !results.is_empty() {
            return Ok(results);
        }
        let found = self.inner.get_batch(rest).await?;
        for ((place, ticket), found) in places.into_iter().zip(tickets).zip(found) {
            results[place] = match found {
                Ok(found) => self.keep(ticket, found).await,
                Err(e) => Err(e),
            };
        }
        Ok(results)
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let keys = items.iter().map(|(key, ..)| key.clone()).collect();
        self.write_each(keys, self.inner.put_batch(items, options)).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let keys = items.iter().map(|(key, _)| key.clone()).collect();
        self.write_each(keys, self.inner.delete_batch(items, options)).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        self.inner.query(query).await
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        self.write(Scope::All, self.inner.clear(prefix)).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        self.write(Scope::Keys(vec![to.clone()]), self.inner.copy(from, to, options)).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        self.write(Scope::Keys(vec![from.clone(), to.clone()]), self.inner.rename(from, to, options)).await
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        self.inner.versions(key).await
    }

    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        refuse_writes(&options)?;
        self.inner.presign(key, options).await
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let transaction = self.inner.begin().await?;
        Ok(Arc::new(Bypass::new(self.info.clone(), self.table.clone(), transaction)))
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn disconnect(&self) -> Result<()> {
        let guard = self.table.begin(Scope::All);
        let result = self.inner.disconnect().await;
        match &result {
            // From now on every call must reach the backend, which refuses it.
            Ok(()) => guard.never_end(),
            Err(e) => guard.end(|_| e.is_ambiguous()),
        }
        result
    }
}
