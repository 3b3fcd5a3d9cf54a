//! Sizes, counts and lengths at which something goes wrong: a block, a page, a round number.

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    BatchOptions, Body, Bytes, DeleteOptions, Entry, EntryStream, Key, ListItem, ListOptions, ListStream, Metadata,
    PutOptions, Query, Result, async_trait, defaults,
};

use super::wrap::{Fault, Sides, listed, streamed, wrap};

super::table! {
    Large, |inner, _, fault| wrap(inner, fault);
    five_mib_streams_lose_a_byte = Stores::streams(|mut pieces| {
        if total(&pieces) == 5 << 20 && let Some(last) = pieces.last_mut() {
            last.truncate(last.len() - 1);
        }
        pieces
    }) => ["sizes/of_values"];
    values_of_65535_lose_a_byte = Stores::values(|value| value.slice(..if value.len() == 65_535 { 65_534 } else { value.len() })) => ["sizes/of_values"];
    pieces_are_cut_at_a_mib = Stores::streams(|pieces| {
        pieces.into_iter().map(|piece| piece.slice(..piece.len().min(1 << 20))).collect()
    }) => ["entries/every_write_returns_its_entry", "sizes/of_pieces", "sizes/of_values"];
    only_a_thousand_pieces = Stores::streams(|pieces| pieces.into_iter().take(1000).collect()) => ["sizes/of_streams_in_pieces"];
    items_of_4096_lose_a_byte = PutsItems(|_, body, _| if let Some(value) = body.buffer().filter(|value| value.len() == 4096) {
        *body = value.slice(0..4095).into();
    }) => ["sizes/of_items"];
    the_thousandth_item_has_no_metadata = PutsItems(|n, _, options| if n % 1000 == 999 {
        options.metadata = None;
    }) => ["counts/of_entries_with_metadata"];
    a_limit_of_a_thousand_is_more = LimitOfAThousand => ["counts/of_entries"];
    lists_metadata_of_a_thousand = Lists(|n, entry| {
        if n >= 1000 && entry.metadata.is_some() {
            entry.metadata = Some(Metadata::new().into());
        }
        true
    }) => ["counts/of_entries_with_metadata"];
    lists_a_thousand_beyond_ascii = Lists(|n, entry| n < 1000 || entry.key.as_str().is_ascii()) => ["counts/of_entries", "counts/of_entries_with_metadata"];
    clears_a_thousand_beyond_ascii = ClearsAThousand => ["counts/of_entries"];
    answers_a_thousand = AnswersAThousand { look: false } => ["counts/of_entries_with_metadata"];
    looks_at_a_thousand = AnswersAThousand { look: true } => ["counts/of_entries_with_metadata"];
    ten_tags = Keeps(|metadata| metadata.tags = metadata.tags.iter().take(10).cloned().collect()) => ["counts/of_tags_and_fields"];
    fifty_tags_are_49 = Keeps(|metadata| {
        if metadata.tags.len() == 50 {
            metadata.tags.pop_last();
        }
    }) => ["counts/of_tags_and_fields"];
    names_of_fields_have_199_bytes = Keeps(|metadata| metadata.fields.retain(|name, _| name.len() < 200)) => ["counts/of_tags_and_fields"];
}

fn total(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

/// Stores other bytes.
#[derive(Debug)]
struct Stores {
    value: fn(Bytes) -> Bytes,
    pieces: fn(Vec<Bytes>) -> Vec<Bytes>,
}

impl Stores {
    fn values(value: fn(Bytes) -> Bytes) -> Self {
        Self { value, pieces: |pieces| pieces }
    }

    fn streams(pieces: fn(Vec<Bytes>) -> Vec<Bytes>) -> Self {
        Self { value: |value| value, pieces }
    }
}

#[async_trait]
impl Fault for Stores {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let body = match body.into_buffer() {
            Ok(value) => (self.value)(value.into_bytes()?).into(),
            Err(pieces) => {
                let pieces = (self.pieces)(pieces.try_collect().await?);
                Body::stream(stream::iter(pieces.into_iter().map(Ok)))
            }
        };
        s.inner.put(key, body, options).await
    }
}

/// Puts other items; the number is how many came before.
#[derive(Debug)]
struct PutsItems(fn(usize, &mut Body, &mut PutOptions));

#[async_trait]
impl Fault for PutsItems {
    async fn put_batch(
        &self,
        s: Sides<'_>,
        mut items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        for (n, (_, body, options)) in items.iter_mut().enumerate() {
            (self.0)(n, body, options);
        }
        s.inner.put_batch(items, options).await
    }
}

/// Whether there is more is not asked at this limit.
#[derive(Debug)]
struct LimitOfAThousand;

#[async_trait]
impl Fault for LimitOfAThousand {
    async fn list(&self, s: Sides<'_>, mut options: ListOptions) -> Result<ListStream> {
        if options.limit == Some(1000) {
            options.limit = None;
            let mut items = listed(s, options).await?;
            items.truncate(if items.len() == 1001 { 1001 } else { 1000 });
            return Ok(streamed(items));
        }
        s.inner.list(options).await
    }
}

/// Lists some entries otherwise, or not at all; the number is how many came before.
#[derive(Debug)]
struct Lists(fn(usize, &mut Entry) -> bool);

#[async_trait]
impl Fault for Lists {
    const DERIVED: bool = true;

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let items = listed(s, options).await?.into_iter().enumerate();
        let shown = items.filter_map(|(n, mut item)| match &mut item {
            ListItem::Entry(entry) => (self.0)(n, entry).then_some(item),
            _ => Some(item),
        });
        Ok(streamed(shown.collect()))
    }
}

#[derive(Debug)]
struct ClearsAThousand;

#[async_trait]
impl Fault for ClearsAThousand {
    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        let mut left = 1000;
        for item in listed(s, ListOptions::new().prefix(prefix)).await? {
            let Some(entry) = item.into_entry() else { continue };
            if !entry.key.as_str().is_ascii() {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            s.inner.delete(&entry.key, DeleteOptions::new()).await?;
        }
        Ok(())
    }
}

/// Of a query's answer, or of the entries it looks at, only the first thousand count.
#[derive(Debug)]
struct AnswersAThousand {
    look: bool,
}

#[async_trait]
impl Fault for AnswersAThousand {
    async fn query(&self, s: Sides<'_>, query: Query) -> Result<EntryStream> {
        if !self.look {
            return Ok(s.inner.query(query).await?.take(1000).boxed());
        }
        let options = ListOptions::new().prefix(query.prefix.as_str()).metadata(true).limit(1000);
        let entries: Vec<Entry> = defaults::entries(s.inner.list(options).await?).try_collect().await?;
        let mut found: Vec<Entry> =
            entries.into_iter().filter(|entry| query.matches(entry) && query.continues_with(entry)).collect();
        found.sort_by(|a, b| query.compare(a, b));
        found.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(streamed(found))
    }
}

/// Keeps less metadata than it was given.
#[derive(Debug)]
struct Keeps(fn(&mut Metadata));

#[async_trait]
impl Fault for Keeps {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        if let Some(metadata) = &options.metadata {
            let mut kept = (**metadata).clone();
            (self.0)(&mut kept);
            options.metadata = Some(kept.into());
        }
        s.inner.put(key, body, options).await
    }
}
