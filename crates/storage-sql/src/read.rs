//! Reading one key.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use storage_core::{Body, Entry, Error, ErrorKind, GetOptions, Key, Metadata, Object, Result, StatOptions, VersionId};

use crate::{
    chunks::Upload,
    session::{Db, Session, Version},
    value::{Row, Value},
};

/// How often a value that is overwritten while it is collected is read again.
const ATTEMPTS: usize = 10;

/// The columns that [`entry`] takes, of the table with the alias `e`.
pub(crate) const ENTRY: &str = "e.version, e.nonce, e.size, e.created_at, e.updated_at";
/// The columns that [`found`] takes.
pub(crate) const FOUND: &str = "e.entry_key, e.version, e.nonce, e.size, e.created_at, e.updated_at, e.metadata, e.chunk, \
                                e.upload, e.data";

/// A value as the database has it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) value: Stored,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    Inline(Bytes),
    /// In chunks of this size, under this upload's number.
    Chunks {
        upload: i64,
        chunk: u64,
    },
}

impl Session {
    pub(crate) async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let mut attempts = 0;
        loop {
            let found = self.find(key, options.version.as_ref()).await?;
            match self.object(found, &options).await {
                Err(e) if e.kind() == ErrorKind::Conflict && options.prefer_buffered && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                done => return done,
            }
        }
    }

    pub(crate) async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        if options.version.is_some() {
            let found = self.find(key, options.version.as_ref()).await?;
            return found.map(|found| found.entry.sound()).transpose();
        }
        let wanted = key.clone();
        let versioned = self.store.versions.is_some();
        self.read(move |mut db| {
            let wanted = wanted.clone();
            Box::pin(async move {
                let entries = &db.store.tables.entries;
                let sql = format!("SELECT {ENTRY}, e.metadata FROM {entries} e WHERE e.entry_key = ?");
                let Some(mut row) = db.fetch_one(sql, vec![(&wanted).into()]).await? else {
                    return Ok(None);
                };
                let entry = entry(wanted, versioned, &mut row);
                described(entry, &mut row).sound().map(Some)
            })
        })
        .await
    }

    pub(crate) async fn find(&self, key: &Key, version: Option<&VersionId>) -> Result<Option<Found>> {
        if let Some(version) = version {
            return self.find_version(key, version).await;
        }
        let key = key.clone();
        self.read(move |mut db| {
            let key = key.clone();
            Box::pin(async move { find(&mut db, &key).await })
        })
        .await
    }

    /// The answer to a get: what was asked for, of what was found.
    pub(crate) async fn object(&self, found: Option<Found>, options: &GetOptions) -> Result<Option<Object>> {
        options.check_current(found.as_ref().map(|found| &found.entry))?;
        let Some(found) = found else {
            return Ok(None);
        };
        let size = found.entry.size;
        let range = match options.range {
            Some(range) => range.resolve(size)?,
            None => 0..size,
        };
        let body = match found.value {
            // An inline value has no more bytes than fit into memory.
            Stored::Inline(data) => data.slice(range.start as usize..range.end as usize).into(),
            Stored::Chunks { upload, chunk } => {
                let len = range.end - range.start;
                let body = Body::with_len(len, self.chunks(&found.entry.key, Upload { upload, chunk, size }, range));
                match options.prefer_buffered {
                    true => body.bytes(u64::MAX).await?.into(),
                    false => body,
                }
            }
        };
        Ok(Some(Object::new(found.entry, body)))
    }
}

/// The value of a key, its bytes included if they are inline.
pub(crate) async fn find(db: &mut Db<'_>, key: &Key) -> Result<Option<Found>> {
    Ok(find_all(db, std::slice::from_ref(key)).await?.pop())
}

/// The values of those keys that have one, in any order.
pub(crate) async fn find_all(db: &mut Db<'_>, keys: &[Key]) -> Result<Vec<Found>> {
    let places = vec!["?"; keys.len()].join(", ");
    let sql = format!("SELECT {FOUND} FROM {} e WHERE e.entry_key IN ({places})", db.store.tables.entries);
    let rows = db.fetch(sql, keys.iter().map(Value::from).collect()).await?;
    let versioned = db.store.versions.is_some();
    let found = rows.into_iter().filter_map(|mut row| found(versioned, &mut row).transpose());
    found.collect()
}

/// A value from the columns [`FOUND`], which may be damaged; `None` when somebody else has put there what cannot be a key.
pub(crate) fn found(versioned: bool, row: &mut Row) -> Result<Option<Found>> {
    let Some(key) = key(&row.bytes()?) else {
        return Ok(None);
    };
    let entry = described(entry(key, versioned, row), row);
    let value = match (row.optional_int(), row.optional_int(), row.optional_bytes()) {
        (Ok(None), _, Ok(Some(data))) if data.len() as u64 == entry.size => Stored::Inline(data),
        (Ok(Some(chunk @ 1..)), Ok(Some(upload)), _) => Stored::Chunks { upload, chunk: chunk as u64 },
        _ => {
            let entry = if entry.damaged.is_some() { entry } else { entry.into_damaged(damaged()) };
            return Ok(Some(Found { entry, value: Stored::Inline(Bytes::new()) }));
        }
    };
    Ok(Some(Found { entry, value }))
}

/// An entry, without metadata, from the columns [`ENTRY`]. It is damaged if somebody has put there what nobody can read.
pub(crate) fn entry(key: Key, versioned: bool, row: &mut Row) -> Entry {
    let [number, nonce, size, created, modified] = [(); 5].map(|()| row.int());
    let size = size.and_then(|size| u64::try_from(size).map_err(|_| damaged()));
    let mut entry = Entry::new(key, size.as_ref().map_or(0, |size| *size));
    entry.created = created.ok().map(time);
    entry.modified = modified.ok().map(time);
    match (number, nonce, size) {
        (Ok(number), Ok(nonce), Ok(_)) => {
            let version = Version { number, nonce };
            entry.etag = Some(version.etag());
            entry.version = versioned.then(|| version.id());
            entry
        }
        (Err(e), ..) | (_, Err(e), _) | (.., Err(e)) => entry.into_damaged(e),
    }
}

/// The entry with the metadata of the next column, or damaged if that is not readable.
pub(crate) fn described(mut entry: Entry, row: &mut Row) -> Entry {
    match row.text().and_then(|json| Metadata::from_json(&json)) {
        Ok(metadata) if entry.damaged.is_none() => {
            entry.metadata = Some(metadata.into());
            entry
        }
        Err(e) if entry.damaged.is_none() => entry.into_damaged(e),
        _ => entry,
    }
}

/// A key as it stands in the database, unless somebody else has put there what cannot be one.
pub(crate) fn key(bytes: &[u8]) -> Option<Key> {
    let key = std::str::from_utf8(bytes).ok().map(Key::parse);
    if let Some(Ok(key)) = key {
        return Some(key);
    }
    tracing::warn!("skipping a row whose key is not one of ours");
    None
}

/// Microseconds since 1970 as a point in time.
pub(crate) fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.max(0).unsigned_abs())
}

pub(crate) fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "the stored bytes are not as many as the value has")
}

pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "the stored metadata is not readable")
}
