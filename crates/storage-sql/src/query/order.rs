//! The order of a query and the point where an earlier page ended, as the core defines them.

use std::time::SystemTime;

use storage_core::{Continuation, Order, OrderBy, SortKey};

use super::{BOOL, Clause, FLOAT, INT, NULL, TEXT};
use crate::{dialect::Tables, value::Value};

/// The numbers of the ranks that are no types of fields.
const SIZE: i64 = 3;
const TIME: i64 = 7;

/// What must be joined for an order, and the order itself; `None` when the core learned it later.
pub(super) fn order(tables: &Tables, order: &Order) -> Option<(Clause, String)> {
    let direction = if order.descending { "DESC" } else { "ASC" };
    let by = match &order.by {
        OrderBy::Key => return Some((Clause::new("", []), format!("e.entry_key {direction}"))),
        OrderBy::Field(name) => {
            let join = format!(" LEFT JOIN {} o ON o.entry = e.id AND o.name = ?", tables.fields);
            let columns = ["coalesce(o.kind, 0)", "o.int_value", "o.float_value", "o.text_value"]
                .map(|column| format!("{column} {direction}"))
                .join(", ");
            return Some((Clause::new(join, [Value::bytes(name)]), format!("{columns}, e.entry_key ASC")));
        }
        by => column(by)?,
    };
    Some((Clause::new("", []), format!("{by} {direction}, e.entry_key ASC")))
}

/// Only what lies behind an earlier page; `None` as for [`order`].
pub(super) fn behind(from: &Continuation) -> Option<Clause> {
    let descending = from.order().descending;
    let beyond = if descending { "<" } else { ">" };
    let key = Value::from(from.key());
    Some(match &from.order().by {
        OrderBy::Key => Clause::new(format!("e.entry_key {beyond} ?"), [key]),
        OrderBy::Field(_) => {
            let (kind, value) = match from.sort_key() {
                SortKey::Missing => (0, None),
                SortKey::Null => (NULL, None),
                SortKey::Bool(value) => (BOOL, Some(("o.int_value", Value::Int((*value).into())))),
                SortKey::Int(value) => (INT, Some(("o.int_value", Value::Int(*value)))),
                SortKey::Float(value) => (FLOAT, Some(("o.float_value", Value::Float(*value)))),
                SortKey::String(value) => (TEXT, Some(("o.text_value", Value::bytes(value)))),
                SortKey::Size(_) => (SIZE, None),
                SortKey::Time(_) => (TIME, None),
                _ => return None,
            };
            let (within, value) = match value {
                None => ("e.entry_key > ?".to_owned(), None),
                Some((column, value)) => {
                    (format!("({column} {beyond} ? OR ({column} = ? AND e.entry_key > ?))"), Some(value))
                }
            };
            let sql = format!("(coalesce(o.kind, 0) {beyond} ? OR (coalesce(o.kind, 0) = ? AND {within}))");
            let values = [value.clone(), value].into_iter().flatten();
            let kinds = [kind.into(), kind.into()];
            Clause::new(sql, kinds.into_iter().chain(values).chain([key]))
        }
        by => {
            let (kind, at) = match from.sort_key() {
                SortKey::Size(size) => (SIZE, i64::try_from(*size).map(Instant::exactly).ok()),
                SortKey::Time(time) => (TIME, Some(Instant::new(*time))),
                SortKey::Missing | SortKey::Null | SortKey::Bool(_) => (0, None),
                SortKey::Int(_) | SortKey::Float(_) | SortKey::String(_) => (INT, None),
                _ => return None,
            };
            let own = if *by == OrderBy::Size { SIZE } else { TIME };
            let column = column(by)?;
            match at.filter(|_| kind == own) {
                // All values of the column have another kind than the rank, and kinds are ordered.
                None => Clause::constant(if kind == own { descending } else { (own > kind) != descending }),
                Some(at) if at.exact => Clause::new(
                    format!("({column} {beyond} ? OR ({column} = ? AND e.entry_key > ?))"),
                    [at.floor.into(), at.floor.into(), key],
                ),
                Some(at) => {
                    let bound = if descending { at.ceiling() } else { at.floor };
                    Clause::new(format!("{column} {beyond} ?"), [bound.into()])
                }
            }
        }
    })
}

fn column(by: &OrderBy) -> Option<&'static str> {
    match by {
        OrderBy::Size => Some("e.size"),
        OrderBy::Created => Some("e.created_at"),
        OrderBy::Modified => Some("e.updated_at"),
        _ => None,
    }
}

/// A moment in the microseconds that the database has.
pub(super) struct Instant {
    /// The last microsecond that is not later.
    pub(super) floor: i64,
    /// Whether it is that very microsecond.
    exact: bool,
}

impl Instant {
    pub(super) fn new(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self {
                floor: i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
                exact: since.subsec_nanos() % 1000 == 0,
            },
            // Before 1970, and so before anything was stored.
            Err(_) => Self { floor: -1, exact: false },
        }
    }

    fn exactly(floor: i64) -> Self {
        Self { floor, exact: true }
    }

    /// The first microsecond that is not earlier.
    pub(super) fn ceiling(&self) -> i64 {
        self.floor.saturating_add(i64::from(!self.exact))
    }
}
