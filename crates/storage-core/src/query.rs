//! Questions about metadata, and the one evaluator that says what the right answer is.

mod evaluate;
mod order;

use std::{collections::BTreeSet, time::SystemTime};

use serde::{Deserialize, Serialize};

pub use order::{Continuation, Order, OrderBy, SortKey};

use crate::{Error, ErrorKind, FieldValue, Result, check::check_prefix};

/// How a field is compared. Only values of the same type are ordered; a missing field matches no comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Comparison {
    /// Same type and value.
    Equal,
    /// The field exists with another value or type.
    NotEqual,
    /// Same type and less. Texts compare bytewise, `false` is less than `true`.
    Less,
    /// Same type and less or equal.
    LessOrEqual,
    /// Same type and greater.
    Greater,
    /// Same type and greater or equal.
    GreaterOrEqual,
}

impl Comparison {
    /// Every comparison.
    pub const ALL: [Comparison; 6] =
        [Self::Equal, Self::NotEqual, Self::Less, Self::LessOrEqual, Self::Greater, Self::GreaterOrEqual];
}

/// One condition on an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Filter {
    /// A metadata field compares so with a value.
    Field {
        /// The field's name.
        name: String,
        /// How to compare.
        comparison: Comparison,
        /// With what.
        value: FieldValue,
    },
    /// The content type is this one.
    ContentType(String),
    /// At least one of these tags is set. No tags match nothing.
    AnyTag(BTreeSet<String>),
    /// All of these tags are set. No tags match everything.
    AllTags(BTreeSet<String>),
    /// The value has at least so many bytes.
    MinSize(u64),
    /// The value has at most so many bytes.
    MaxSize(u64),
    /// Written after this moment. An entry without the date does not match; so for the other three.
    ModifiedAfter(SystemTime),
    /// Written before this moment.
    ModifiedBefore(SystemTime),
    /// First written after this moment.
    CreatedAfter(SystemTime),
    /// First written before this moment.
    CreatedBefore(SystemTime),
}

/// Which entries, in which order, how many, and from where on.
///
/// The answer is the same on every backend: that of the evaluator in this module over a full listing.
///
/// ```
/// use storage_core::{Comparison, OrderBy, Query};
/// let drafts = Query::new()
///     .prefix("docs/")
///     .any_tag(["draft", "review"])
///     .field("pages", Comparison::GreaterOrEqual, 10)
///     .descending(OrderBy::Modified)
///     .limit(20);
/// # let _ = drafts;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Query {
    /// Only keys that start with this literal text.
    pub prefix: String,
    /// All of these must hold.
    pub filters: Vec<Filter>,
    /// The order; ties are broken by ascending key.
    pub order: Order,
    /// At most so many entries.
    pub limit: Option<usize>,
    /// Only entries behind this point of the same order.
    pub continuation: Option<Continuation>,
}

impl Query {
    /// Everything, by key.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only keys that start with this literal text.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds a condition; all must hold.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }

    /// Only entries whose field equals this value, type included.
    #[must_use]
    pub fn equals(self, name: impl Into<String>, value: impl Into<FieldValue>) -> Self {
        self.field(name, Comparison::Equal, value)
    }

    /// Only entries whose field compares so.
    #[must_use]
    pub fn field(self, name: impl Into<String>, comparison: Comparison, value: impl Into<FieldValue>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.filter(Filter::Field { name, comparison, value })
    }

    /// Only entries with at least one of these tags.
    #[must_use]
    pub fn any_tag<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        self.filter(Filter::AnyTag(tags.into_iter().map(Into::into).collect()))
    }

    /// Only entries with all of these tags.
    #[must_use]
    pub fn all_tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        self.filter(Filter::AllTags(tags.into_iter().map(Into::into).collect()))
    }

    /// The order, ascending.
    #[must_use]
    pub fn ascending(mut self, by: OrderBy) -> Self {
        self.order = Order { by, descending: false };
        self
    }

    /// The order, descending. Ties are still broken by ascending key.
    #[must_use]
    pub fn descending(mut self, by: OrderBy) -> Self {
        self.order = Order { by, descending: true };
        self
    }

    /// At most so many entries.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Goes on behind an earlier page. The other parts of the query should be those of that page.
    #[must_use]
    pub fn continuation(mut self, continuation: Continuation) -> Self {
        self.continuation = Some(continuation);
        self
    }

    /// Whether the query means something.
    ///
    /// # Errors
    /// `InvalidInput` for a float that is not finite, a text with a NUL, a moment before 1970, or a continuation of another order;
    /// `InvalidKey` for a prefix with a NUL.
    pub fn validate(&self) -> Result<()> {
        check_prefix(&self.prefix)?;
        let wrong = |what: &str| Err(Error::new(ErrorKind::InvalidInput, what));
        for filter in &self.filters {
            let mut texts: Vec<&String> = Vec::new();
            match filter {
                Filter::Field { value: FieldValue::Float(float), .. } if !float.is_finite() => {
                    return wrong("a query cannot compare with a number that is not finite");
                }
                Filter::Field { name, value, .. } => {
                    texts.push(name);
                    if let FieldValue::String(text) = value {
                        texts.push(text);
                    }
                }
                Filter::ContentType(text) => texts.push(text),
                Filter::AnyTag(tags) | Filter::AllTags(tags) => texts.extend(tags),
                Filter::ModifiedAfter(time)
                | Filter::ModifiedBefore(time)
                | Filter::CreatedAfter(time)
                | Filter::CreatedBefore(time) => {
                    if *time < SystemTime::UNIX_EPOCH {
                        return wrong("a query cannot compare with a moment before 1970");
                    }
                }
                Filter::MinSize(_) | Filter::MaxSize(_) => {}
            }
            if texts.iter().any(|text| text.contains('\0')) {
                return wrong("a text in the query contains a NUL, which no metadata can");
            }
        }
        if let OrderBy::Field(name) = &self.order.by
            && name.contains('\0')
        {
            return wrong("the field to order by contains a NUL");
        }
        match &self.continuation {
            Some(continuation) if *continuation.order() != self.order => {
                wrong("the continuation belongs to a query with another order")
            }
            _ => Ok(()),
        }
    }
}
