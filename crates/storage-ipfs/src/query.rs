//! Listings and queries: the index answers them, about records in place of entries.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    Comparison, Continuation, Entry, EntryStream, FieldValue, Filter, ListItem, ListOptions, ListStream, Metadata,
    OrderBy, Query, Result, SortKey, StorageBackend,
};

use crate::record::{self, Names, SIZE};

/// A listing as the index sees it. Sizes are in the metadata of records, so that it is always asked for.
pub(crate) async fn list(index: &dyn StorageBackend, names: &Names, options: ListOptions) -> Result<ListStream> {
    let mut asked =
        ListOptions::new().prefix(names.prefix(&options.prefix)).metadata(true).delimited(options.delimited);
    asked.start_after = options.start_after.as_deref().map(|after| names.prefix(after));
    asked.limit = options.limit;
    asked.etags = options.etags;
    let (names, metadata) = (names.clone(), options.metadata);
    let items = index.list(asked).await?.map(move |item| match item? {
        ListItem::Prefix(prefix) => Ok(ListItem::Prefix(names.within(&prefix).to_owned())),
        ListItem::Entry(record) => {
            let mut entry = record::entry(record, &names)?;
            entry.metadata = entry.metadata.filter(|_| metadata);
            Ok(ListItem::Entry(entry))
        }
        other => Ok(other),
    });
    Ok(items.boxed())
}

pub(crate) async fn query(index: &dyn StorageBackend, names: &Names, query: Query) -> Result<EntryStream> {
    query.validate()?;
    let Some(asked) = translated(names, &query)? else { return Ok(futures_util::stream::empty().boxed()) };
    let names = names.clone();
    let entries = index.query(asked).await?;
    let entries = entries.and_then(move |record| std::future::ready(record::entry(record, &names)));
    // A damaged record may have fields left.
    Ok(entries.try_filter(move |entry| std::future::ready(entry.damaged.is_none() || query.matches(entry))).boxed())
}

/// The same question about records; `None` for one that nothing can answer.
fn translated(names: &Names, query: &Query) -> Result<Option<Query>> {
    let mut asked = Query::new().prefix(names.prefix(&query.prefix));
    let size = |comparison, size: u64| i64::try_from(size).ok().map(|size| size_filter(comparison, size));
    for filter in &query.filters {
        asked.filters.push(match filter {
            Filter::Field { name, comparison, value } => {
                Filter::Field { name: record::field(name), comparison: *comparison, value: value.clone() }
            }
            // A damaged record has no size, and a filter that everything passes is one on its metadata all the same.
            Filter::AllTags(tags) if tags.is_empty() => size_filter(Comparison::GreaterOrEqual, 0),
            Filter::MinSize(0) => continue,
            Filter::MinSize(least) => match size(Comparison::GreaterOrEqual, *least) {
                Some(filter) => filter,
                None => return Ok(None),
            },
            Filter::MaxSize(most) => match size(Comparison::LessOrEqual, *most) {
                Some(filter) => filter,
                // Whatever there is, is smaller.
                None => continue,
            },
            other => other.clone(),
        });
    }
    asked.order.descending = query.order.descending;
    asked.order.by = match &query.order.by {
        OrderBy::Field(name) => OrderBy::Field(record::field(name)),
        OrderBy::Size => OrderBy::Field(SIZE.into()),
        other => other.clone(),
    };
    asked.limit = query.limit;
    if let Some(from) = &query.continuation {
        asked.continuation = Some(continued(&asked, from, names)?);
    }
    Ok(Some(asked))
}

fn size_filter(comparison: Comparison, size: i64) -> Filter {
    Filter::Field { name: SIZE.into(), comparison, value: FieldValue::Int(size) }
}

/// The same point among records: behind a record that is ordered as the entry was.
fn continued(asked: &Query, from: &Continuation, names: &Names) -> Result<Continuation> {
    let mut last = Entry::new(names.key(from.key())?, 0);
    match (&asked.order.by, from.sort_key()) {
        (OrderBy::Created, SortKey::Time(time)) => last.created = Some(*time),
        (OrderBy::Modified, SortKey::Time(time)) => last.modified = Some(*time),
        (OrderBy::Field(name), key) => {
            let value = match key {
                SortKey::Size(size) => Some(FieldValue::Int(i64::try_from(*size).unwrap_or(i64::MAX))),
                SortKey::Null => Some(FieldValue::Null),
                SortKey::Bool(value) => Some(FieldValue::Bool(*value)),
                SortKey::Int(value) => Some(FieldValue::Int(*value)),
                SortKey::Float(value) => Some(FieldValue::Float(*value)),
                SortKey::String(value) => Some(FieldValue::String(value.clone())),
                _ => None,
            };
            let mut metadata = Metadata::new();
            metadata.fields.extend(value.map(|value| (name.clone(), value)));
            last.metadata = Some(Arc::new(metadata));
        }
        _ => {}
    }
    Ok(asked.continuation_after(&last))
}
