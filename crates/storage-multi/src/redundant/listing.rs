//! Listings of a read quorum, merged: of each key the newest.

use std::sync::Arc;

use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use storage_core::{Entry, Error, ErrorKind, ListItem, ListOptions, ListStream, Result};

use super::{Inner, child::Seen, quorum::agreed};
use crate::streams;

/// An item, and the store it is of.
type Of = (usize, ListItem);

impl Inner {
    /// The listings of so many stores that they answer for all, as one in which each item is as often as it is in them.
    async fn listings(&self, options: &ListOptions) -> Result<BoxStream<'static, Result<Of>>> {
        let mut below = options.clone();
        (below.limit, below.metadata, below.etags) = (None, true, true);
        let (mut listings, mut failed) = (Vec::new(), None);
        for (at, child) in self.ordered() {
            let opened = async {
                let items = streams::list(child.backend().await?.clone(), &below, |mut entry| {
                    entry.key = crate::names::key_above(entry.key)?;
                    Ok(Some(entry))
                });
                items.await.map_err(|e| child.error(e))
            };
            let begun = tokio::time::Instant::now();
            let opened = opened.await;
            child.note(begun, &opened);
            match opened {
                Ok(items) => {
                    let of = child.clone();
                    let items = items.map_err(move |e| {
                        // So that it is asked last when this is begun again.
                        of.failed();
                        of.error(e)
                    });
                    listings.push(items.map_ok(move |item| (at, item)).boxed());
                }
                Err(e) => failed = Some(e),
            }
            if listings.len() == self.read_quorum {
                return Ok(in_order(listings));
            }
        }
        Err(self.too_few(self.read_quorum, failed))
    }

    /// The user's listing, without its limit.
    pub(super) fn list(self: Arc<Self>, options: ListOptions) -> BoxFuture<'static, Result<ListStream>> {
        async move {
            let items = self.clone().merged(options.clone()).await?;
            let walk = Walk { failures: 0, inner: self, options, items };
            Ok(stream::try_unfold(walk, Walk::next).boxed())
        }
        .boxed()
    }

    async fn merged(self: Arc<Self>, options: ListOptions) -> Result<ListStream> {
        let items = self.listings(&options).await?.peekable();
        let metadata = options.metadata;
        let groups = stream::try_unfold(items, |mut items| async move {
            let Some(first) = items.try_next().await? else { return Ok(None) };
            let mut group = vec![first];
            while let Some(Ok(next)) = std::pin::Pin::new(&mut items).peek().await
                && next.1.position() == group[0].1.position()
            {
                if let Some(next) = items.try_next().await? {
                    group.push(next);
                }
            }
            Ok(Some((group, items)))
        });
        let decided = groups.map(move |group: Result<Vec<Of>>| {
            let inner = self.clone();
            async move {
                let item = inner.decide(group?).await?;
                Ok(item.map(|item| match item {
                    ListItem::Entry(mut entry) => {
                        entry.metadata = entry.metadata.filter(|_| metadata);
                        ListItem::Entry(entry)
                    }
                    other => other,
                }))
            }
        });
        let decided = storage_core::defaults::until_error(decided.buffered(8));
        Ok(decided.try_filter_map(|item| std::future::ready(Ok(item))).boxed())
    }

    /// What the caller sees of an item; `None` for a deleted one.
    async fn decide(self: &Arc<Self>, group: Vec<Of>) -> Result<Option<ListItem>> {
        let mut seen = Vec::new();
        let mut listed: Option<Entry> = None;
        for (at, item) in group {
            match item {
                ListItem::Entry(entry) => {
                    listed = Some(entry.clone());
                    seen.push((at, Seen::of(entry)?));
                }
                ListItem::Prefix(prefix) => {
                    // What is below may all be deleted.
                    let below = self.clone().list(ListOptions::new().prefix(prefix.as_str()));
                    let first = below.await?.try_next().await?;
                    return Ok(first.map(|_| ListItem::Prefix(prefix)));
                }
                _ => return Err(Error::unsupported("an item of a listing that is neither entry nor prefix")),
            }
        }
        let sound = seen.iter().all(|(_, seen)| seen.damaged.is_none());
        if sound
            && seen.len() == self.read_quorum
            && let Some(newest) = agreed(&seen)
        {
            return Ok(newest.seen.value().cloned().map(ListItem::Entry));
        }
        let Some(listed) = listed else { return Ok(None) };
        match self.newest(&listed.key).await {
            Ok(newest) => Ok(newest.seen.value().cloned().map(ListItem::Entry)),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                let bare = Entry::new(listed.key, listed.size);
                Ok(Some(ListItem::Entry(bare.into_damaged(e))))
            }
            Err(e) => Err(e),
        }
    }
}

/// A listing that goes on with other stores when one breaks off.
struct Walk {
    inner: Arc<Inner>,
    options: ListOptions,
    items: ListStream,
    /// Since the last item.
    failures: usize,
}

impl Walk {
    async fn next(mut self) -> Result<Option<(ListItem, Self)>> {
        loop {
            match self.items.try_next().await {
                Ok(None) => return Ok(None),
                Ok(Some(item)) => {
                    self.failures = 0;
                    self.options.start_after = Some(item.position().to_owned());
                    return Ok(Some((item, self)));
                }
                Err(e) if self.failures < self.inner.children.len() && e.is_retryable() => {
                    self.failures += 1;
                    self.items = self.inner.clone().merged(self.options.clone()).await?;
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Items of several stores by position, then by store.
pub(super) fn in_order(listings: Vec<BoxStream<'static, Result<Of>>>) -> BoxStream<'static, Result<Of>> {
    streams::merge(listings, |(a, x): &Of, (b, y)| x.position().cmp(y.position()).then(a.cmp(b)))
}
