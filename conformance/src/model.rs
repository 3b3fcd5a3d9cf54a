//! The plainest store there could be: an ordered map, and no line that is there for speed. What it answers is what the contract says, so
//! checks hold stores, and the query evaluator of `storage-core`, against it.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use storage_core::{
    Bytes, Comparison, Condition, Entry, ErrorKind, Etag, FieldValue, Filter, Metadata, OrderBy, Query,
};

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) bytes: Bytes,
    pub(crate) metadata: Arc<Metadata>,
    /// As the store under test has named it.
    pub(crate) etag: Option<Etag>,
}

/// Keys and what they hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(pub(crate) BTreeMap<String, Value>);

impl Model {
    /// Whether a condition on this key holds.
    pub(crate) fn check(&self, key: &str, condition: Option<&Condition>) -> Result<(), ErrorKind> {
        let current = self.0.get(key);
        match condition {
            Some(Condition::IfAbsent) if current.is_some() => Err(ErrorKind::AlreadyExists),
            Some(Condition::IfMatch(etag)) if current.and_then(|value| value.etag.as_ref()) != Some(etag) => {
                Err(ErrorKind::PreconditionFailed)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn put(&mut self, key: &str, value: Value, condition: Option<&Condition>) -> Result<(), ErrorKind> {
        self.check(key, condition)?;
        self.0.insert(key.to_owned(), value);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &str, condition: Option<&Condition>) -> Result<(), ErrorKind> {
        self.check(key, condition)?;
        self.0.remove(key);
        Ok(())
    }

    /// With other metadata if some are given, and under a new etag.
    pub(crate) fn copy(
        &mut self,
        from: &str,
        to: &str,
        metadata: Option<Arc<Metadata>>,
        etag: Option<Etag>,
    ) -> Result<(), ErrorKind> {
        let source = self.0.get(from).cloned().ok_or(ErrorKind::NotFound)?;
        let metadata = metadata.unwrap_or(source.metadata);
        self.0.insert(to.to_owned(), Value { metadata, etag, ..source });
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str, etag: Option<Etag>) -> Result<(), ErrorKind> {
        self.copy(from, to, None, etag)?;
        if from != to {
            self.0.remove(from);
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self, prefix: &str) {
        self.0.retain(|key, _| !key.starts_with(prefix));
    }

    /// The keys of a listing, and with a delimiter the common prefixes, in order.
    pub(crate) fn list(&self, prefix: &str, after: Option<&str>, delimited: bool, limit: usize) -> Vec<String> {
        let mut listed = Vec::new();
        for key in self.0.keys().filter(|key| key.starts_with(prefix)) {
            let item = match key[prefix.len()..].find('/').filter(|_| delimited) {
                Some(slash) => &key[..=prefix.len() + slash],
                None => key,
            };
            if after.is_none_or(|after| item > after) && listed.last().is_none_or(|last| last != item) {
                listed.push(item.to_owned());
            }
        }
        listed.truncate(limit);
        listed
    }
}

/// The answer to a query over these entries.
pub(crate) fn answer(data: &[Entry], query: &Query) -> Vec<Entry> {
    let mut found = Vec::new();
    for entry in data {
        let behind = match &query.continuation {
            Some(from) => {
                let by_order = directed(by_order(&order_of(entry, &query.order.by), from.sort_key()), query);
                let by_key = directed_key(entry.key.as_str().cmp(from.key().as_str()), query);
                by_order.then(by_key).is_gt()
            }
            None => true,
        };
        if behind && entry.key.as_str().starts_with(&query.prefix) && query.filters.iter().all(|f| passes(entry, f)) {
            found.push(entry.clone());
        }
    }
    found.sort_by(|a, b| {
        let by = &query.order.by;
        let first = directed(by_order(&order_of(a, by), &order_of(b, by)), query);
        first.then(directed_key(a.key.as_str().cmp(b.key.as_str()), query))
    });
    found.truncate(query.limit.unwrap_or(usize::MAX));
    found
}

fn passes(entry: &Entry, filter: &Filter) -> bool {
    let none = Metadata::new();
    let metadata = entry.metadata.as_deref().unwrap_or(&none);
    match filter {
        Filter::Field { name, comparison, value } => match metadata.fields.get(name) {
            Some(field) => compares(field, *comparison, value),
            None => false,
        },
        Filter::ContentType(media_type) => metadata.content_type.as_deref() == Some(media_type),
        Filter::AnyTag(tags) => tags.iter().any(|tag| metadata.tags.contains(tag)),
        Filter::AllTags(tags) => tags.iter().all(|tag| metadata.tags.contains(tag)),
        Filter::MinSize(least) => entry.size >= *least,
        Filter::MaxSize(most) => entry.size <= *most,
        Filter::ModifiedAfter(time) => entry.modified > Some(*time),
        Filter::ModifiedBefore(time) => entry.modified.is_some() && entry.modified < Some(*time),
        Filter::CreatedAfter(time) => entry.created > Some(*time),
        Filter::CreatedBefore(time) => entry.created.is_some() && entry.created < Some(*time),
        // A filter that the suite does not know yet must not seem to pass.
        _ => false,
    }
}

/// Only values of one type have an order; different types are different, no more.
fn compares(field: &FieldValue, comparison: Comparison, value: &FieldValue) -> bool {
    use FieldValue::{Bool, Float, Int, Null, String};

    let order = match (field, value) {
        (Null, Null) => Some(Ordering::Equal),
        (Bool(a), Bool(b)) => Some(a.cmp(b)),
        (Int(a), Int(b)) => Some(a.cmp(b)),
        (Float(a), Float(b)) => a.partial_cmp(b),
        (String(a), String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        _ => None,
    };
    match (comparison, order) {
        (Comparison::NotEqual, None) => true,
        (_, None) => false,
        (Comparison::Equal, Some(order)) => order == Ordering::Equal,
        (Comparison::NotEqual, Some(order)) => order != Ordering::Equal,
        (Comparison::Less, Some(order)) => order == Ordering::Less,
        (Comparison::LessOrEqual, Some(order)) => order != Ordering::Greater,
        (Comparison::Greater, Some(order)) => order == Ordering::Greater,
        (Comparison::GreaterOrEqual, Some(order)) => order != Ordering::Less,
        // One that the suite does not know yet must not seem to hold.
        (_, Some(_)) => false,
    }
}

/// What an entry is ordered by.
fn order_of(entry: &Entry, by: &OrderBy) -> storage_core::SortKey {
    use storage_core::SortKey;

    match by {
        OrderBy::Size => SortKey::Size(entry.size),
        OrderBy::Created => entry.created.map_or(SortKey::Missing, SortKey::Time),
        OrderBy::Modified => entry.modified.map_or(SortKey::Missing, SortKey::Time),
        OrderBy::Field(name) => match entry.metadata.as_ref().and_then(|metadata| metadata.fields.get(name)) {
            Some(FieldValue::Null) => SortKey::Null,
            Some(FieldValue::Bool(value)) => SortKey::Bool(*value),
            Some(FieldValue::Int(value)) => SortKey::Int(*value),
            Some(FieldValue::Float(value)) => SortKey::Float(*value),
            Some(FieldValue::String(value)) => SortKey::String(value.clone()),
            _ => SortKey::Missing,
        },
        _ => SortKey::Missing,
    }
}

/// Missing, then null, booleans, integers, floats, texts; each in its own order.
fn by_order(a: &storage_core::SortKey, b: &storage_core::SortKey) -> Ordering {
    use storage_core::SortKey::{Bool, Float, Int, Size, String, Time};

    match (a, b) {
        (Bool(a), Bool(b)) => a.cmp(b),
        (Size(a), Size(b)) => a.cmp(b),
        (Int(a), Int(b)) => a.cmp(b),
        (Float(a), Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (String(a), String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Time(a), Time(b)) => a.cmp(b),
        _ => kind(a).cmp(&kind(b)),
    }
}

fn kind(key: &storage_core::SortKey) -> u8 {
    use storage_core::SortKey::{Bool, Float, Int, Missing, Null, Size, String, Time};

    match key {
        Missing => 0,
        Null => 1,
        Bool(_) => 2,
        Size(_) => 3,
        Int(_) => 4,
        Float(_) => 5,
        String(_) => 6,
        Time(_) => 7,
        _ => 8,
    }
}

fn directed(order: Ordering, query: &Query) -> Ordering {
    if query.order.descending { order.reverse() } else { order }
}

/// Ties are broken by ascending key in both directions; the key itself can be what is ordered by.
fn directed_key(order: Ordering, query: &Query) -> Ordering {
    if query.order.by == OrderBy::Key { directed(order, query) } else { order }
}
