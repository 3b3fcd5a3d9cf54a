//! The reference evaluator: what a native implementation must agree with.

use std::cmp::Ordering;

use futures_util::{StreamExt, TryStreamExt, future::ready};

use super::{Comparison, Continuation, Filter, OrderBy, Query};
use crate::{Entry, EntryStream, FieldValue, Metadata, Result};

impl Query {
    /// Whether the entry has the prefix and passes all filters. Metadata that was not loaded counts as empty; a damaged entry
    /// passes no filter on metadata.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        entry.key.as_str().starts_with(&self.prefix) && self.filters.iter().all(|filter| filter.matches(entry))
    }

    /// The order of two entries under this query. Never equal for different keys.
    #[must_use]
    pub fn compare(&self, a: &Entry, b: &Entry) -> Ordering {
        let order = &self.order;
        order.compare((&order.sort_key(a), &a.key), (&order.sort_key(b), &b.key))
    }

    /// Whether the entry lies behind the continuation, if there is one.
    #[must_use]
    pub fn continues_with(&self, entry: &Entry) -> bool {
        self.continuation.as_ref().is_none_or(|from| {
            let sort_key = self.order.sort_key(entry);
            self.order.compare((&sort_key, &entry.key), (from.sort_key(), from.key())).is_gt()
        })
    }

    /// The point behind this entry, for the next page.
    #[must_use]
    pub fn continuation_after(&self, entry: &Entry) -> Continuation {
        Continuation::after(&self.order, entry)
    }

    /// The answer over a listing (with metadata, in key order) of at least everything with the prefix.
    ///
    /// By ascending key it is streamed. In any other order all matching entries are held in memory and sorted.
    ///
    /// # Errors
    /// What the listing fails with.
    pub async fn evaluate(self, listing: EntryStream) -> Result<EntryStream> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let streamed = self.order.by == OrderBy::Key && !self.order.descending;
        let query = self.clone();
        let matching = listing.try_filter(move |entry| ready(query.matches(entry) && query.continues_with(entry)));
        if streamed {
            return Ok(matching.take(limit).boxed());
        }
        let mut entries: Vec<Entry> = matching.try_collect().await?;
        entries.sort_unstable_by(|a, b| self.compare(a, b));
        entries.truncate(limit);
        Ok(futures_util::stream::iter(entries.into_iter().map(Ok)).boxed())
    }
}

impl Filter {
    /// Whether the filter asks for metadata: fields, content type, tags.
    #[must_use]
    pub fn is_on_metadata(&self) -> bool {
        match self {
            Self::Field { .. } | Self::ContentType(_) | Self::AnyTag(_) | Self::AllTags(_) => true,
            Self::MinSize(_) | Self::MaxSize(_) => false,
            Self::ModifiedAfter(_) | Self::ModifiedBefore(_) => false,
            Self::CreatedAfter(_) | Self::CreatedBefore(_) => false,
        }
    }

    /// Whether any listing, without metadata too, has what the filter asks for.
    pub(crate) fn is_on_every_listing(&self) -> bool {
        matches!(self, Self::MinSize(_) | Self::MaxSize(_) | Self::ModifiedAfter(_) | Self::ModifiedBefore(_))
    }

    fn matches(&self, entry: &Entry) -> bool {
        // What the metadata would be, nobody knows: not even that no tag is asked for holds of it.
        if entry.damaged.is_some() && self.is_on_metadata() {
            return false;
        }
        let none = &Metadata::default();
        let metadata = entry.metadata.as_deref().unwrap_or(none);
        match self {
            Self::Field { name, comparison, value } => {
                metadata.fields.get(name).is_some_and(|field| comparison.holds(field, value))
            }
            Self::ContentType(media_type) => metadata.content_type.as_ref() == Some(media_type),
            Self::AnyTag(tags) => !tags.is_disjoint(&metadata.tags),
            Self::AllTags(tags) => tags.is_subset(&metadata.tags),
            Self::MinSize(size) => entry.size >= *size,
            Self::MaxSize(size) => entry.size <= *size,
            Self::ModifiedAfter(time) => entry.modified.is_some_and(|t| t > *time),
            Self::ModifiedBefore(time) => entry.modified.is_some_and(|t| t < *time),
            Self::CreatedAfter(time) => entry.created.is_some_and(|t| t > *time),
            Self::CreatedBefore(time) => entry.created.is_some_and(|t| t < *time),
        }
    }
}

impl Comparison {
    /// Whether `field` compares so with `value`.
    #[must_use]
    pub fn holds(self, field: &FieldValue, value: &FieldValue) -> bool {
        let ordering = match (field, value) {
            (FieldValue::Null, FieldValue::Null) => Some(Ordering::Equal),
            (FieldValue::Bool(a), FieldValue::Bool(b)) => Some(a.cmp(b)),
            (FieldValue::Int(a), FieldValue::Int(b)) => Some(a.cmp(b)),
            (FieldValue::Float(a), FieldValue::Float(b)) => a.partial_cmp(b),
            (FieldValue::String(a), FieldValue::String(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match self {
            Self::Equal => ordering == Some(Ordering::Equal),
            Self::NotEqual => ordering != Some(Ordering::Equal),
            Self::Less => ordering.is_some_and(Ordering::is_lt),
            Self::LessOrEqual => ordering.is_some_and(Ordering::is_le),
            Self::Greater => ordering.is_some_and(Ordering::is_gt),
            Self::GreaterOrEqual => ordering.is_some_and(Ordering::is_ge),
        }
    }
}
