//! The provided methods as functions, so that an implementation that names every method can still say "the default".
//!
//! A wrapper under `#[deny(clippy::missing_trait_methods)]` keeps one by writing `defaults::copy(self, …)`: a visible choice.

use std::{collections::BTreeSet, mem};

use futures_util::{
    Stream, StreamExt, TryStreamExt,
    future::ready,
    stream::{self, BoxStream},
};

use crate::{
    BatchOptions, Body, Condition, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions, Key,
    ListItem, ListOptions, ListStream, Object, PutOptions, Query, RenameOptions, Result, StatOptions, StorageBackend,
    Transaction,
};

/// How many operations of a batch are under way at once.
const CONCURRENCY: usize = 8;
/// How many keys `clear` deletes at once.
const BATCH: usize = 1000;
/// How many entries a query holds to read their metadata one by one.
const SURVIVORS: usize = 10_000;

/// Single reads, a bounded number at once.
///
/// # Errors
/// None of its own.
pub async fn get_batch<S: StorageBackend + ?Sized>(
    this: &S,
    items: Vec<(Key, GetOptions)>,
) -> Result<Vec<Result<Option<Object>>>> {
    let reads = items.into_iter().map(|(key, options)| async move { this.get(&key, options).await });
    Ok(in_order(reads, CONCURRENCY).await)
}

/// Single writes, a bounded number at once; one after the other when a key occurs twice. With `atomic`, in a transaction.
///
/// # Errors
/// With `atomic`, those of the transaction and of any item.
pub async fn put_batch<S: StorageBackend + ?Sized>(
    this: &S,
    items: Vec<(Key, Body, PutOptions)>,
    options: BatchOptions,
) -> Result<Vec<Result<Entry>>> {
    if options.atomic {
        let transaction = this.begin().await?;
        let mut written = Vec::with_capacity(items.len());
        for (key, body, options) in items {
            let entry = transaction.put(&key, body, options).await;
            written.push(Ok(or_roll_back(&*transaction, &key, entry).await?));
        }
        transaction.commit().await?;
        return Ok(written);
    }
    let at_once = concurrency(items.iter().map(|(key, ..)| key));
    let writes = items.into_iter().map(|(key, body, options)| async move { this.put(&key, body, options).await });
    Ok(in_order(writes, at_once).await)
}

/// Single deletes, a bounded number at once; one after the other when a key occurs twice. With `atomic`, in a transaction.
///
/// # Errors
/// With `atomic`, those of the transaction and of any item.
pub async fn delete_batch<S: StorageBackend + ?Sized>(
    this: &S,
    items: Vec<(Key, DeleteOptions)>,
    options: BatchOptions,
) -> Result<Vec<Result<()>>> {
    if options.atomic {
        let transaction = this.begin().await?;
        let mut deleted = Vec::with_capacity(items.len());
        for (key, options) in items {
            let done = transaction.delete(&key, options).await;
            or_roll_back(&*transaction, &key, done).await?;
            deleted.push(Ok(()));
        }
        transaction.commit().await?;
        return Ok(deleted);
    }
    let at_once = concurrency(items.iter().map(|(key, _)| key));
    let deletes = items.into_iter().map(|(key, options)| async move { this.delete(&key, options).await });
    Ok(in_order(deletes, at_once).await)
}

/// A scan of the listing through the reference evaluator. Under a filter on size or on the date of the last write, the metadata of
/// those that pass it is read one by one, of the others not at all, as long as they are few.
///
/// # Errors
/// `InvalidInput` as [`Query::validate`]; those of the listing.
pub async fn query<S: StorageBackend + ?Sized>(this: &S, query: Query) -> Result<EntryStream> {
    query.validate()?;
    if let Some(few) = survivors(this, &query).await? {
        let stats = few.into_iter().map(|listed| async move {
            match this.stat(&listed.key, StatOptions::new()).await {
                Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(listed.into_damaged(e))),
                found => found,
            }
        });
        let found: Vec<_> = in_order(stats, CONCURRENCY).await;
        let found = found.into_iter().filter_map(Result::transpose);
        return query.evaluate(stream::iter(found).boxed()).await;
    }
    let options = ListOptions::new().prefix(query.prefix.as_str()).metadata(true);
    let listing = this.list(options).await?;
    query.evaluate(entries(listing)).await
}

/// The entries that a listing without metadata cannot exclude; `None` if it excludes none, or there are too many to hold.
async fn survivors<S: StorageBackend + ?Sized>(this: &S, query: &Query) -> Result<Option<Vec<Entry>>> {
    let mut cheap = Query::new().prefix(query.prefix.as_str());
    cheap.filters = query.filters.iter().filter(|filter| filter.is_on_every_listing()).cloned().collect();
    if cheap.filters.is_empty() {
        return Ok(None);
    }
    let mut listing = entries(this.list(ListOptions::new().prefix(query.prefix.as_str())).await?);
    let mut few = Vec::new();
    while let Some(entry) = listing.next().await.transpose()? {
        if cheap.matches(&entry) {
            if few.len() == SURVIVORS {
                return Ok(None);
            }
            few.push(entry);
        }
    }
    Ok(Some(few))
}

/// Deletes what the listing shows, in batches.
///
/// # Errors
/// The first that occurs.
pub async fn clear<S: StorageBackend + ?Sized>(this: &S, prefix: &str) -> Result<()> {
    let listing = this.list(ListOptions::new().prefix(prefix)).await?;
    let mut batches = entries(listing).map_ok(|entry| (entry.key, DeleteOptions::new())).try_chunks(BATCH);
    while let Some(batch) = batches.next().await {
        // What was listed before the listing broke off stays: another call deletes it too.
        let batch = batch.map_err(|broken| broken.1)?;
        this.delete_batch(batch, BatchOptions::new()).await?.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

/// A read and a write, streamed.
///
/// # Errors
/// `NotFound` for a missing source; those of the read and the write.
pub async fn copy<S: StorageBackend + ?Sized>(this: &S, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
    if from == to && options == CopyOptions::new() {
        return stay(this, from).await;
    }
    let mut read = GetOptions::new();
    read.version = options.version;
    let source = this.get(from, read).await?.ok_or_else(|| no_source(from))?;
    let mut write = PutOptions::new();
    write.metadata = options.metadata.or(source.entry.metadata);
    write.condition = options.condition;
    this.put(to, source.body, write).await.map_err(|e| e.with_key(to))
}

/// The store's own copy and a delete; the delete spares a source that was written meanwhile. With `conditional_delete` that is certain;
/// without, the etag is looked at just before the delete, and what is written between the two is lost.
///
/// # Errors
/// `NotFound` for a missing source, `Conflict` for one written meanwhile; those of the read, write and delete.
pub async fn rename<S: StorageBackend + ?Sized>(
    this: &S,
    from: &Key,
    to: &Key,
    options: RenameOptions,
) -> Result<Entry> {
    if from == to {
        let entry = stay(this, from).await?;
        return match options.condition {
            None => Ok(entry),
            Some(condition) => condition.check(Some(&entry)).map(|()| entry),
        };
    }
    // The etag is read before the copy: a source that is written in between, or later, has another one when it is deleted.
    let etag = stay(this, from).await?.etag;
    let mut copy = CopyOptions::new();
    copy.condition = options.condition;
    let entry = this.copy(from, to, copy).await?;
    let mut delete = DeleteOptions::new();
    if this.info().capabilities.conditional_delete {
        delete.condition = etag.map(Condition::IfMatch);
    } else if etag.is_some() {
        let now = this.stat(from, StatOptions::new()).await.map_err(Error::ambiguous)?;
        if now.is_some_and(|now| now.etag != etag) {
            return Err(written_meanwhile(from));
        }
    }
    match this.delete(from, delete).await {
        Err(e) if e.kind() == ErrorKind::PreconditionFailed => Err(written_meanwhile(from)),
        // The target is written already.
        done => done.map(|()| entry).map_err(Error::ambiguous),
    }
}

/// The target of the rename is written already.
fn written_meanwhile(source: &Key) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the source was written during the rename; it was kept, and the target holds a copy of it",
    )
    .ambiguous()
    .with_key(source)
}

/// A listing made of entries that come in the order of keys: prefix, `start_after`, `delimited`, `limit` and `metadata` are
/// applied to whatever comes. For backends whose store cannot do that by itself.
pub fn listing(entries: impl Stream<Item = Result<Entry>> + Send + 'static, options: ListOptions) -> ListStream {
    let limit = options.limit.unwrap_or(usize::MAX);
    let mut folded = String::new();
    let items = entries.try_filter_map(move |mut entry| {
        let key = entry.key.as_str();
        let common = options.common_prefix(key);
        let position = common.unwrap_or(key);
        let wanted = key.starts_with(&options.prefix) && Some(position) > options.start_after.as_deref();
        let item = match common {
            _ if !wanted => None,
            Some(common) if common == folded => None,
            Some(common) => {
                folded = common.to_owned();
                Some(ListItem::Prefix(folded.clone()))
            }
            None => {
                entry.metadata = entry.metadata.filter(|_| options.metadata);
                Some(ListItem::Entry(entry))
            }
        };
        ready(Ok(item))
    });
    items.take(limit).boxed()
}

/// What a page of entries in the order of keys comes to in a listing: the entries or, with `delimited`, each common prefix once.
///
/// Beside it the common prefix that the last entry folds into, if there is one: the next page may begin behind all keys with it. Where
/// it begins within one, `start_after` tells whether that was yielded before.
pub fn fold(entries: impl IntoIterator<Item = Entry>, options: &ListOptions) -> (Vec<ListItem>, Option<String>) {
    let mut items = Vec::new();
    let mut common: Option<String> = None;
    for entry in entries {
        let key = entry.key.as_str();
        if common.as_ref().is_some_and(|common| key.starts_with(common)) {
            continue;
        }
        common = options.common_prefix(key).map(str::to_owned);
        match &common {
            Some(common) if Some(common) > options.start_after.as_ref() => items.push(ListItem::Prefix(common.clone())),
            Some(_) => {}
            None => items.push(ListItem::Entry(entry)),
        }
    }
    (items, common)
}

/// The stream once its first item was read, so that what is wrong is known at the call.
///
/// # Errors
///
/// The first item's, if it is one.
pub async fn begun<T: Send + 'static>(
    items: impl Stream<Item = Result<T>> + Send + 'static,
) -> Result<BoxStream<'static, Result<T>>> {
    let mut items = Box::pin(items.peekable());
    match items.as_mut().next_if(Result::is_err).await {
        Some(failed) => failed.map(|_| stream::empty().boxed()),
        None => Ok(items.boxed()),
    }
}

/// The items up to the first error, and it: streams that are chained or buffered could go on behind one.
pub fn until_error<T>(items: impl Stream<Item = Result<T>>) -> impl Stream<Item = Result<T>> {
    items.scan(false, |failed, item| {
        let over = mem::replace(failed, item.is_err());
        ready((!over).then_some(item))
    })
}

/// The entries of a listing, without the common prefixes.
#[must_use]
pub fn entries(listing: ListStream) -> EntryStream {
    listing.try_filter_map(|item: ListItem| ready(Ok(item.into_entry()))).boxed()
}

async fn stay<S: StorageBackend + ?Sized>(this: &S, key: &Key) -> Result<Entry> {
    let entry = this.stat(key, StatOptions::new()).await?;
    entry.ok_or_else(|| no_source(key))
}

fn no_source(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "the source does not exist").with_key(key)
}

async fn or_roll_back<T>(transaction: &dyn Transaction, key: &Key, result: Result<T>) -> Result<T> {
    if result.is_err() {
        // The item's own error says more than a failing rollback; dropping the transaction ends it in any case.
        let _ = transaction.rollback().await;
    }
    result.map_err(|e| e.with_key(key))
}

/// One at once when a key occurs twice, for then the order decides.
fn concurrency<'k>(keys: impl ExactSizeIterator<Item = &'k Key>) -> usize {
    let len = keys.len();
    let distinct: BTreeSet<&Key> = keys.collect();
    if distinct.len() == len { CONCURRENCY } else { 1 }
}

async fn in_order<F: Future>(futures: impl Iterator<Item = F>, at_once: usize) -> Vec<F::Output> {
    stream::iter(futures).buffered(at_once).collect().await
}
