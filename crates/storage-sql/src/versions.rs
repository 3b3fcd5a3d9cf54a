//! Values that were replaced or deleted, as far as they are kept.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use storage_core::{Condition, DeleteOptions, Entry, EntryStream, Error, ErrorKind, Key, Result, VersionId};

use crate::{
    dialect::{How, Tables},
    read::{self, FOUND, Found},
    session::{Db, Session, Version},
    value::Value,
    write::{self, Item, ROWS, Written, remove},
};

/// The columns that an entry and an older version have in common.
const COMMON: &str = "version, nonce, size, created_at, updated_at, metadata, chunk, upload, data";

impl Session {
    pub(crate) async fn versions(&self, key: &Key) -> Result<EntryStream> {
        let key = key.clone();
        let entries = self.read(move |mut db| {
            let key = key.clone();
            Box::pin(async move {
                let Tables { entries, past, .. } = &db.store.tables;
                let columns = "version, nonce, size, created_at, updated_at, metadata";
                let sql = format!(
                    "SELECT {columns} FROM {entries} WHERE entry_key = ? UNION ALL \
                     SELECT {columns} FROM {past} WHERE entry_key = ? ORDER BY version DESC"
                );
                let rows = db.fetch(sql, vec![(&key).into(), (&key).into()]).await?;
                let entry = |mut row| read::described(read::entry(key.clone(), true, &mut row), &mut row);
                Ok(rows.into_iter().map(entry).collect::<Vec<Entry>>())
            })
        });
        Ok(stream::iter(entries.await?.into_iter().map(Ok)).boxed())
    }

    pub(crate) async fn find_version(&self, key: &Key, version: &VersionId) -> Result<Option<Found>> {
        let Some(Version { number, nonce }) = Version::parse(version.as_str()) else {
            return Ok(None);
        };
        let key = key.clone();
        self.read(move |mut db| {
            let named = [Value::from(&key), number.into(), nonce.into()];
            Box::pin(async move {
                let Tables { entries, past, .. } = &db.store.tables;
                let select = |table| {
                    format!("SELECT {FOUND} FROM {table} e WHERE e.entry_key = ? AND e.version = ? AND e.nonce = ?")
                };
                let sql = format!("{} UNION ALL {}", select(entries), select(past));
                let row = db.fetch_one(sql, [named.clone(), named].concat()).await?;
                row.map_or(Ok(None), |mut row| read::found(true, &mut row))
            })
        })
        .await
    }

    pub(crate) async fn delete_version(&self, key: &Key, version: &VersionId) -> Result<()> {
        let Some(Version { number, nonce }) = Version::parse(version.as_str()) else {
            return Ok(());
        };
        let key = key.clone();
        self.write(move |mut db| {
            let named = vec![Value::from(&key), number.into(), nonce.into()];
            Box::pin(async move {
                for table in [&db.store.tables.past, &db.store.tables.entries] {
                    let sql = format!("DELETE FROM {table} WHERE entry_key = ? AND version = ? AND nonce = ?");
                    db.execute(sql, named.clone()).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

/// Writes rows as [`write::write_rows`] does, and keeps what they replace.
pub(crate) async fn write_rows(db: &mut Db<'_>, items: &[Item]) -> Result<BTreeMap<i64, Written>> {
    let there = lock(db, items.iter().map(|item| &item.key)).await?;
    let (mut replacing, mut creating, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        match (there.get(&item.key), item.how) {
            (None, How::Match) | (Some(_), How::Create) => {}
            (Some((_, version)), How::Match) if *version != item.matches => {}
            (Some((id, _)), _) => {
                replaced.push(*id);
                replacing.push(item.clone());
            }
            (None, _) => {
                let mut item = item.clone();
                item.how = How::Create;
                creating.push(item);
            }
        }
    }
    archive(db, &replaced).await?;
    let mut written = write::write_rows(db, &replacing, false).await?;
    let created = write::write_rows(db, &creating, false).await?;
    if creating.iter().any(|item| !created.contains_key(&item.nonce)) {
        // The source makes the job run again, where it is not in a caller's transaction.
        return Err(Error::new(ErrorKind::Conflict, "write conflict: another writer created the key first; retry")
            .with_source("the key was created after it was looked for"));
    }
    written.extend(created);
    Ok(written)
}

/// Deletes a key if the condition holds, and keeps its value as a version.
pub(crate) async fn delete(db: &mut Db<'_>, key: &Key, options: &DeleteOptions) -> Result<()> {
    write::see_deletes(db, std::slice::from_ref(key)).await?;
    let there = lock(db, [key].into_iter()).await?;
    let there = there.get(key);
    let matches = match &options.condition {
        Some(Condition::IfMatch(etag)) => {
            there.is_some_and(|(_, version)| version.is_some_and(|version| version.etag() == *etag))
        }
        _ => true,
    };
    if !matches {
        return Err(Error::new(ErrorKind::PreconditionFailed, "the value has another etag, or the key has no value"));
    }
    let Some((id, _)) = there else {
        return Ok(());
    };
    archive(db, &[*id]).await?;
    remove(db, &db.store.tables.entries, "id", &[*id]).await?;
    if keeps_one(db) {
        let past = &db.store.tables.past;
        db.execute(format!("DELETE FROM {past} WHERE entry_key = ?"), vec![key.into()]).await?;
    }
    Ok(())
}

/// Whether there are no older versions, so that a deleted key keeps none.
fn keeps_one(db: &Db<'_>) -> bool {
    db.store.versions.is_some_and(|kept| kept == 1)
}

/// Deletes the keys in a range, and keeps their values as versions.
pub(crate) async fn clear(db: &mut Db<'_>, bounds: Vec<Value>) -> Result<()> {
    write::see_deletes_between(db, &bounds).await?;
    let (entries, for_update) = (&db.store.tables.entries, db.store.dialect.lock());
    let sql = format!("SELECT id FROM {entries} WHERE entry_key >= ? AND entry_key < ?{for_update}");
    let rows = db.fetch(sql, bounds.clone()).await?;
    let ids = rows.into_iter().map(|mut row| row.int()).collect::<Result<Vec<i64>>>()?;
    archive(db, &ids).await?;
    remove(db, entries, "id", &ids).await?;
    if keeps_one(db) {
        let past = &db.store.tables.past;
        db.execute(format!("DELETE FROM {past} WHERE entry_key >= ? AND entry_key < ?"), bounds).await?;
    }
    Ok(())
}

/// Forgets the oldest versions of these keys, of which a newest one was just written.
pub(crate) async fn prune(db: &mut Db<'_>, keys: &[Key]) -> Result<()> {
    let Some(kept) = db.store.versions else {
        return Ok(());
    };
    let past = &db.store.tables.past;
    let sql = format!(
        "DELETE FROM {past} WHERE entry_key = ? AND version <= \
         (SELECT p.version FROM {past} p WHERE p.entry_key = ? ORDER BY p.version DESC LIMIT 1 OFFSET {})",
        kept - 1
    );
    for key in keys {
        db.execute(sql.clone(), vec![key.into(), key.into()]).await?;
    }
    Ok(())
}

/// The entries of those keys that have one, which nobody else changes until the end. What is damaged has no version.
async fn lock<'k>(
    db: &mut Db<'_>,
    keys: impl Iterator<Item = &'k Key>,
) -> Result<BTreeMap<Key, (i64, Option<Version>)>> {
    let keys: Vec<Value> = keys.map(Value::from).collect();
    let (entries, for_update) = (&db.store.tables.entries, db.store.dialect.lock());
    let places = vec!["?"; keys.len()].join(", ");
    let sound = db.store.dialect.sound(entries);
    let sql = format!(
        "SELECT entry_key, id, CASE WHEN {sound} THEN 1 ELSE 0 END, version, nonce FROM {entries} \
         WHERE entry_key IN ({places}) ORDER BY entry_key{for_update}"
    );
    let mut there = BTreeMap::new();
    for mut row in db.fetch(sql, keys).await? {
        if let Some(key) = read::key(&row.bytes()?) {
            there.insert(key, (row.int()?, Version::sound(&mut row)?));
        }
    }
    Ok(there)
}

/// Keeps entries as older versions, with their chunks, and leaves the entries as they are.
async fn archive(db: &mut Db<'_>, ids: &[i64]) -> Result<()> {
    let Tables { entries, past, uploads, .. } = &db.store.tables;
    for some in ids.chunks(ROWS) {
        let ids: Vec<Value> = some.iter().map(|id| Value::Int(*id)).collect();
        let places = vec!["?"; ids.len()].join(", ");
        let sql = format!(
            "INSERT INTO {past} (entry_key, {COMMON}) SELECT entry_key, {COMMON} FROM {entries} WHERE id IN ({places})"
        );
        db.execute(sql, ids.clone()).await?;
        let sql = format!(
            "UPDATE {uploads} SET past = (SELECT e.version FROM {entries} e WHERE e.id = {uploads}.entry), entry = NULL \
             WHERE entry IN ({places})"
        );
        db.execute(sql, ids).await?;
    }
    Ok(())
}
