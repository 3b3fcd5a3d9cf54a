//! Queries, evaluated by the database: every filter, the order, the limit and the continuation are part of the statement, and
//! every value in it is an argument.

mod order;

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use storage_core::{Comparison, Entry, EntryStream, FieldValue, Filter, ListOptions, OrderBy, Query, Result, defaults};

use crate::{
    dialect::Tables,
    query::order::Instant,
    read::{self, ENTRY},
    session::{Db, Session, Store},
    value::Value,
    write::bounds,
};

/// How many bytes of a text or tag are indexed.
pub(crate) const HEAD: usize = 255;
/// How many entries a page has at most.
const PAGE: usize = 100;
/// How many filters and arguments one statement takes; a larger query is answered by a scan.
const FILTERS: usize = 200;
const ARGUMENTS: usize = 20_000;

/// The numbers by which values of different types are ordered, as the ranks of the core are. A missing field has 0.
const NULL: i64 = 1;
const BOOL: i64 = 2;
const INT: i64 = 4;
const FLOAT: i64 = 5;
const TEXT: i64 = 6;
/// What the core learned later: it is kept in the metadata, and queries for it are evaluated here.
const OTHER: i64 = 9;

/// A part of a statement and its arguments.
#[derive(Clone, Debug)]
struct Clause {
    sql: String,
    arguments: Vec<Value>,
}

impl Clause {
    fn new(sql: impl Into<String>, arguments: impl IntoIterator<Item = Value>) -> Self {
        Self { sql: sql.into(), arguments: arguments.into_iter().collect() }
    }

    fn constant(holds: bool) -> Self {
        Self::new(if holds { "1 = 1" } else { "1 = 0" }, [])
    }
}

/// The parts of a statement that are the same for every page.
#[derive(Clone)]
struct Plan {
    query: Query,
    /// The entries, behind the index that leads to them if the query names an indexed field.
    from: String,
    join: Clause,
    filters: Vec<Clause>,
    order: String,
}

/// Entries, and what is left of the query behind them, with how many it may still yield.
type Page = (EntryStream, Option<(Plan, usize)>);

impl Session {
    pub(crate) async fn query(&self, query: Query) -> Result<EntryStream> {
        query.validate()?;
        let Some(plan) = Plan::new(&self.store, &query) else {
            return self.scan(query).await;
        };
        let left = query.limit.unwrap_or(usize::MAX);
        let session = self.clone();
        let pages = stream::try_unfold(Some((plan, left)), move |state| session.page(state));
        let entries: EntryStream = pages.try_flatten().boxed();
        defaults::begun(entries).await
    }

    /// The next entries, and what is left behind them.
    fn page(&self, state: Option<(Plan, usize)>) -> BoxFuture<'static, Result<Option<Page>>> {
        let session = self.clone();
        Box::pin(async move {
            let Some((plan, left)) = state.filter(|(_, left)| *left > 0) else {
                return Ok(None);
            };
            let size = left.min(PAGE);
            let page = session.read(move |mut db| {
                let plan = plan.clone();
                Box::pin(async move {
                    let (entries, full) = plan.page(&mut db, size).await?;
                    Ok((plan, entries, full))
                })
            });
            let (mut plan, mut entries, full): (Plan, Vec<Entry>, bool) = page.await?;
            let damaged = entries.iter().any(|entry| entry.damaged.is_some());
            if damaged && plan.query.order.by != OrderBy::Key {
                // Where it stood before it was damaged is not where it belongs.
                plan.query.limit = plan.query.limit.map(|_| left);
                return Ok(Some((session.scan(plan.query).await?, None)));
            }
            let next = entries.last().filter(|_| full).map(|last| plan.query.continuation_after(last));
            // What is told of its metadata beside the row may not be true any more.
            entries.retain(|entry| entry.damaged.is_none() || plan.query.matches(entry));
            let next = next.map(|next| {
                plan.query.continuation = Some(next);
                (plan, left - entries.len())
            });
            Ok(Some((stream::iter(entries.into_iter().map(Ok)).boxed(), next)))
        })
    }

    /// The same, evaluated here.
    fn scan(&self, query: Query) -> BoxFuture<'static, Result<EntryStream>> {
        let (session, options) = (self.clone(), ListOptions::new().prefix(query.prefix.as_str()).metadata(true));
        Box::pin(async move { query.evaluate(defaults::entries(session.list(options).await?)).await })
    }
}

impl Plan {
    /// `None` when the statement would be too long, or when the query asks what this version of the crate does not know.
    fn new(store: &Store, query: &Query) -> Option<Self> {
        let (join, order) = order::order(&store.tables, &query.order)?;
        if let Some(from) = &query.continuation {
            order::behind(from)?;
        }
        let (entries, fields) = (&store.tables.entries, &store.tables.fields);
        let leading = leading(store, &query.filters);
        let from = match leading {
            Some(_) => format!("{fields} f JOIN {entries} e ON e.id = f.entry"),
            None => format!("{entries} e"),
        };
        let filters = query.filters.iter().enumerate().map(|(i, filter)| match filter {
            Filter::Field { name, comparison, value } if leading == Some(i) => {
                indexed(store.indexed.get(name)?, *comparison, value)
            }
            filter => condition(store, filter),
        });
        let filters: Vec<Clause> = filters.collect::<Option<_>>()?;
        let arguments: usize = filters.iter().map(|filter| filter.arguments.len()).sum();
        (filters.len() <= FILTERS && arguments <= ARGUMENTS).then(|| Self {
            query: query.clone(),
            from,
            join,
            filters,
            order,
        })
    }

    /// The next entries, and whether there may be more behind them.
    async fn page(&self, db: &mut Db<'_>, size: usize) -> Result<(Vec<Entry>, bool)> {
        let mut clauses = vec![Clause::new("e.entry_key >= ? AND e.entry_key < ?", bounds(&self.query.prefix))];
        clauses.extend(self.filters.iter().cloned());
        clauses.extend(self.query.continuation.as_ref().and_then(order::behind));
        let conditions: Vec<&str> = clauses.iter().map(|clause| clause.sql.as_str()).collect();
        let sql = format!(
            "SELECT e.entry_key, {ENTRY}, e.metadata FROM {}{} WHERE {} ORDER BY {} LIMIT ?",
            self.from,
            self.join.sql,
            conditions.join(" AND "),
            self.order,
        );
        let mut arguments = self.join.arguments.clone();
        arguments.extend(clauses.into_iter().flat_map(|clause| clause.arguments));
        arguments.push((size as i64).into());
        let rows = db.fetch(sql, arguments).await?;
        let full = rows.len() == size;
        let mut entries = Vec::with_capacity(rows.len());
        for mut row in rows {
            let Some(key) = read::key(&row.bytes()?) else {
                continue;
            };
            let entry = read::entry(key, db.store.versions.is_some(), &mut row);
            entries.push(read::described(entry, &mut row));
        }
        match entries.is_empty() && full {
            // Nothing says where to go on, and ending here would pass for a complete answer.
            true => Err(read::damaged()),
            false => Ok((entries, full)),
        }
    }
}

/// The type and the three value columns of a field.
pub(crate) fn columns(value: &FieldValue) -> [Value; 4] {
    use Value::Null;
    match value {
        FieldValue::Null => [NULL.into(), Null, Null, Null],
        FieldValue::Bool(value) => [BOOL.into(), i64::from(*value).into(), Null, Null],
        FieldValue::Int(value) => [INT.into(), (*value).into(), Null, Null],
        FieldValue::Float(value) => [FLOAT.into(), Null, Value::Float(*value), Null],
        FieldValue::String(value) => [TEXT.into(), Null, Null, Value::bytes(value)],
        _ => [OTHER.into(), Null, Null, Null],
    }
}

/// What a filter asks; `None` when it is of a kind that the core learned later.
fn condition(store: &Store, filter: &Filter) -> Option<Clause> {
    let Tables { tags, .. } = &store.tables;
    // Only the beginning of a tag is indexed.
    let tagged = |wanted: &BTreeSet<String>| {
        let places = vec!["?"; wanted.len()].join(", ");
        let sql = format!("SELECT t.entry FROM {tags} t WHERE t.head IN ({places}) AND t.tag IN ({places})");
        (sql, wanted.iter().map(|tag| head(tag)).chain(wanted.iter().map(Value::bytes)).collect::<Vec<_>>())
    };
    let after = |column: &str, moment: &_| Clause::new(format!("{column} > ?"), [Instant::new(*moment).floor.into()]);
    let before =
        |column: &str, moment: &_| Clause::new(format!("{column} < ?"), [Instant::new(*moment).ceiling().into()]);
    Some(match filter {
        Filter::Field { name, comparison, value } => return field(store, name, *comparison, value),
        Filter::ContentType(media_type) => Clause::new("e.content_type = ?", [Value::bytes(media_type)]),
        Filter::AnyTag(wanted) if wanted.is_empty() => Clause::constant(false),
        Filter::AnyTag(wanted) => {
            let (sql, arguments) = tagged(wanted);
            Clause::new(format!("e.id IN ({sql})"), arguments)
        }
        Filter::AllTags(wanted) if wanted.is_empty() => Clause::constant(true),
        Filter::AllTags(wanted) => {
            let (sql, arguments) = tagged(wanted);
            let sql = format!("e.id IN ({sql} GROUP BY t.entry HAVING count(*) = ?)");
            let count = Value::Int(wanted.len() as i64);
            Clause::new(sql, arguments.into_iter().chain([count]))
        }
        // No value has more bytes than the largest integer of the database.
        Filter::MinSize(size) => match i64::try_from(*size) {
            Ok(size) => Clause::new("e.size >= ?", [size.into()]),
            Err(_) => Clause::constant(false),
        },
        Filter::MaxSize(size) => {
            let size = i64::try_from(*size).unwrap_or(i64::MAX);
            Clause::new("e.size <= ?", [size.into()])
        }
        Filter::ModifiedAfter(moment) => after("e.updated_at", moment),
        Filter::ModifiedBefore(moment) => before("e.updated_at", moment),
        Filter::CreatedAfter(moment) => after("e.created_at", moment),
        Filter::CreatedBefore(moment) => before("e.created_at", moment),
        _ => return None,
    })
}

/// The filter whose index leads to the entries: one that asks for a single value rather than a range. An entry has a field
/// once, so joining finds it once.
fn leading(store: &Store, filters: &[Filter]) -> Option<usize> {
    let is_indexed = |filter: &Filter, wanted: fn(Comparison) -> bool| match filter {
        Filter::Field { name, comparison, .. } => wanted(*comparison) && store.indexed.contains_key(name),
        _ => false,
    };
    let single = filters.iter().position(|filter| is_indexed(filter, |comparison| comparison == Comparison::Equal));
    single.or_else(|| filters.iter().position(|filter| is_indexed(filter, |other| other != Comparison::NotEqual)))
}

/// What a filter asks of the rows `f` of an indexed field.
fn indexed(id: &i64, comparison: Comparison, value: &FieldValue) -> Option<Clause> {
    let Clause { sql, arguments } = holds(comparison, value)?;
    Some(Clause::new(format!("f.field = ? AND {sql}"), [Value::Int(*id)].into_iter().chain(arguments)))
}

fn field(store: &Store, name: &str, comparison: Comparison, value: &FieldValue) -> Option<Clause> {
    let fields = &store.tables.fields;
    let Clause { sql, arguments } = holds(comparison, value)?;
    let named = [Value::bytes(name)].into_iter().chain(arguments);
    Some(match store.indexed.get(name) {
        _ if comparison == Comparison::NotEqual => Clause::new(
            format!("EXISTS (SELECT 1 FROM {fields} f WHERE f.entry = e.id AND f.name = ? AND NOT ({sql}))"),
            named,
        ),
        Some(id) => {
            let Clause { sql, arguments } = indexed(id, comparison, value)?;
            Clause::new(format!("e.id IN (SELECT f.entry FROM {fields} f WHERE {sql})"), arguments)
        }
        None => Clause::new(
            format!("EXISTS (SELECT 1 FROM {fields} f WHERE f.entry = e.id AND f.name = ? AND {sql})"),
            named,
        ),
    })
}

/// Whether the row `f` of a field compares so with a value; for `NotEqual`, whether it is equal. `None` as for [`condition`].
fn holds(comparison: Comparison, value: &FieldValue) -> Option<Clause> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};

    let operator = match comparison {
        Equal | NotEqual => "=",
        Less => "<",
        LessOrEqual => "<=",
        Greater => ">",
        GreaterOrEqual => ">=",
        _ => return None,
    };
    let [kind, int, float, text] = columns(value);
    Some(match value {
        // Null is equal to itself, so not less and not greater.
        FieldValue::Null if matches!(comparison, Less | Greater) => Clause::constant(false),
        FieldValue::Null => Clause::new("f.kind = ?", [kind]),
        FieldValue::Bool(_) | FieldValue::Int(_) => {
            Clause::new(format!("f.kind = ? AND f.int_value {operator} ?"), [kind, int])
        }
        FieldValue::Float(_) => {
            Clause::new(format!("f.kind = ? AND f.int_value IS NULL AND f.float_value {operator} ?"), [kind, float])
        }
        // Only the beginning of a text is indexed; of two texts in order the beginnings are in order or equal.
        FieldValue::String(whole) => {
            let beginning = match comparison {
                Less | LessOrEqual => "<=",
                Greater | GreaterOrEqual => ">=",
                _ => "=",
            };
            let sql = format!(
                "f.kind = ? AND f.int_value IS NULL AND f.float_value IS NULL AND f.head {beginning} ? \
                 AND f.text_value {operator} ?"
            );
            Clause::new(sql, [kind, head(whole), text])
        }
        _ => return None,
    })
}

/// The beginning of a text or tag, as it is indexed.
pub(crate) fn head(text: &str) -> Value {
    Value::bytes(&text.as_bytes()[..text.len().min(HEAD)])
}
