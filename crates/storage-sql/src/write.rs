//! Writing, deleting, copying and moving one key. Everything that writes an entry goes through [`replace`].

use std::sync::Arc;

use storage_core::{
    Body, Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, Key, Metadata, PutOptions, RenameOptions,
    Result,
};

use crate::{
    dialect::{Tables, Value},
    query::columns,
    read::{self, Stored},
    session::{Db, Session, Version},
    staging::{Content, adopt},
};

/// How many rows one statement inserts, so that it stays below the most arguments that databases take.
const ROWS: usize = 500;

/// What is replaced.
struct Old {
    version: Version,
    created_at: i64,
    updated_at: i64,
}

impl Session {
    pub(crate) async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let received = self.receive(body).await?;
        let (key, content) = (key.clone(), received.content.clone());
        let entry = self.write(move |mut db| Box::pin(async move { replace(&mut db, key, content, options).await }));
        let entry = entry.await?;
        received.keep();
        Ok(entry)
    }

    pub(crate) async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let key = key.clone();
        self.write(move |mut db| Box::pin(async move { delete(&mut db, &key, &options).await })).await
    }

    pub(crate) async fn clear(&self, prefix: &str) -> Result<()> {
        let bounds = bounds(prefix);
        self.write(move |mut db| {
            Box::pin(async move {
                let entries = &db.store.tables.entries;
                let sql = format!("DELETE FROM {entries} WHERE key >= ? AND key < ?");
                db.execute(sql, bounds.into()).await.map(drop)
            })
        })
        .await
    }

    pub(crate) async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let source = self.find(from).await?.ok_or_else(|| no_source(from))?;
        if from == to && options == CopyOptions::new() {
            return Ok(source.entry);
        }
        let mut put = PutOptions::new();
        put.condition = options.condition;
        let staged = match source.value {
            // The source is read again in the same step as the target is written.
            Stored::Inline(_) => None,
            Stored::Chunks { upload, chunk } => {
                put.metadata = options.metadata.clone().or(source.entry.metadata);
                let size = source.entry.size;
                Some(self.stage_copy(upload, chunk, size).await?)
            }
        };
        let content = staged.as_ref().map(|staged| staged.content.clone());
        let (from, to) = (from.clone(), to.clone());
        let entry = self.write(move |mut db| {
            Box::pin(async move {
                if let Some(content) = content {
                    return replace(&mut db, to, content, put).await;
                }
                let source = read::find(&mut db, &from).await?;
                let source = source.ok_or_else(|| no_source(&from))?;
                let Stored::Inline(data) = source.value else {
                    return Err(changed(&from));
                };
                put.metadata = options.metadata.or(source.entry.metadata);
                replace(&mut db, to, Content::Inline(data), put).await
            })
        });
        let entry = entry.await?;
        if let Some(staged) = staged {
            staged.keep();
        }
        Ok(entry)
    }

    pub(crate) async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let (from, to) = (from.clone(), to.clone());
        self.write(move |mut db| {
            Box::pin(async move {
                let source = old(&mut db, &from).await?.ok_or_else(|| no_source(&from))?;
                let target = old(&mut db, &to).await?;
                check(&to, target.as_ref(), options.condition.as_ref())?;
                let (version, created_at, updated_at) = stamp(&mut db, target.as_ref()).await?;
                if let Some(target) = target {
                    remove(&mut db, target.version.number).await?;
                }
                let entries = &db.store.tables.entries;
                // The value stays where it is; its fields, tags and chunks follow the version.
                let sql = format!(
                    "UPDATE {entries} SET version = ?, nonce = ?, key = ?, created_at = ?, updated_at = ? WHERE version = ?"
                );
                let row =
                    vec![version.number.into(), version.nonce.into(), (&to).into(), created_at.into(), updated_at.into(), source.version.number.into()];
                db.execute(sql, row).await?;
                let moved = read::find(&mut db, &to).await?;
                moved.map(|moved| moved.entry).ok_or_else(|| no_source(&from))
            })
        })
        .await
    }
}

/// Writes a value under a key, with its metadata, if the condition holds.
pub(crate) async fn replace(db: &mut Db<'_>, key: Key, content: Content, options: PutOptions) -> Result<Entry> {
    let old = old(db, &key).await?;
    check(&key, old.as_ref(), options.condition.as_ref())?;
    let (version, created_at, updated_at) = stamp(db, old.as_ref()).await?;
    if let Some(old) = old {
        remove(db, old.version.number).await?;
    }
    let metadata: Arc<Metadata> = options.metadata.unwrap_or_default();
    let (size, chunk, upload, data) = match content {
        Content::Inline(data) => (data.len() as i64, None, None, Some(Value::Bytes(data))),
        Content::Staged { upload, chunk, size } => (size, Some(chunk), Some(upload), None),
    };
    let entries = &db.store.tables.entries;
    let sql = format!(
        "INSERT INTO {entries} (version, nonce, key, size, created_at, updated_at, content_type, metadata, chunk, data) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let row = vec![
        version.number.into(),
        version.nonce.into(),
        (&key).into(),
        size.into(),
        created_at.into(),
        updated_at.into(),
        metadata.content_type.clone().map(Value::Text).into(),
        Value::Text(metadata.to_json()),
        chunk.into(),
        data.into(),
    ];
    db.execute(sql, row).await?;
    if let Some(upload) = upload {
        adopt(db, upload, version.number).await?;
    }
    describe(db, version.number, &metadata).await?;
    let mut entry = Entry::new(key, size as u64);
    entry.etag = Some(version.etag());
    entry.created = Some(read::time(created_at));
    entry.modified = Some(read::time(updated_at));
    entry.metadata = Some(metadata);
    Ok(entry)
}

/// Deletes a key if the condition holds.
pub(crate) async fn delete(db: &mut Db<'_>, key: &Key, options: &DeleteOptions) -> Result<()> {
    if options.condition.is_some() {
        let old = old(db, key).await?;
        check(key, old.as_ref(), options.condition.as_ref())?;
    }
    let sql = format!("DELETE FROM {} WHERE key = ?", db.store.tables.entries);
    db.execute(sql, vec![key.into()]).await.map(drop)
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

/// Writes what queries ask for. The metadata itself stands in the entry.
async fn describe(db: &mut Db<'_>, version: i64, metadata: &Metadata) -> Result<()> {
    let Tables { fields, tags, indexes, .. } = &db.store.tables;
    let row = format!("(?, ?, ?, ?, ?, ?, EXISTS (SELECT 1 FROM {indexes} WHERE name = ?))");
    let all: Vec<_> = metadata.fields.iter().collect();
    for some in all.chunks(ROWS) {
        let rows = vec![row.as_str(); some.len()].join(", ");
        let sql = format!(
            "INSERT INTO {fields} (version, name, kind, int_value, float_value, text_value, indexed) VALUES {rows}"
        );
        let mut arguments = Vec::with_capacity(some.len() * 7);
        for (name, value) in some {
            let name = Value::bytes(name);
            arguments.extend([version.into(), name.clone()]);
            arguments.extend(columns(value));
            arguments.push(name);
        }
        db.execute(sql, arguments).await?;
    }
    let all: Vec<_> = metadata.tags.iter().collect();
    for some in all.chunks(ROWS) {
        let rows = vec!["(?, ?)"; some.len()].join(", ");
        let sql = format!("INSERT INTO {tags} (version, tag) VALUES {rows}");
        let arguments = some.iter().flat_map(|tag| [version.into(), Value::bytes(tag)]);
        db.execute(sql, arguments.collect()).await?;
    }
    Ok(())
}

async fn old(db: &mut Db<'_>, key: &Key) -> Result<Option<Old>> {
    let entries = &db.store.tables.entries;
    let sql = format!("SELECT version, nonce, created_at, updated_at FROM {entries} WHERE key = ?");
    let Some(mut row) = db.fetch_one(sql, vec![key.into()]).await? else {
        return Ok(None);
    };
    Ok(Some(Old { version: Version::from_row(&mut row)?, created_at: row.int()?, updated_at: row.int()? }))
}

fn check(key: &Key, old: Option<&Old>, condition: Option<&Condition>) -> Result<()> {
    let Some(condition) = condition else {
        return Ok(());
    };
    // All that a condition looks at is the etag.
    let current = old.map(|old| {
        let mut entry = Entry::new(key.clone(), 0);
        entry.etag = Some(old.version.etag());
        entry
    });
    condition.check(current.as_ref())
}

/// The version, creation and modification time of what replaces `old`.
async fn stamp(db: &mut Db<'_>, old: Option<&Old>) -> Result<(Version, i64, i64)> {
    let (version, now) = db.next_version().await?;
    // The clock can step back; the time of a key does not.
    let updated_at = old.map_or(now, |old| now.max(old.updated_at));
    Ok((version, old.map_or(now, |old| old.created_at), updated_at))
}

/// Removes an entry; its fields, tags and chunks go with it.
async fn remove(db: &mut Db<'_>, version: i64) -> Result<()> {
    let sql = format!("DELETE FROM {} WHERE version = ?", db.store.tables.entries);
    db.execute(sql, vec![version.into()]).await.map(drop)
}

fn no_source(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "the source does not exist").with_key(key)
}

fn changed(key: &Key) -> Error {
    Error::new(ErrorKind::Conflict, "the source was overwritten while it was copied; copy it again").with_key(key)
}
