//! The total order of entries under a query, and the point where a page ends.

use std::{cmp::Ordering, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Entry, FieldValue, Key};

/// What to order by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrderBy {
    /// The key, bytewise.
    #[default]
    Key,
    /// The size of the value.
    Size,
    /// The time of the first write; entries without it come first.
    Created,
    /// The time of the last write; entries without it come first.
    Modified,
    /// A metadata field: missing, then null, booleans, integers, floats, texts; each type in its own order.
    Field(String),
}

/// An order and its direction. Ties are broken by ascending key in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// What to order by.
    pub by: OrderBy,
    /// Whether the largest comes first.
    pub descending: bool,
}

/// What an entry is ordered by. The variants' order is the order of kinds.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SortKey {
    /// Nothing: no such date or field, or ordering by key alone.
    Missing,
    /// A null field.
    Null,
    /// A boolean field.
    Bool(bool),
    /// A size.
    Size(u64),
    /// An integer field.
    Int(i64),
    /// A float field.
    Float(f64),
    /// A text field.
    String(String),
    /// A date.
    Time(SystemTime),
}

impl Order {
    pub(super) fn sort_key(&self, entry: &Entry) -> SortKey {
        match &self.by {
            OrderBy::Key => SortKey::Missing,
            OrderBy::Size => SortKey::Size(entry.size),
            OrderBy::Created => entry.created.map_or(SortKey::Missing, SortKey::Time),
            OrderBy::Modified => entry.modified.map_or(SortKey::Missing, SortKey::Time),
            OrderBy::Field(name) => match entry.metadata.as_ref().and_then(|m| m.fields.get(name)) {
                None => SortKey::Missing,
                Some(FieldValue::Null) => SortKey::Null,
                Some(FieldValue::Bool(value)) => SortKey::Bool(*value),
                Some(FieldValue::Int(value)) => SortKey::Int(*value),
                Some(FieldValue::Float(value)) => SortKey::Float(*value),
                Some(FieldValue::String(value)) => SortKey::String(value.clone()),
            },
        }
    }

    pub(super) fn compare(&self, a: (&SortKey, &Key), b: (&SortKey, &Key)) -> Ordering {
        // Stored floats are finite, so every pair of sort keys is ordered.
        let by_sort_key = a.0.partial_cmp(b.0).unwrap_or(Ordering::Equal);
        let by_key = a.1.cmp(b.1);
        match (&self.by, self.descending) {
            (OrderBy::Key, false) => by_key,
            (OrderBy::Key, true) => by_key.reverse(),
            (_, false) => by_sort_key.then(by_key),
            (_, true) => by_sort_key.reverse().then(by_key),
        }
    }
}

/// Where a page of a query ended: the order, and the sort key and key of its last entry. Serializable, so that it can travel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuation {
    order: Order,
    sort_key: SortKey,
    key: Key,
}

impl Continuation {
    /// The point behind this entry.
    #[must_use]
    pub fn after(order: &Order, entry: &Entry) -> Self {
        Self { order: order.clone(), sort_key: order.sort_key(entry), key: entry.key.clone() }
    }

    /// The same point, its key called otherwise: for layers that store values under other keys.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }

    /// The order it belongs to.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// What the last entry was ordered by.
    #[must_use]
    pub fn sort_key(&self) -> &SortKey {
        &self.sort_key
    }

    /// The last entry's key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }
}
