//! Listings and answers of several stores, without what is our own, and as one.

use std::{cmp::Ordering, sync::Arc};

use futures_util::{
    StreamExt, TryStreamExt,
    future::join_all,
    stream::{self, BoxStream},
};
use storage_core::{Entry, EntryStream, Error, ListItem, ListOptions, ListStream, Query, Result, StorageBackend};

use crate::names;

/// By how much more is asked for than is wanted, since a few are our own.
const MARGIN: usize = 4;

/// What `each` makes of the user's items of a listing, in the options' order and number. `each` is given the store's own items.
pub(crate) async fn list<F>(inner: Arc<dyn StorageBackend>, options: &ListOptions, each: F) -> Result<ListStream>
where
    F: Fn(Entry) -> Result<Option<Entry>> + Send + Sync + 'static,
{
    let mut options = options.clone();
    let surrounds = names::surrounds_our_own(&options.prefix);
    options.prefix = names::below(&options.prefix).into_owned();
    options.start_after = options.start_after.map(|start| names::below(&start).into_owned());
    let wanted = options.limit.unwrap_or(usize::MAX);
    let asked = options.limit.map(|limit| limit.saturating_add(if surrounds { MARGIN } else { 0 }));
    options.limit = asked;
    let items = inner.list(options.clone()).await?;
    let walk = Listing { inner, options, items, asked, seen: 0, each };
    Ok(stream::try_unfold(walk, Listing::next).take(wanted).boxed())
}

struct Listing<F> {
    inner: Arc<dyn StorageBackend>,
    options: ListOptions,
    items: ListStream,
    /// How many items were asked for at most, and how many came.
    asked: Option<usize>,
    seen: usize,
    each: F,
}

impl<F: Fn(Entry) -> Result<Option<Entry>>> Listing<F> {
    async fn next(mut self) -> Result<Option<(ListItem, Self)>> {
        loop {
            let Some(item) = self.items.try_next().await? else {
                // What was left out may have been what the limit was used up by.
                if self.asked != Some(self.seen) || self.seen == 0 {
                    return Ok(None);
                }
                self.again().await?;
                continue;
            };
            self.seen += 1;
            let position = item.position().to_owned();
            self.options.start_after = Some(position.clone());
            match item {
                ListItem::Entry(_) if names::is_own(&position) => {
                    // There may be many of them.
                    self.options.start_after = Some(names::BEHIND.to_owned());
                    self.again().await?;
                }
                ListItem::Entry(entry) => {
                    if let Some(entry) = (self.each)(entry)? {
                        return Ok(Some((ListItem::Entry(entry), self)));
                    }
                }
                ListItem::Prefix(_) if position == names::RESERVED => {
                    let escaped = ListOptions::new().prefix(names::ESCAPED).limit(1).etags(false);
                    if self.inner.list(escaped).await?.try_next().await?.is_some() {
                        return Ok(Some((ListItem::Prefix(position), self)));
                    }
                }
                ListItem::Prefix(_) => {
                    return Ok(Some((ListItem::Prefix(names::above(&position).into_owned()), self)));
                }
                _ => return Err(Error::unsupported("an item of a listing that is neither entry nor prefix")),
            }
        }
    }

    /// Goes on behind the place that was reached.
    async fn again(&mut self) -> Result<()> {
        self.items = self.inner.list(self.options.clone()).await?;
        self.seen = 0;
        Ok(())
    }
}

/// What `each` makes of the user's entries that answer a query.
pub(crate) async fn query<F>(inner: Arc<dyn StorageBackend>, query: &Query, each: F) -> Result<EntryStream>
where
    F: Fn(Entry) -> Result<Option<Entry>> + Send + Sync + 'static,
{
    let mut query = query.clone();
    let surrounds = names::surrounds_our_own(&query.prefix);
    query.prefix = names::below(&query.prefix).into_owned();
    query.continuation = match query.continuation {
        Some(from) => {
            let key = names::key_below(from.key())?;
            Some(from.with_key(key))
        }
        None => None,
    };
    let wanted = query.limit.unwrap_or(usize::MAX);
    query.limit = query.limit.map(|limit| limit.saturating_add(if surrounds { MARGIN } else { 0 }));
    let entries = inner.query(query.clone()).await?;
    let walk = Answer { inner, query, entries, seen: 0, each };
    Ok(stream::try_unfold(walk, Answer::next).take(wanted).boxed())
}

struct Answer<F> {
    inner: Arc<dyn StorageBackend>,
    query: Query,
    entries: EntryStream,
    seen: usize,
    each: F,
}

impl<F: Fn(Entry) -> Result<Option<Entry>>> Answer<F> {
    async fn next(mut self) -> Result<Option<(Entry, Self)>> {
        loop {
            let Some(entry) = self.entries.try_next().await? else {
                if self.query.limit != Some(self.seen) || self.seen == 0 {
                    return Ok(None);
                }
                self.entries = self.inner.query(self.query.clone()).await?;
                self.seen = 0;
                continue;
            };
            self.seen += 1;
            self.query.continuation = Some(self.query.continuation_after(&entry));
            if names::is_own(entry.key.as_str()) {
                continue;
            }
            if let Some(entry) = (self.each)(entry)? {
                return Ok(Some((entry, self)));
            }
        }
    }
}

/// Several streams in the same order as one. Of items that compare as equal the first stream's is yielded. It ends after an error.
pub(crate) fn merge<T: Send + 'static>(
    streams: Vec<BoxStream<'static, Result<T>>>,
    compare: impl Fn(&T, &T) -> Ordering + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let merging = Merging { sources: streams.into_iter().map(|items| (None, Some(items))).collect(), compare };
    stream::try_unfold(merging, Merging::next).boxed()
}

/// The next item of a stream, if it was read, and the rest of it, if there may be more.
type Source<T> = (Option<T>, Option<BoxStream<'static, Result<T>>>);

struct Merging<T, C> {
    sources: Vec<Source<T>>,
    compare: C,
}

impl<T, C: Fn(&T, &T) -> Ordering> Merging<T, C> {
    async fn next(mut self) -> Result<Option<(T, Self)>> {
        // Those that have nothing to offer are asked at once.
        let waiting = self.sources.iter_mut().filter(|(head, _)| head.is_none());
        let reads = waiting.map(|(head, rest)| async move {
            if let Some(items) = rest {
                *head = items.try_next().await?;
                if head.is_none() {
                    *rest = None;
                }
            }
            Ok(())
        });
        join_all(reads).await.into_iter().collect::<Result<()>>()?;
        let mut least: Option<(usize, &T)> = None;
        for (at, (head, _)) in self.sources.iter().enumerate() {
            let Some(item) = head else { continue };
            if least.is_none_or(|(_, other)| (self.compare)(item, other).is_lt()) {
                least = Some((at, item));
            }
        }
        let Some((at, _)) = least else { return Ok(None) };
        let Some(item) = self.sources[at].0.take() else { return Ok(None) };
        for (head, _) in &mut self.sources {
            if head.as_ref().is_some_and(|other| (self.compare)(other, &item).is_eq()) {
                *head = None;
            }
        }
        Ok(Some((item, self)))
    }
}
