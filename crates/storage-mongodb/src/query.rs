//! Queries, evaluated by the database: filters, order, limit and continuation are part of the command, and every value in it
//! is compared as a text, a number of one type or a date, never parsed.

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use mongodb::bson::{Bson, DateTime, Document, doc};
use storage_core::{
    Comparison, Entry, EntryStream, FieldValue, Filter, ListOptions, OrderBy, Query, Result, SortKey, defaults,
    pending::Keys,
};

use crate::{
    document::{self, prefixed},
    fields,
    session::{Db, Session, Touches},
};

const PAGE: usize = 500;

type Page = (EntryStream, Option<(Query, usize)>);

impl Session {
    pub(crate) async fn query(&self, query: Query) -> Result<EntryStream> {
        query.validate()?;
        if pipeline(&query, 1).is_none() {
            return self.scan(query).await;
        }
        let left = query.limit.unwrap_or(usize::MAX);
        let session = self.clone();
        let pages = stream::try_unfold(Some((query, left)), move |state| session.page(state));
        let entries: EntryStream = pages.try_flatten().boxed();
        defaults::begun(entries).await
    }

    /// The next entries, and what is left behind them.
    fn page(&self, state: Option<(Query, usize)>) -> BoxFuture<'static, Result<Option<Page>>> {
        let session = self.clone();
        Box::pin(async move {
            let Some((mut query, left)) = state.filter(|(_, left)| *left > 0) else { return Ok(None) };
            let size = left.min(PAGE);
            let Some(pipeline) = pipeline(&query, size) else { return Ok(None) };
            let command = doc! {
                "aggregate": &session.store.collection,
                "pipeline": pipeline,
                "cursor": { "batchSize": size as i64 },
                "allowDiskUse": true,
            };
            let job = |mut db: Db| async move { db.documents(command).await };
            let keys = Keys::prefix(query.prefix.as_str());
            let (documents, more) = session.run(keys, Touches::Prefix(&query.prefix), job).await?;
            let more = more || documents.len() == size;
            let found = documents.into_iter().filter_map(|document| document::found(document, false, true));
            let found = found.map(|found| session.store.versioned(found));
            let mut entries: Vec<Entry> = found.map(|found| found.entry).collect();
            if query.order.by != OrderBy::Key && entries.iter().any(|entry| entry.damaged.is_some()) {
                // Where the database puts it is not where it belongs.
                query.limit = query.limit.map(|_| left);
                return Ok(Some((session.scan(query).await?, None)));
            }
            let last = entries.last().map(|last| query.continuation_after(last));
            // A filter may hold of a damaged document by chance.
            entries.retain(|entry| query.matches(entry));
            let next = last.filter(|_| more).map(|last| {
                query.continuation = Some(last);
                (query, left - entries.len())
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

/// `None` for what this version of the crate does not know.
fn pipeline(query: &Query, size: usize) -> Option<Vec<Document>> {
    let mut all = vec![doc! { "_id": prefixed(&query.prefix) }];
    for filter in &query.filters {
        all.push(condition(filter)?);
    }
    let mut stages = vec![doc! { "$match": { "$and": all } }];
    let sorted = match &query.order.by {
        OrderBy::Key => "_id",
        OrderBy::Size => "size",
        OrderBy::Created => "created",
        OrderBy::Modified => "modified",
        OrderBy::Field(name) => {
            stages.push(doc! { "$addFields": { "sort": field_of(name) } });
            "sort"
        }
        _ => return None,
    };
    if let Some(from) = &query.continuation {
        let key = from.key().as_str();
        let behind = if query.order.descending { "$lt" } else { "$gt" };
        stages.push(doc! { "$match": match query.order.by {
            OrderBy::Key => doc! { "_id": { behind: key } },
            _ => {
                let value = sort_value(&query.order.by, from.sort_key())?;
                // Missing is before all others, which comparisons with null do not say.
                let beyond = match (&value, query.order.descending) {
                    (Bson::Null, false) => Some(doc! { sorted: { "$ne": Bson::Null } }),
                    (Bson::Null, true) => None,
                    (_, false) => Some(doc! { sorted: { "$gt": value.clone() } }),
                    (_, true) => Some(doc! { "$or": [{ sorted: { "$lt": value.clone() } }, { sorted: Bson::Null }] }),
                };
                let tie = doc! { sorted: value, "_id": { "$gt": key } };
                doc! { "$or": beyond.into_iter().chain([tie]).collect::<Vec<_>>() }
            }
        } });
    }
    let direction = if query.order.descending { -1 } else { 1 };
    stages.push(doc! { "$sort": match query.order.by {
        OrderBy::Key => doc! { "_id": direction },
        _ => doc! { sorted: direction, "_id": 1 },
    } });
    stages.push(doc! { "$limit": size as i64 });
    stages.push(doc! { "$project": { "data": 0, "sort": 0 } });
    Some(stages)
}

/// The first text of a field of this name.
fn field_of(name: &str) -> Document {
    let bounds = doc! { "$and": [
        { "$gte": ["$$field", { "$literal": format!("{name}\0") }] },
        { "$lt": ["$$field", { "$literal": format!("{name}\u{1}") }] },
    ] };
    let all = doc! { "$cond": [{ "$isArray": "$metadata.fields" }, "$metadata.fields", []] };
    let own = doc! { "$filter": { "input": all, "as": "field", "cond": bounds } };
    doc! { "$ifNull": [{ "$arrayElemAt": [own, 0] }, Bson::Null] }
}

/// What the database orders by, for the point behind an entry.
fn sort_value(by: &OrderBy, key: &SortKey) -> Option<Bson> {
    let field = |value: FieldValue| {
        let OrderBy::Field(name) = by else { return None };
        fields::encode(name, &value).ok().map(Bson::String)
    };
    match key {
        SortKey::Missing => Some(Bson::Null),
        SortKey::Size(size) => i64::try_from(*size).ok().map(Bson::Int64),
        // What lies between two milliseconds cannot be said to the database.
        SortKey::Time(time) => {
            Some(document::date(*time)).filter(|date| date.to_system_time() == *time).map(Bson::DateTime)
        }
        SortKey::Null => field(FieldValue::Null),
        SortKey::Bool(value) => field(FieldValue::Bool(*value)),
        SortKey::Int(value) => field(FieldValue::Int(*value)),
        SortKey::Float(value) => field(FieldValue::Float(*value)),
        SortKey::String(value) => field(FieldValue::String(value.clone())),
        _ => None,
    }
}

fn condition(filter: &Filter) -> Option<Document> {
    Some(match filter {
        Filter::Field { name, comparison, value } => field(name, *comparison, value)?,
        Filter::ContentType(media_type) => doc! { "metadata.content_type": { "$eq": media_type } },
        Filter::AnyTag(tags) => doc! { "metadata.tags": { "$in": tags.iter().collect::<Vec<_>>() } },
        Filter::AllTags(tags) if tags.is_empty() => Document::new(),
        Filter::AllTags(tags) => doc! { "metadata.tags": { "$all": tags.iter().collect::<Vec<_>>() } },
        Filter::MinSize(0) => Document::new(),
        Filter::MinSize(size) => match i64::try_from(*size) {
            Ok(size) => doc! { "size": { "$gte": size } },
            Err(_) => nothing(),
        },
        // The size of a damaged document counts as 0.
        Filter::MaxSize(size) => match i64::try_from(*size) {
            Ok(size) => doc! { "size": { "$not": { "$gt": size } } },
            Err(_) => Document::new(),
        },
        Filter::ModifiedAfter(time) => dated("modified", "$gte", *time)?,
        Filter::ModifiedBefore(time) => dated("modified", "$lte", *time)?,
        Filter::CreatedAfter(time) => dated("created", "$gte", *time)?,
        Filter::CreatedBefore(time) => dated("created", "$lte", *time)?,
        _ => return None,
    })
}

/// By the millisecond that the moment is in, or the next; the entries that this lets through too many are taken out here.
fn dated(name: &str, comparison: &str, time: std::time::SystemTime) -> Option<Document> {
    let millis = time.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
    let millis = if comparison == "$lte" { millis.div_ceil(1_000_000) } else { millis / 1_000_000 };
    let date = DateTime::from_millis(i64::try_from(millis).ok()?);
    Some(doc! { name: { comparison: date } })
}

fn nothing() -> Document {
    doc! { "_id": { "$in": [] } }
}

fn field(name: &str, comparison: Comparison, value: &FieldValue) -> Option<Document> {
    let exact = fields::encode(name, value).ok()?;
    let kind = fields::value(value).ok()?.chars().next()?;
    // All of the name and kind, and what comes behind them.
    let (from, to) = (format!("{name}\0{kind}"), format!("{name}\0{}", char::from_u32(kind as u32 + 1)?));
    let range = match comparison {
        Comparison::Equal => return Some(doc! { "metadata.fields": { "$eq": exact } }),
        Comparison::NotEqual => doc! { "$gte": format!("{name}\0"), "$lt": format!("{name}\u{1}"), "$ne": exact },
        Comparison::Less => doc! { "$gte": from, "$lt": exact },
        Comparison::LessOrEqual => doc! { "$gte": from, "$lte": exact },
        Comparison::Greater => doc! { "$gt": exact, "$lt": to },
        Comparison::GreaterOrEqual => doc! { "$gte": exact, "$lt": to },
        _ => return None,
    };
    Some(doc! { "metadata.fields": { "$elemMatch": range } })
}
