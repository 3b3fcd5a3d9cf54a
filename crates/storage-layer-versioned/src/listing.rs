//! Listings of the user's keys, without the layer's own.

use std::{future::ready, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{Error, ListItem, ListOptions, ListStream, Result, StorageBackend, defaults};

use crate::{names, storage::View};

/// Whether a listing of this prefix can touch the reserved names, the escaped included.
pub(crate) fn may_meet_our_own(prefix: &str) -> bool {
    prefix.starts_with(names::RESERVED) || names::RESERVED.starts_with(prefix)
}

/// A listing as the user asks for it.
pub(crate) async fn list<S: StorageBackend + ?Sized>(
    inner: &Arc<S>,
    view: View,
    mut options: ListOptions,
) -> Result<ListStream> {
    let meets_our_own = names::RESERVED.starts_with(options.prefix.as_str()) && options.prefix != names::RESERVED;
    options.prefix = names::below(&options.prefix).into_owned();
    options.start_after = options.start_after.map(|start| names::below(&start).into_owned());
    let starts_behind = options.start_after.as_deref().is_some_and(|start| start >= names::BEHIND);
    let stored = match () {
        () if !meets_our_own || starts_behind => inner.list(options).await?,
        () if options.delimited => without_empty_prefix(inner.clone(), options).await?,
        () => around_our_own(inner.clone(), options).await?,
    };
    Ok(stored.and_then(move |item| ready(above(view, item))).boxed())
}

fn above(view: View, item: ListItem) -> Result<ListItem> {
    Ok(match item {
        ListItem::Entry(entry) => ListItem::Entry(view.listed(entry)?),
        ListItem::Prefix(prefix) => ListItem::Prefix(names::above(&prefix).into_owned()),
        _ => return Err(Error::unsupported("an item of a listing that is neither entry nor prefix")),
    })
}

/// The reserved names fold into one common prefix, which stays only if there are escaped keys.
async fn without_empty_prefix<S: StorageBackend + ?Sized>(
    inner: Arc<S>,
    mut options: ListOptions,
) -> Result<ListStream> {
    let limit = options.limit;
    options.limit = limit.map(|limit| limit.saturating_add(1));
    let items = inner.list(options).await?.try_filter_map(move |item| {
        let inner = inner.clone();
        async move {
            if item.position() != names::RESERVED {
                return Ok(Some(item));
            }
            let escaped = ListOptions::new().prefix(names::ESCAPED).limit(1);
            let first = inner.list(escaped).await?.try_next().await?;
            Ok(first.map(|_| item))
        }
    });
    Ok(items.take(limit.unwrap_or(usize::MAX)).boxed())
}

/// Lists up to the layer's own names, and goes on behind them.
async fn around_our_own<S: StorageBackend + ?Sized>(inner: Arc<S>, options: ListOptions) -> Result<ListStream> {
    let limit = options.limit.unwrap_or(usize::MAX);
    let behind = options.clone().start_after(names::BEHIND);
    let before = inner.list(options).await?;
    let before = before.try_take_while(|item| ready(Ok(item.position() < names::RESERVED)));
    let behind = stream::once(async move { inner.list(behind).await }).try_flatten();
    Ok(defaults::until_error(before.chain(behind)).take(limit).boxed())
}
