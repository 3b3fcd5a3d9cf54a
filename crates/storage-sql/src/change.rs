//! Writing, deleting, copying and moving one key.

use storage_core::{
    Body, Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, Key, PutOptions, RenameOptions, Result,
    StorageBackend, defaults,
};

use crate::{
    read::{self, Stored},
    session::{Db, Session, Version},
    staging::{Content, Received},
    versions,
    write::{Item, bounds, delete, remove, see_deletes, see_deletes_between, write_one, write_plain},
};

impl Session {
    pub(crate) async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let received = self.receive(body).await?;
        let item = Item::new(key.clone(), received.content.clone(), options)?;
        self.put_received(item, received).await
    }

    async fn put_received(&self, item: Item, received: Received) -> Result<Entry> {
        if item.is_plain() && self.store.versions.is_none() && !self.store.dialect.one_writer() {
            let plain = item.clone();
            let written = self.write_once(move |mut db| {
                let item = plain.clone();
                Box::pin(async move { write_plain(&mut db, &item).await })
            });
            if let Some(entry) = written.await? {
                return Ok(entry);
            }
        }
        let entry = self.write(move |mut db| {
            let item = item.clone();
            Box::pin(async move { write_one(&mut db, item).await })
        });
        let entry = entry.await?;
        received.keep();
        Ok(entry)
    }

    pub(crate) async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        if let Some(version) = &options.version {
            return self.delete_version(key, version).await;
        }
        let key = key.clone();
        if self.store.versions.is_some() {
            return self
                .write(move |mut db| {
                    let (key, options) = (key.clone(), options.clone());
                    Box::pin(async move { versions::delete(&mut db, &key, &options).await })
                })
                .await;
        }
        self.write_once(move |mut db| {
            let (key, options) = (key.clone(), options.clone());
            Box::pin(async move { delete(&mut db, &key, &options).await })
        })
        .await
    }

    pub(crate) async fn clear(&self, prefix: &str) -> Result<()> {
        let bounds = bounds(prefix);
        if self.store.versions.is_some() {
            return self
                .write(move |mut db| {
                    let bounds = bounds.to_vec();
                    Box::pin(async move { versions::clear(&mut db, bounds).await })
                })
                .await;
        }
        self.write_once(move |mut db| {
            let bounds = bounds.to_vec();
            Box::pin(async move {
                see_deletes_between(&mut db, &bounds).await?;
                let entries = &db.store.tables.entries;
                let sql = format!("DELETE FROM {entries} WHERE entry_key >= ? AND entry_key < ?");
                db.execute(sql, bounds).await.map(drop)
            })
        })
        .await
    }

    pub(crate) async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let source = self.find(from, options.version.as_ref()).await?.ok_or_else(|| no_source(from))?;
        if let Some(reason) = source.entry.damaged {
            return Err(reason);
        }
        if from == to && options == CopyOptions::new() {
            return Ok(source.entry);
        }
        let mut put = PutOptions::new();
        put.condition = options.condition;
        match source.value {
            Stored::Chunks { upload, chunk } => {
                put.metadata = options.metadata.or(source.entry.metadata);
                let staged = self.stage_copy(from, upload, chunk, source.entry.size).await?;
                let item = Item::new(to.clone(), staged.content.clone(), put)?;
                self.put_received(item, staged).await
            }
            // A version does not change.
            Stored::Inline(data) if options.version.is_some() => {
                put.metadata = options.metadata.or(source.entry.metadata);
                self.put(to, data.into(), put).await
            }
            // The source is read again in the same step as the target is written.
            Stored::Inline(_) => {
                let (from, to) = (from.clone(), to.clone());
                self.write(move |mut db| {
                    let (from, to, mut put, metadata) =
                        (from.clone(), to.clone(), put.clone(), options.metadata.clone());
                    Box::pin(async move {
                        let source = read::find(&mut db, &from).await?;
                        let source = source.ok_or_else(|| no_source(&from))?;
                        if let Some(reason) = source.entry.damaged {
                            return Err(reason);
                        }
                        let Stored::Inline(data) = source.value else {
                            return Err(changed(&from));
                        };
                        put.metadata = metadata.or(source.entry.metadata);
                        write_one(&mut db, Item::new(to, Content::Inline(data), put)?).await
                    })
                })
                .await
            }
        }
    }

    pub(crate) async fn rename(
        &self,
        this: &dyn StorageBackend,
        from: &Key,
        to: &Key,
        options: RenameOptions,
    ) -> Result<Entry> {
        // With source and target the same nothing moves, and the default knows what the condition then means. With versions,
        // both keys keep their own.
        if from == to || self.store.versions.is_some() {
            return defaults::rename(this, from, to, options).await;
        }
        let (from, to) = (from.clone(), to.clone());
        self.write(move |mut db| {
            let (from, to, options) = (from.clone(), to.clone(), options.clone());
            Box::pin(async move { rename(&mut db, &from, &to, &options).await })
        })
        .await
    }
}

/// The value stays where it is; its fields, tags and chunks follow the entry.
async fn rename(db: &mut Db<'_>, from: &Key, to: &Key, options: &RenameOptions) -> Result<Entry> {
    see_deletes(db, &[from.clone(), to.clone()]).await?;
    let entries = &db.store.tables.entries;
    let lock = db.store.dialect.lock();
    let sound = db.store.dialect.sound(entries);
    let sql = format!(
        "SELECT entry_key, id, CASE WHEN {sound} THEN 1 ELSE 0 END, version, nonce, created_at FROM {entries} \
         WHERE entry_key IN (?, ?) ORDER BY entry_key{lock}"
    );
    let (mut source, mut target) = (None, None);
    for mut row in db.fetch(sql, vec![from.into(), to.into()]).await? {
        let own = row.bytes()? == from.as_str();
        let found = (row.int()?, Version::sound(&mut row)?, row.int().ok());
        *if own { &mut source } else { &mut target } = Some(found);
    }
    let (id, version, _) = source.ok_or_else(|| no_source(from))?;
    if version.is_none() {
        return Err(read::unreadable().with_key(from));
    }
    if let Some(condition) = &options.condition {
        check(condition, to, target.map(|(_, version, _)| version))?;
    }
    if let Some((id, ..)) = target {
        remove(db, entries, "id", &[id]).await?;
    }
    db.advance(1).await?;
    let (now, version) = (db.store.dialect.now(), db.store.dialect.version(&db.store.tables, 0));
    let sql = format!(
        "UPDATE {entries} SET version = {version}, nonce = ?, entry_key = ?, created_at = coalesce(?, {now}), \
         updated_at = {now} WHERE id = ?"
    );
    let created_at = target.and_then(|(.., created_at)| created_at);
    db.execute(sql, vec![fastrand::i64(..).into(), to.into(), created_at.into(), id.into()]).await?;
    let moved = read::find(db, to).await?;
    moved.map(|moved| moved.entry).ok_or_else(|| no_source(from))
}

fn check(condition: &Condition, key: &Key, current: Option<Option<Version>>) -> Result<()> {
    // All that a condition looks at is the etag, which nothing damaged has.
    let current = current.map(|version| {
        let mut entry = Entry::new(key.clone(), 0);
        entry.etag = version.map(Version::etag);
        entry
    });
    condition.check(current.as_ref())
}

fn no_source(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "the source does not exist").with_key(key)
}

fn changed(key: &Key) -> Error {
    Error::new(ErrorKind::Conflict, "the source was overwritten while it was copied; copy it again").with_key(key)
}
