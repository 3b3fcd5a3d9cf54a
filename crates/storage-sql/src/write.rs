//! Writing entries. Everything that writes a value goes through [`write_all`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use storage_core::{Condition, DeleteOptions, Entry, Error, ErrorKind, FieldValue, Key, Metadata, PutOptions, Result};

use crate::{
    dialect::{How, Tables},
    query::{columns, head},
    read,
    session::{Db, Version},
    staging::{Content, STATEMENT, adopt},
    value::Value,
    versions,
};

/// How many rows one statement inserts, so that it stays below the most arguments that databases take.
pub(crate) const ROWS: usize = 500;

/// A value to be written.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) key: Key,
    pub(crate) content: Content,
    metadata: Arc<Metadata>,
    pub(crate) how: How,
    /// What is there now, if [`How::Match`].
    pub(crate) matches: Option<Version>,
    /// The random part of the new version.
    pub(crate) nonce: i64,
}

/// What the database says of an entry that it wrote.
pub(crate) struct Written {
    id: i64,
    version: Version,
    /// Unless somebody has damaged it.
    created_at: Option<i64>,
    updated_at: i64,
    leftovers: i64,
}

impl Item {
    /// # Errors
    /// `PreconditionFailed` for an etag that is none of ours.
    pub(crate) fn new(key: Key, content: Content, options: PutOptions) -> Result<Self> {
        let (how, matches) = match options.condition {
            None => (How::Replace, None),
            Some(Condition::IfAbsent) => (How::Create, None),
            Some(Condition::IfMatch(etag)) => {
                (How::Match, Some(Version::parse(etag.as_str()).ok_or_else(|| failed(How::Match))?))
            }
            Some(_) => return Err(Error::unsupported("this condition")),
        };
        let metadata = options.metadata.unwrap_or_default();
        Ok(Self { key, content, metadata, how, matches, nonce: fastrand::i64(..) })
    }

    /// Whether it has nothing outside of its row.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.content, Content::Inline(_)) && !self.is_described()
    }

    fn is_described(&self) -> bool {
        !self.metadata.fields.is_empty() || !self.metadata.tags.is_empty()
    }

    /// In the order of [`ARGUMENTS`](crate::dialect::ARGUMENTS).
    fn arguments(&self) -> Vec<Value> {
        let (chunk, upload, data) = match &self.content {
            Content::Inline(data) => (None, None, Some(Value::Bytes(data.clone()))),
            Content::Staged { upload, chunk, .. } => (Some(*chunk), Some(*upload), None),
        };
        let mut arguments = vec![
            self.nonce.into(),
            self.content.size().into(),
            self.metadata.content_type.as_ref().map(Value::bytes).into(),
            Value::Text(self.metadata.to_json()),
            chunk.into(),
            upload.into(),
            data.into(),
            i64::from(self.is_described()).into(),
            (&self.key).into(),
        ];
        arguments.extend(self.matches.iter().flat_map(|version| [version.number.into(), version.nonce.into()]));
        arguments
    }

    fn entry(&self, written: &Written, versioned: bool) -> Entry {
        let mut entry = Entry::new(self.key.clone(), self.content.size().unsigned_abs());
        entry.etag = Some(written.version.etag());
        entry.version = versioned.then(|| written.version.id());
        entry.created = written.created_at.map(read::time);
        entry.modified = Some(read::time(written.updated_at));
        entry.metadata = Some(self.metadata.clone());
        entry
    }
}

/// Writes one value by one statement. `None` when there is something outside of the row that it would replace, or its etag is
/// not that of the row; nothing was written then.
pub(crate) async fn write_plain(db: &mut Db<'_>, item: &Item) -> Result<Option<Entry>> {
    see_deletes(db, std::slice::from_ref(&item.key)).await?;
    let written = write_rows(db, std::slice::from_ref(item), true).await?;
    match written.get(&item.nonce) {
        Some(written) => Ok(Some(item.entry(written, false))),
        // Whatever there is outside of the row, a row is there.
        None if item.how == How::Create => Err(failed(How::Create)),
        None => Ok(None),
    }
}

/// Writes one value.
pub(crate) async fn write_one(db: &mut Db<'_>, item: Item) -> Result<Entry> {
    let key = item.key.clone();
    let entry = write_all(db, &[item]).await?.pop();
    entry.unwrap_or_else(|| Err(read::damaged())).map_err(|e| e.with_key(&key))
}

/// Writes values with their metadata, each if its condition holds. A later one replaces an earlier one of the same key. Must
/// be part of a transaction.
pub(crate) async fn write_all(db: &mut Db<'_>, items: &[Item]) -> Result<Vec<Result<Entry>>> {
    let mut results = Vec::with_capacity(items.len());
    let mut rest = items;
    while !rest.is_empty() {
        let (together, others) = rest.split_at(first_group(rest));
        rest = others;
        results.extend(write_group(db, together).await?);
    }
    Ok(results)
}

/// How many of the items one statement can write: those of different keys and with the same condition, as far as they are not
/// too large together.
fn first_group(items: &[Item]) -> usize {
    let (mut keys, mut bytes) = (BTreeSet::new(), 0);
    let how = items.first().map(|item| item.how);
    let most = if how == Some(How::Match) { 1 } else { ROWS };
    let together = items.iter().take(most).take_while(|item| {
        bytes += item.content.in_memory() + item.metadata.size();
        Some(item.how) == how && keys.insert(&item.key) && bytes <= STATEMENT
    });
    together.count().max(1)
}

async fn write_group(db: &mut Db<'_>, items: &[Item]) -> Result<Vec<Result<Entry>>> {
    let keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
    see_deletes(db, &keys).await?;
    let versioned = db.store.versions.is_some();
    let written = match versioned {
        true => versions::write_rows(db, items).await?,
        false => write_rows(db, items, false).await?,
    };
    let of = |item: &Item| written.get(&item.nonce);
    let ids = |leftovers: i64| {
        let ids = written.values().filter(move |written| written.leftovers & leftovers != 0);
        ids.map(|written| written.id).collect::<Vec<i64>>()
    };
    let Tables { fields, tags, uploads, .. } = &db.store.tables;
    for (table, ids) in [(fields, ids(1)), (tags, ids(1)), (uploads, ids(2))] {
        remove(db, table, "entry", &ids).await?;
    }
    for item in items {
        if let (Content::Staged { upload, .. }, Some(written)) = (&item.content, of(item)) {
            adopt(db, *upload, written.id).await?;
        }
    }
    describe(db, items.iter().filter_map(|item| Some((of(item)?.id, &*item.metadata)))).await?;
    if versioned {
        versions::prune(db, &keys).await?;
    }
    Ok(items
        .iter()
        .map(|item| of(item).map(|written| item.entry(written, versioned)).ok_or_else(|| failed(item.how)))
        .collect())
}

/// Writes the rows, and returns those that were written by their nonce.
pub(crate) async fn write_rows(db: &mut Db<'_>, items: &[Item], plain: bool) -> Result<BTreeMap<i64, Written>> {
    let Some(how) = items.first().map(|item| item.how) else {
        return Ok(BTreeMap::new());
    };
    db.advance(items.len()).await?;
    // In one order, so that of two writers of the same keys one waits for the other, and not both.
    let mut ordered: Vec<&Item> = items.iter().collect();
    ordered.sort_by(|a, b| a.key.cmp(&b.key));
    let sql = db.store.dialect.write(&db.store.tables, how, items.len(), plain);
    let arguments = ordered.iter().flat_map(|item| item.arguments()).collect();
    let rows = db.fetch(sql, arguments).await?;
    let mut written = BTreeMap::new();
    for mut row in rows {
        let (_, id, version) = (row.bytes()?, row.int()?, Version::from_row(&mut row)?);
        let (created_at, updated_at, leftovers) = (row.int().ok(), row.int()?, row.int()?);
        written.insert(version.nonce, Written { id, version, created_at, updated_at, leftovers });
    }
    Ok(written)
}

/// Deletes a key if the condition holds, by one statement.
pub(crate) async fn delete(db: &mut Db<'_>, key: &Key, options: &DeleteOptions) -> Result<()> {
    see_deletes(db, std::slice::from_ref(key)).await?;
    let sql = format!("DELETE FROM {} WHERE entry_key = ?", db.store.tables.entries);
    let Some(condition) = &options.condition else {
        return db.execute(sql, vec![key.into()]).await.map(drop);
    };
    let Condition::IfMatch(etag) = condition else {
        return Err(Error::unsupported("this condition"));
    };
    let version = Version::parse(etag.as_str()).ok_or_else(|| failed(How::Match))?;
    let sound = db.store.dialect.sound(&db.store.tables.entries);
    let sql = format!("{sql} AND version = ? AND nonce = ? AND {sound}");
    match db.execute(sql, vec![key.into(), version.number.into(), version.nonce.into()]).await? {
        0 => Err(failed(How::Match)),
        _ => Ok(()),
    }
}

/// Deletes keys, whatever they hold, and has a result for each.
pub(crate) async fn delete_all(db: &mut Db<'_>, keys: &[Key]) -> Result<Vec<Result<()>>> {
    // In one order, so that of two writers of the same keys one waits for the other, and not both.
    let distinct: Vec<Key> = keys.iter().collect::<BTreeSet<&Key>>().into_iter().cloned().collect();
    for some in distinct.chunks(ROWS) {
        see_deletes(db, some).await?;
        let places = vec!["?"; some.len()].join(", ");
        let sql = format!("DELETE FROM {} WHERE entry_key IN ({places})", db.store.tables.entries);
        db.execute(sql, some.iter().map(Value::from).collect()).await?;
    }
    Ok(keys.iter().map(|_| Ok(())).collect())
}

/// Deletes the rows of a table in which a column is one of these.
pub(crate) async fn remove(db: &mut Db<'_>, table: &str, column: &str, values: &[i64]) -> Result<()> {
    for some in values.chunks(ROWS) {
        let places = vec!["?"; some.len()].join(", ");
        let sql = format!("DELETE FROM {table} WHERE {column} IN ({places})");
        db.execute(sql, some.iter().map(|value| Value::Int(*value)).collect()).await?;
    }
    Ok(())
}

/// The keys with a prefix, as a range: from the first value up to and without the second.
pub(crate) fn bounds(prefix: &str) -> [Value; 2] {
    let mut end = prefix.as_bytes().to_vec();
    // No byte of a key is 255, so incrementing the last byte gives the least text behind all that begin with the prefix,
    // and without a prefix this byte itself is behind everything.
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(u8::MAX),
    }
    [Value::bytes(prefix), Value::bytes(end)]
}

/// Makes sure, where the database does not, that none of these keys was deleted since the caller's transaction began.
pub(crate) async fn see_deletes(db: &mut Db<'_>, keys: &[Key]) -> Result<()> {
    if !db.snapshot {
        return Ok(());
    }
    let condition = format!("entry_key IN ({})", vec!["?"; keys.len()].join(", "));
    let keys: Vec<Value> = keys.iter().map(Value::from).collect();
    see_deletes_where(db, &condition, &keys).await
}

/// The same for the keys in a range.
pub(crate) async fn see_deletes_between(db: &mut Db<'_>, bounds: &[Value]) -> Result<()> {
    see_deletes_where(db, "entry_key >= ? AND entry_key < ?", bounds).await
}

async fn see_deletes_where(db: &mut Db<'_>, condition: &str, values: &[Value]) -> Result<()> {
    let Some(sql) = db.store.dialect.see_deletes(&db.store.tables, condition).filter(|_| db.snapshot) else {
        return Ok(());
    };
    let asked = sql.matches('?').count();
    let arguments = values.iter().cycle().take(asked).cloned().collect();
    let mut row = db.fetch_one(sql, arguments).await?.ok_or_else(read::damaged)?;
    match row.int()? == row.int()? {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Conflict,
            "write conflict: another transaction deleted the value; retry the transaction",
        )),
    }
}

/// Writes what queries ask for. The metadata itself stands in the entry.
async fn describe(db: &mut Db<'_>, all: impl Iterator<Item = (i64, &Metadata)> + Clone) -> Result<()> {
    let Tables { fields, tags, .. } = &db.store.tables;
    let described = |(entry, metadata): (i64, _)| {
        let metadata: &Metadata = metadata;
        metadata.fields.iter().zip(0..).map(move |(field, i)| (entry, i, field))
    };
    let rows: Vec<(i64, i64, (&String, &FieldValue))> = all.clone().flat_map(described).collect();
    let row = format!("(?, ?, ?, ?, ?, ?, ?, ?, {})", db.store.dialect.index_of(&db.store.tables));
    for some in rows.chunks(ROWS) {
        let rows = vec![row.as_str(); some.len()].join(", ");
        let sql = format!(
            "INSERT INTO {fields} (entry, idx, name, kind, int_value, float_value, text_value, head, field) VALUES {rows}"
        );
        let mut arguments = Vec::with_capacity(some.len() * 9);
        for (entry, i, (name, value)) in some {
            let name = Value::bytes(name);
            arguments.extend([(*entry).into(), (*i).into(), name.clone()]);
            arguments.extend(columns(value));
            arguments.push(match value {
                FieldValue::String(text) => head(text),
                _ => Value::Null,
            });
            arguments.push(name);
        }
        db.execute(sql, arguments).await?;
    }
    let tagged = |(entry, metadata): (i64, _)| {
        let metadata: &Metadata = metadata;
        metadata.tags.iter().zip(0..).map(move |(tag, i)| (entry, i, tag))
    };
    let rows: Vec<(i64, i64, &String)> = all.flat_map(tagged).collect();
    for some in rows.chunks(ROWS) {
        let rows = vec!["(?, ?, ?, ?)"; some.len()].join(", ");
        let sql = format!("INSERT INTO {tags} (entry, idx, tag, head) VALUES {rows}");
        let arguments =
            some.iter().flat_map(|(entry, i, tag)| [(*entry).into(), (*i).into(), Value::bytes(tag), head(tag)]);
        db.execute(sql, arguments.collect()).await?;
    }
    Ok(())
}

fn failed(how: How) -> Error {
    match how {
        How::Create => Error::new(ErrorKind::AlreadyExists, "the key already has a value"),
        _ => Error::new(ErrorKind::PreconditionFailed, "the value has another etag, or the key has no value"),
    }
}
