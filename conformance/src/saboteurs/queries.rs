//! Answers that the reference evaluator would not give.

use std::{collections::BTreeSet, time::Duration};

use futures_util::TryStreamExt;
use storage_core::{
    Comparison, Entry, EntryStream, FieldValue, Filter, ListOptions, Metadata, OrderBy, Query, Result, StatOptions,
    async_trait, defaults,
};

use super::{
    table,
    wrap::{Fault, Sides, streamed},
};

table! {
    one_equals_one_point_zero = Answers::over(|_, metadata| change(metadata, |value| match value {
        FieldValue::Float(float) if float.fract() == 0.0 && float.abs() < 1e9 => FieldValue::Int(float as i64),
        other => other,
    })) => [
        "filters/all_of_them_hold",
        "filters/numbers_to_the_last_bit",
        "query/comparisons",
        "query/limits_and_continuation",
        "query/order_and_ties",
        "query/random_vs_oracle",
        "query/typed_equality",
    ];
    one_equals_its_text = Answers::over(|_, metadata| change(metadata, |value| match value {
        FieldValue::Int(int) => FieldValue::String(int.to_string()),
        other => other,
    })) => [
        "counts/of_entries_with_metadata",
        "filters/a_page_goes_on_without_its_last_entry",
        "filters/all_of_them_hold",
        "filters/numbers_to_the_last_bit",
        "names/alike_are_distinct_in_metadata",
        "query/comparisons",
        "query/limits_and_continuation",
        "query/order_and_ties",
        "query/random_vs_oracle",
        "query/typed_equality",
    ];
    only_the_beginning_of_a_text_counts = Answers::over(|_, metadata| change(metadata, |value| match value {
        FieldValue::String(text) => FieldValue::String(text.chars().take(255).collect()),
        other => other,
    })) => ["counts/of_tags_and_fields", "query/long_texts_and_tags"];
    only_the_beginning_of_a_tag_counts = Answers::over(|_, mut metadata| {
        metadata.tags = metadata.tags.into_iter().map(|tag| tag.chars().take(255).collect()).collect();
        metadata
    }) => ["counts/of_tags_and_fields", "query/long_texts_and_tags"];
    texts_lose_the_spaces_at_their_end = Answers::over(|_, metadata| change(metadata, |value| match value {
        FieldValue::String(text) => FieldValue::String(text.trim_end().to_owned()),
        other => other,
    })) => ["names/alike_are_distinct_in_metadata"];
    large_integers_are_rounded = Answers::over(|_, metadata| change(metadata, |value| match value {
        FieldValue::Int(int) => FieldValue::Int(int as f64 as i64),
        other => other,
    })) => ["filters/numbers_to_the_last_bit", "query/random_vs_oracle"];
    the_last_filter_of_a_field_counts = LastFilter => ["filters/all_of_them_hold"];
    a_continuation_needs_its_entry = NeedsItsEntry => ["filters/a_page_goes_on_without_its_last_entry"];
    missing_is_null = Answers::over(with_nulls) => [
        "query/comparisons",
        "query/long_texts_and_tags",
        "query/missing_field_matches_nothing",
        "query/random_vs_oracle",
    ];
    any_tag_is_all = Answers::to(|filter| match filter {
        Filter::AnyTag(tags) => Filter::AllTags(tags),
        other => other,
    }) => [
        "counts/of_entries_with_metadata",
        "counts/of_tags_and_fields",
        "filters/all_of_them_hold",
        "query/long_texts_and_tags",
        "query/random_vs_oracle",
        "query/tags",
    ];
    content_type_without_parameters = Answers::over(|_, mut metadata| {
        metadata.content_type = metadata.content_type.map(|text| text.split(';').next().unwrap_or_default().to_owned());
        metadata
    }) => ["query/content_type", "query/injection_is_literal"];
    largest_size_is_outside = Answers::to(|filter| match filter {
        Filter::MaxSize(size) => Filter::MaxSize(size.saturating_sub(1)),
        other => other,
    }) => ["filters/all_of_them_hold", "query/size_range"];
    the_moment_is_inside = Answers::to(|filter| match filter {
        Filter::ModifiedAfter(time) => Filter::ModifiedAfter(time - Duration::from_nanos(1)),
        other => other,
    }) => ["query/dates"];
    less_or_equal_is_less = Answers::to(|filter| match filter {
        Filter::Field { name, comparison: Comparison::LessOrEqual, value } => {
            Filter::Field { name, comparison: Comparison::Less, value }
        }
        other => other,
    }) => [
        "filters/all_of_them_hold",
        "filters/numbers_to_the_last_bit",
        "query/comparisons",
        "query/long_texts_and_tags",
        "query/random_vs_oracle",
        "query/typed_equality",
    ];
    quotes_end_a_name = Answers::to(|filter| match filter {
        Filter::Field { name, comparison, value } => {
            Filter::Field { name: name.split('\'').next().unwrap_or_default().to_owned(), comparison, value }
        }
        other => other,
    }) => ["query/injection_is_literal"];
    ties_in_any_order = Answers { ties_reversed: true, ..Answers::soundly() } => [
        "filters/a_page_goes_on_without_its_last_entry",
        "filters/numbers_to_the_last_bit",
        "names/alike_are_distinct_in_metadata",
        "query/injection_is_literal",
        "query/limits_and_continuation",
        "query/long_texts_and_tags",
        "query/order_and_ties",
        "query/random_vs_oracle",
    ];
    continues_behind_ties = Answers { behind_ties: true, ..Answers::soundly() } => [
        "filters/numbers_to_the_last_bit",
        "query/limits_and_continuation",
        "query/random_vs_oracle",
    ];
    query_prefix_is_by_segment = Answers { by_segment: true, ..Answers::soundly() } => [
        "counts/of_tags_and_fields",
        "keys/every_length_in_queries",
        "names/a_prefix_reaches_to_its_end",
        "query/injection_is_literal",
        "query/prefix",
        "query/random_vs_oracle",
    ];
}

/// Evaluates as the reference does, but for one thing.
#[derive(Debug)]
struct Answers {
    filter: fn(Filter) -> Filter,
    metadata: fn(&Query, Metadata) -> Metadata,
    ties_reversed: bool,
    behind_ties: bool,
    by_segment: bool,
}

impl Answers {
    fn soundly() -> Self {
        Self {
            filter: |filter| filter,
            metadata: |_, metadata| metadata,
            ties_reversed: false,
            behind_ties: false,
            by_segment: false,
        }
    }

    fn to(filter: fn(Filter) -> Filter) -> Self {
        Self { filter, ..Self::soundly() }
    }

    fn over(metadata: fn(&Query, Metadata) -> Metadata) -> Self {
        Self { metadata, ..Self::soundly() }
    }

    /// What the wrong evaluation takes the entry for.
    fn seen(&self, query: &Query, entry: &Entry) -> Entry {
        let mut seen = entry.clone();
        let metadata = entry.metadata.as_deref().cloned().unwrap_or_default();
        seen.metadata = Some((self.metadata)(query, metadata).into());
        seen
    }
}

#[async_trait]
impl Fault for Answers {
    async fn query(&self, s: Sides<'_>, mut query: Query) -> Result<EntryStream> {
        query.filters = std::mem::take(&mut query.filters).into_iter().map(self.filter).collect();
        // The values in the query are taken for the same as those in the store.
        for filter in &mut query.filters {
            if let Filter::Field { value, .. } = filter {
                let one = Metadata::new().field("value", value.clone());
                let seen = (self.metadata)(&Query::new(), one);
                *value = seen.fields.get("value").cloned().unwrap_or(FieldValue::Null);
            }
        }
        let options = ListOptions::new().prefix(query.prefix.as_str()).metadata(true);
        let entries: Vec<Entry> = defaults::entries(s.inner.list(options).await?).try_collect().await?;
        let mut found: Vec<(Entry, Entry)> = entries
            .into_iter()
            .map(|entry| (self.seen(&query, &entry), entry))
            .filter(|(seen, _)| query.matches(seen))
            .collect();
        found.retain(|(seen, _)| match &query.continuation {
            Some(from) if self.behind_ties && query.order.by != OrderBy::Key => {
                from.sort_key() != query.continuation_after(seen).sort_key() && query.continues_with(seen)
            }
            _ => query.continues_with(seen),
        });
        if self.by_segment && !query.prefix.is_empty() && !query.prefix.ends_with('/') {
            let rest = |key: &str| key.get(query.prefix.len()..).unwrap_or_default().to_owned();
            found.retain(|(seen, _)| rest(seen.key.as_str()).is_empty() || rest(seen.key.as_str()).starts_with('/'));
        }
        found.sort_by(|(a, _), (b, _)| {
            let (rank_a, rank_b) = (query.continuation_after(a), query.continuation_after(b));
            let tie = self.ties_reversed && query.order.by != OrderBy::Key && rank_a.sort_key() == rank_b.sort_key();
            if tie { b.key.cmp(&a.key) } else { query.compare(a, b) }
        });
        found.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(streamed(found.into_iter().map(|(_, entry)| entry).collect()))
    }
}

#[derive(Debug)]
struct LastFilter;

#[async_trait]
impl Fault for LastFilter {
    async fn query(&self, s: Sides<'_>, mut query: Query) -> Result<EntryStream> {
        let mut seen = BTreeSet::new();
        let filters = std::mem::take(&mut query.filters).into_iter().rev();
        let filters = filters.filter(|filter| match filter {
            Filter::Field { name, .. } => seen.insert(name.clone()),
            _ => true,
        });
        let mut filters: Vec<Filter> = filters.collect();
        filters.reverse();
        query.filters = filters;
        s.inner.query(query).await
    }
}

/// Goes on behind the entry that came last, and has nothing more if that is gone.
#[derive(Debug)]
struct NeedsItsEntry;

#[async_trait]
impl Fault for NeedsItsEntry {
    async fn query(&self, s: Sides<'_>, query: Query) -> Result<EntryStream> {
        if let Some(continuation) = &query.continuation
            && s.inner.stat(continuation.key(), StatOptions::new()).await?.is_none()
        {
            return Ok(streamed(Vec::new()));
        }
        s.inner.query(query).await
    }
}

fn change(mut metadata: Metadata, value: fn(FieldValue) -> FieldValue) -> Metadata {
    metadata.fields = metadata.fields.into_iter().map(|(name, field)| (name, value(field))).collect();
    metadata
}

fn with_nulls(query: &Query, mut metadata: Metadata) -> Metadata {
    for filter in &query.filters {
        if let Filter::Field { name, .. } = filter {
            metadata.fields.entry(name.clone()).or_insert(FieldValue::Null);
        }
    }
    metadata
}
