//! Listings that lose, repeat, misorder or invent.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, Weak},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    Body, DeleteOptions, Entry, Error, ErrorKind, Etag, Key, ListItem, ListOptions, ListStream, PutOptions, Result,
    async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides, listed, pause, streamed, whole},
};
use crate::support::locked;

table! {
    lists_nothing_as_an_error = NothingIsAnError => [
        "batch/atomic_with_much_metadata",
        "clear/many",
        "clear/own_namespace_only",
        "conditional/update_missing",
        "counts/of_entries",
        "damaged/can_be_replaced_and_removed",
        "keys/every_length",
        "list/empty",
        "transactions/many_writes",
        "versioning/clear_hides_and_keeps",
        "versioning/delete_hides_and_keeps",
    ];
    lists_a_thousand = Shapes(|_, items| items.into_iter().take(1000).collect()) => [
        "clear/many",
        "counts/of_entries",
        "counts/of_entries_with_metadata",
        "list/ten_thousand_no_loss_no_duplicates",
    ];
    lists_in_utf16_order = Shapes(|_, items| in_utf16_order(items)) => ["keys/weird_strings", "list/byte_order", "names/a_prefix_reaches_to_its_end"];
    repeats_the_first_of_a_page = StartsInclusively => [
        "counts/of_entries",
        "damaged/is_listed_as_such",
        "list/insert_between_pages",
        "list/one_level_resumes",
        "list/pages",
        "list/start_after_exclusive_and_missing",
        "list/ten_thousand_no_loss_no_duplicates",
        "list/while_others_come_and_go",
        "names/a_prefix_reaches_to_its_end",
    ];
    prefix_is_a_pattern = PrefixIsAPattern => ["clear/exactly_the_prefix", "list/prefix_is_literal", "names/alike_are_distinct_keys"];
    prefix_ends_at_ffff = Shapes(|options, mut items| {
        let end = format!("{}\u{ffff}", options.prefix);
        items.retain(|item| options.prefix.is_empty() || item.position() < end.as_str());
        items
    }) => ["counts/of_entries", "counts/of_entries_with_metadata", "names/a_prefix_reaches_to_its_end"];
    prefix_is_by_segment = Shapes(by_segment) => [
        "keys/every_length",
        "list/one_level_common_prefixes",
        "list/pages",
        "list/prefix_is_literal",
        "metadata/listed_only_when_asked",
        "names/a_prefix_reaches_to_its_end",
        "names/alike_are_distinct_keys",
        "transactions/write_conflict",
    ];
    limit_counts_before_folding = LimitsBeforeFolding => ["list/limit", "list/one_level_resumes"];
    no_slash_at_common_prefixes = Shapes(|_, items| without_slash(items)) => [
        "damaged/is_listed_as_such",
        "keys/every_length",
        "list/limit",
        "list/one_level_common_prefixes",
        "list/one_level_resumes",
        "names/a_prefix_reaches_to_its_end",
    ];
    start_must_exist = StartMustExist => ["list/delete_between_pages", "list/start_after_exclusive_and_missing"];
    pages_of_a_snapshot = Snapshot::default() => ["list/delete_between_pages", "list/insert_between_pages"];
    pages_by_offset = PagesByOffset => ["list/while_others_come_and_go"];
    listing_dies_with_its_handle = DiesWithItsHandle::default() => ["list/stream_outlives_the_call"];
    staging_is_listed = StagingIsListed => [
        "cancellation/dropped_stream_put",
        "list/no_staging_visible",
        "stream/body_error_stores_nothing",
        "stream/wrong_length_stores_nothing",
    ];
    without_etags_loses_sizes = Bare(|entry| entry.size = 0) => ["list/without_etags"];
    without_etags_loses_dates = Bare(|entry| entry.modified = None) => ["list/without_etags"];
    without_etags_makes_them_up = Bare(|entry| entry.etag = Some(Etag::new("made up"))) => ["list/without_etags"];
}

#[derive(Debug)]
struct NothingIsAnError;

#[async_trait]
impl Fault for NothingIsAnError {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let all = listed(s, ListOptions::new().limit(1)).await?;
        if all.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "the bucket does not exist"));
        }
        s.inner.list(options).await
    }
}

/// Yields other items than it should.
#[derive(Debug)]
struct Shapes(fn(&ListOptions, Vec<ListItem>) -> Vec<ListItem>);

#[async_trait]
impl Fault for Shapes {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let items = listed(s, options.clone()).await?;
        Ok(streamed((self.0)(&options, items)))
    }
}

fn in_utf16_order(mut items: Vec<ListItem>) -> Vec<ListItem> {
    items.sort_by_key(|item| item.position().encode_utf16().collect::<Vec<_>>());
    items
}

fn by_segment(options: &ListOptions, mut items: Vec<ListItem>) -> Vec<ListItem> {
    let prefix = options.prefix.as_str();
    items.retain(|item| {
        let rest = item.position().strip_prefix(prefix).unwrap_or_default();
        prefix.is_empty() || prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
    });
    items
}

fn without_slash(items: Vec<ListItem>) -> Vec<ListItem> {
    let cut = |item| match item {
        ListItem::Prefix(prefix) => ListItem::Prefix(prefix.trim_end_matches('/').to_owned()),
        entry => entry,
    };
    items.into_iter().map(cut).collect()
}

#[derive(Debug)]
struct StartsInclusively;

#[async_trait]
impl Fault for StartsInclusively {
    async fn list(&self, s: Sides<'_>, mut options: ListOptions) -> Result<ListStream> {
        let (start, limit) = (options.start_after.take(), options.limit.take());
        let items = s.inner.list(options).await?;
        let behind = move |item: &ListItem| start.as_deref().is_none_or(|start| item.position() >= start);
        let items = items.try_filter(move |item| std::future::ready(behind(item)));
        Ok(items.take(limit.unwrap_or(usize::MAX)).boxed())
    }
}

/// `_` and `%` match other characters too.
#[derive(Debug)]
struct PrefixIsAPattern;

#[async_trait]
impl Fault for PrefixIsAPattern {
    const DERIVED: bool = true;

    async fn list(&self, s: Sides<'_>, mut options: ListOptions) -> Result<ListStream> {
        if options.delimited || !options.prefix.contains(['_', '%']) {
            return s.inner.list(options).await;
        }
        let pattern = std::mem::take(&mut options.prefix);
        let mut items = listed(s, options).await?;
        items.retain(|item| begins_like(item.position(), &pattern));
        Ok(streamed(items))
    }
}

fn begins_like(text: &str, pattern: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => true,
        Some('%') => {
            text.char_indices().any(|(i, _)| begins_like(&text[i..], rest.as_str())) || rest.as_str().is_empty()
        }
        Some(wanted) => {
            let mut text = text.chars();
            text.next().is_some_and(|seen| wanted == '_' || wanted == seen) && begins_like(text.as_str(), rest.as_str())
        }
    }
}

#[derive(Debug)]
struct LimitsBeforeFolding;

#[async_trait]
impl Fault for LimitsBeforeFolding {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let Some(limit) = options.limit.filter(|_| options.delimited) else {
            return s.inner.list(options).await;
        };
        let mut flat = options.clone();
        flat.delimited = false;
        let flat = listed(s, flat).await?;
        let reached: BTreeSet<&str> = flat.iter().take(limit).map(ListItem::position).collect();
        let mut items = listed(s, options).await?;
        items.retain(|item| reached.iter().any(|key| key.starts_with(item.position())));
        Ok(streamed(items))
    }
}

#[derive(Debug)]
struct StartMustExist;

#[async_trait]
impl Fault for StartMustExist {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        if let Some(start) = options.start_after.as_deref().filter(|_| !options.delimited) {
            let all = listed(s, ListOptions::new()).await?;
            if !all.iter().any(|item| item.position() == start) {
                return Ok(streamed(Vec::new()));
            }
        }
        s.inner.list(options).await
    }
}

/// Later pages come from what was there when the first was read.
#[derive(Debug, Default)]
struct Snapshot {
    pages: Mutex<HashMap<(String, bool), Vec<ListItem>>>,
}

#[async_trait]
impl Fault for Snapshot {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let lock = || locked(&self.pages);
        let place = (options.prefix.clone(), options.delimited);
        if let Some(start) = options.start_after.as_deref() {
            let kept = lock().get(&place).cloned();
            if let Some(mut kept) = kept {
                kept.retain(|item| item.position() > start);
                kept.truncate(options.limit.unwrap_or(usize::MAX));
                return Ok(streamed(kept));
            }
        } else if options.limit.is_some() {
            let mut all = options.clone();
            all.limit = None;
            let all = listed(s, all).await?;
            lock().insert(place, all);
        }
        s.inner.list(options).await
    }
}

/// Reads pages by how many items came before, not by which.
#[derive(Debug)]
struct PagesByOffset;

#[async_trait]
impl Fault for PagesByOffset {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        const PAGE: usize = 40;
        if options.limit.is_some() || options.start_after.is_some() {
            return s.inner.list(options).await;
        }
        let inner = s.inner.clone();
        let pages = stream::try_unfold(Some(0), move |offset| {
            let (inner, options) = (inner.clone(), options.clone());
            async move {
                let Some(offset) = offset else { return Ok(None) };
                let all: Vec<ListItem> = inner.list(options).await?.try_collect().await?;
                let page: Vec<ListItem> = all.into_iter().skip(offset).take(PAGE).collect();
                let next = (page.len() == PAGE).then_some(offset + PAGE);
                if next.is_some() && offset < 400 {
                    pause().await;
                }
                Ok::<_, Error>(Some((streamed(page), next)))
            }
        });
        Ok(pages.try_flatten().boxed())
    }
}

#[derive(Debug, Default)]
struct DiesWithItsHandle {
    alive: Arc<()>,
}

#[async_trait]
impl Fault for DiesWithItsHandle {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let alive: Weak<()> = Arc::downgrade(&self.alive);
        let items = s.inner.list(options).await?;
        Ok(items.take_while(move |_| std::future::ready(alive.strong_count() > 0)).boxed())
    }
}

/// A streamed put is seen under another name until it ends, and for good when it is dropped or fails.
#[derive(Debug)]
struct StagingIsListed;

#[async_trait]
impl Fault for StagingIsListed {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if body.is_in_memory() {
            return s.inner.put(key, body, options).await;
        }
        let staged = Key::parse(".staging")?;
        s.inner.put(&staged, "part".into(), PutOptions::new()).await?;
        let bytes = whole(body).await?;
        s.inner.delete(&staged, DeleteOptions::new()).await?;
        s.inner.put(key, bytes.into(), options).await
    }
}

/// Does this to the entries of a listing without etags.
#[derive(Debug)]
struct Bare(fn(&mut Entry));

#[async_trait]
impl Fault for Bare {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let (change, bare) = (self.0, !options.etags);
        let listing = s.inner.list(options).await?.map_ok(move |mut item| {
            if let ListItem::Entry(entry) = &mut item
                && bare
            {
                change(entry);
            }
            item
        });
        Ok(listing.boxed())
    }
}
