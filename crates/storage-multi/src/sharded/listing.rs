//! Listings and answers to queries, which go on when the layout changes under them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, ready, try_join_all},
    stream,
};
use storage_core::{
    Entry, EntryStream, Error, ErrorKind, ListItem, ListOptions, ListStream, Query, Result, StatOptions,
    StorageBackend, defaults,
};

use super::{
    Inner, Sharded,
    between::CLAIM,
    view::{Held, Place, View},
};
use crate::{names, streams};

/// How many items of each store are read at a time while keys are in two places.
const WINDOW: usize = 1000;

impl Sharded {
    pub(super) fn listing(&self, options: ListOptions) -> BoxFuture<'static, Result<ListStream>> {
        let of = self.clone();
        async move {
            let (held, items) = of.open_listing(&options).await?;
            let listing = Listing { of, options, held, items };
            Ok(stream::try_unfold(listing, Listing::next).boxed())
        }
        .boxed()
    }

    /// The listing in the layout of now.
    async fn open_listing(&self, options: &ListOptions) -> Result<(Held, ListStream)> {
        let held = self.0.view().await?;
        if held.view.is_moving() {
            let (of, view, options) = (self.clone(), held.view.clone(), options.clone());
            let mut windows = Windows { of, view, options, queue: VecDeque::new(), end: false };
            // What is wrong is known at the call.
            windows.fill().await?;
            let items = stream::try_unfold(windows, Windows::next).boxed();
            return Ok((held, items));
        }
        let listings = self.0.children.iter().enumerate().map(|(at, child)| {
            let each = self.at_home(at, held.view.clone());
            async move {
                let items = streams::list(child.backend.clone(), options, each).await;
                let name = child.name.clone();
                let items = items.map_err(|e| child.error(e))?;
                Ok(items.map(move |item| item.map_err(|e| crate::error::above(&name, e))).boxed())
            }
        });
        let listings: Vec<ListStream> = try_join_all(listings).await?;
        let merged = streams::merge(listings, |a: &ListItem, b| a.position().cmp(b.position()));
        Ok((held, merged.take(options.limit.unwrap_or(usize::MAX)).boxed()))
    }

    pub(super) async fn answer(&self, query: Query) -> Result<EntryStream> {
        let (held, entries) = self.open_answer(&query).await?;
        let answer = Answer { of: self.clone(), query, held, entries };
        Ok(stream::try_unfold(answer, Answer::next).boxed())
    }

    async fn open_answer(&self, query: &Query) -> Result<(Held, EntryStream)> {
        let held = self.0.view().await?;
        if held.view.is_moving() {
            return Ok((held, defaults::query(self, query.clone()).await?));
        }
        let answers = self.0.children.iter().enumerate().map(|(at, child)| {
            let each = self.at_home(at, held.view.clone());
            async move {
                let entries = streams::query(child.backend.clone(), query, each).await;
                let name = child.name.clone();
                let entries = entries.map_err(|e| child.error(e))?;
                Ok(entries.map(move |entry| entry.map_err(|e| crate::error::above(&name, e))).boxed())
            }
        });
        let answers: Vec<EntryStream> = try_join_all(answers).await?;
        let (limit, order) = (query.limit.unwrap_or(usize::MAX), query.clone());
        Ok((held, streams::merge(answers, move |a, b| order.compare(a, b)).take(limit).boxed()))
    }

    /// The entry as the caller sees it, unless others put it into this store, where it is not found by its key.
    fn at_home(&self, at: usize, view: Arc<View>) -> impl Fn(Entry) -> Result<Option<Entry>> + Send + Sync + 'static {
        let inner = self.0.clone();
        move |entry| {
            let entry = inner.children[at].entry(entry)?;
            Ok((view.place(entry.key.as_str()) == Place::At(at)).then_some(entry))
        }
    }
}

/// A listing that begins again, behind what was yielded, when the layout is another.
struct Listing {
    of: Sharded,
    options: ListOptions,
    held: Held,
    items: ListStream,
}

impl Listing {
    async fn next(mut self) -> Result<Option<(ListItem, Self)>> {
        loop {
            if self.options.limit == Some(0) {
                return Ok(None);
            }
            let item = self.items.try_next().await?;
            // What was read before the layout changed may lack what has moved since.
            if !self.of.0.held(&self.held).await? {
                (self.held, self.items) = self.of.open_listing(&self.options).await?;
                continue;
            }
            let Some(item) = item else { return Ok(None) };
            self.options.start_after = Some(item.position().to_owned());
            self.options.limit = self.options.limit.map(|limit| limit - 1);
            return Ok(Some((item, self)));
        }
    }
}

/// The same of a query.
struct Answer {
    of: Sharded,
    query: Query,
    held: Held,
    entries: EntryStream,
}

impl Answer {
    async fn next(mut self) -> Result<Option<(Entry, Self)>> {
        loop {
            if self.query.limit == Some(0) {
                return Ok(None);
            }
            let entry = self.entries.try_next().await?;
            if !self.of.0.held(&self.held).await? {
                (self.held, self.entries) = self.of.open_answer(&self.query).await?;
                continue;
            }
            let Some(entry) = entry else { return Ok(None) };
            self.query.continuation = Some(self.query.continuation_after(&entry));
            self.query.limit = self.query.limit.map(|limit| limit - 1);
            return Ok(Some((entry, self)));
        }
    }
}

/// A listing while keys are in two places. Of each stretch of keys all stores are read, and then once more: what moved away before it was
/// read the first time has arrived before it is read the second time.
struct Windows {
    of: Sharded,
    view: Arc<View>,
    options: ListOptions,
    queue: VecDeque<ListItem>,
    end: bool,
}

/// What the stores have at a position: the older reading first.
type Found = BTreeMap<String, Vec<(usize, ListItem)>>;

impl Windows {
    async fn next(mut self) -> Result<Option<(ListItem, Self)>> {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return Ok(Some((item, self)));
            }
            if self.end {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    /// Reads the next stretch.
    async fn fill(&mut self) -> Result<()> {
        let (mut found, bound) = (Found::new(), self.read(None).await?);
        let last = bound.iter().filter(|items| items.len() == WINDOW).filter_map(|items| items.last());
        let last = last.map(ListItem::position).min().map(str::to_owned);
        let again = self.read(last.as_deref()).await?;
        for (at, items) in bound.into_iter().enumerate().chain(again.into_iter().enumerate()) {
            for item in items {
                if last.as_deref().is_none_or(|last| item.position() <= last) {
                    found.entry(item.position().to_owned()).or_default().push((at, item));
                }
            }
        }
        for (position, items) in found {
            let Some(item) = self.of.0.chosen(&self.view, &position, items).await? else { continue };
            if let ListItem::Prefix(prefix) = &item {
                // Below it there may be nothing but claims.
                let below = ListOptions::new().prefix(prefix.as_str()).limit(1).etags(false);
                if self.of.listing(below).await?.try_next().await?.is_none() {
                    continue;
                }
            }
            self.queue.push_back(item);
        }
        self.end = last.is_none();
        if last.is_some() {
            self.options.start_after = last;
        }
        Ok(())
    }

    /// The next items of each store: up to and with `last`, or so many.
    async fn read(&self, last: Option<&str>) -> Result<Vec<Vec<ListItem>>> {
        let mut options = self.options.clone();
        options.limit = last.is_none().then_some(WINDOW);
        let options = &options;
        let reads = self.of.0.children.iter().map(|child| async move {
            let each = {
                let child = child.clone();
                move |entry| child.entry(entry).map(Some)
            };
            let items = streams::list(child.backend.clone(), options, each).await.map_err(|e| child.error(e))?;
            let items = items.try_take_while(|item| ready(Ok(last.is_none_or(|last| item.position() <= last))));
            items.try_collect::<Vec<_>>().await.map_err(|e| child.error(e))
        });
        try_join_all(reads).await
    }
}

impl Inner {
    /// What is to be shown of what the stores have at a position.
    async fn chosen(&self, view: &View, position: &str, items: Vec<(usize, ListItem)>) -> Result<Option<ListItem>> {
        let of = |at: usize| items.iter().rev().find(|(other, _)| *other == at).map(|(_, item)| item);
        match items.first() {
            Some((_, ListItem::Entry(_))) => {}
            Some((_, prefix @ ListItem::Prefix(_))) => return Ok(Some(prefix.clone())),
            Some(_) => return Err(Error::unsupported("an item of a listing that is neither entry nor prefix")),
            None => return Ok(None),
        }
        match view.place(position) {
            Place::At(at) => Ok(of(at).cloned()),
            Place::Between { old, new } => match of(new) {
                Some(ListItem::Entry(entry)) if entry.size == CLAIM => {
                    let child = &self.children[new];
                    let there = child.backend.stat(&names::key_below(&entry.key)?, StatOptions::new()).await;
                    match there {
                        // What was listed may have been a claim that has become a value.
                        Ok(Some(there)) if !self.is_claim(&there) => {
                            let mut there = child.entry(there)?;
                            there.metadata = there.metadata.filter(|_| entry.metadata.is_some());
                            Ok(Some(ListItem::Entry(there)))
                        }
                        // A damaged value is no claim.
                        Err(e) if e.kind() == ErrorKind::Corrupt => Ok(of(new).cloned()),
                        Err(e) => Err(child.error(e)),
                        Ok(_) => Ok(of(old).cloned()),
                    }
                }
                Some(item) => Ok(Some(item.clone())),
                None => Ok(of(old).cloned()),
            },
        }
    }
}
