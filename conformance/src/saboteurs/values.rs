//! Values that do not come back.

use std::{collections::HashMap, sync::Arc};

use futures_util::{FutureExt, TryStreamExt};
use storage_core::{
    Body, Bytes, Capabilities, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions, Object,
    PutOptions, Result, StatOptions, StorageBackend, async_trait, defaults,
};
use tokio::sync::Mutex;

use super::{
    Saboteur, Sound, table,
    wrap::{Fault, Sides, value, whole, wrap},
};

table! {
    truncates_large = TruncatesLarge => [];
    empty_is_absence = EmptyIsAbsence => [];
    zeroes_are_holes = ZeroesAreHoles => [];
    overwrites_in_place = OverwritesInPlace => [];
    missing_is_an_error = MissingIsAnError => [];
    delete_of_missing_fails = DeleteOfMissingFails => [];
    deletes_what_begins_so = DeletesWhatBeginsSo => [];
    returns_another_size = ReturnsAnotherSize => [];
    stale_cache = StaleCache::default() => [];
}

/// What was written last before an instance is opened is gone.
pub(super) const LOSES_THE_TAIL: Saboteur = Saboteur {
    group: module_path!(),
    name: "loses_the_tail_on_recovery",
    catches: &[],
    pins: Capabilities::new(),
    wrap: |inner, _| {
        // The store below never waits.
        let _ = recover(&inner).now_or_never();
        wrap(inner, Sound)
    },
};

async fn recover(inner: &Arc<dyn StorageBackend>) -> Result<()> {
    let entries: Vec<Entry> = defaults::entries(inner.list(ListOptions::new()).await?).try_collect().await?;
    match entries.iter().max_by_key(|entry| entry.modified) {
        Some(last) => inner.delete(&last.key, DeleteOptions::new()).await,
        None => Ok(()),
    }
}

#[derive(Debug)]
struct TruncatesLarge;

#[async_trait]
impl Fault for TruncatesLarge {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        s.inner.put(key, bytes.slice(..bytes.len().min(65_536)).into(), options).await
    }
}

#[derive(Debug)]
struct EmptyIsAbsence;

#[async_trait]
impl Fault for EmptyIsAbsence {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        Ok(s.inner.get(key, options).await?.filter(|object| object.entry.size > 0))
    }
}

#[derive(Debug)]
struct ZeroesAreHoles;

#[async_trait]
impl Fault for ZeroesAreHoles {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        s.inner.put(key, bytes.slice(..end).into(), options).await
    }
}

#[derive(Debug)]
struct OverwritesInPlace;

#[async_trait]
impl Fault for OverwritesInPlace {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut bytes = whole(body).await?.to_vec();
        if let Some(old) = value(s, key).await?
            && old.len() > bytes.len()
        {
            bytes.extend_from_slice(&old[bytes.len()..]);
        }
        s.inner.put(key, bytes.into(), options).await
    }
}

#[derive(Debug)]
struct MissingIsAnError;

#[async_trait]
impl Fault for MissingIsAnError {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let found = s.inner.get(key, options).await?;
        found.map(Some).ok_or_else(|| Error::new(ErrorKind::NotFound, "the key does not exist"))
    }
}

#[derive(Debug)]
struct DeleteOfMissingFails;

#[async_trait]
impl Fault for DeleteOfMissingFails {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if options == DeleteOptions::new() && s.inner.stat(key, StatOptions::new()).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, "the key does not exist"));
        }
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct DeletesWhatBeginsSo;

#[async_trait]
impl Fault for DeletesWhatBeginsSo {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if options == DeleteOptions::new() {
            return s.inner.clear(key.as_str()).await;
        }
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct ReturnsAnotherSize;

#[async_trait]
impl Fault for ReturnsAnotherSize {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        entry.size += 1;
        Ok(entry)
    }
}

/// Never hears of what other instances write.
#[derive(Debug, Default)]
struct StaleCache {
    cached: Mutex<HashMap<Key, (Entry, Bytes)>>,
}

#[async_trait]
impl Fault for StaleCache {
    const DERIVED: bool = true;

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if options.clone().whole(false) != GetOptions::new() {
            return s.inner.get(key, options).await;
        }
        // Held while it loads, so that an own write cannot come in between.
        let mut cached = self.cached.lock().await;
        if let Some((entry, bytes)) = cached.get(key) {
            return Ok(Some(Object::new(entry.clone(), bytes.clone())));
        }
        let Some(object) = s.inner.get(key, options).await? else { return Ok(None) };
        let bytes = whole(object.body).await?;
        cached.insert(key.clone(), (object.entry.clone(), bytes.clone()));
        Ok(Some(Object::new(object.entry, bytes)))
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let body = whole(body).await?;
        let mut cached = self.cached.lock().await;
        cached.remove(key);
        s.inner.put(key, body.into(), options).await
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        let mut cached = self.cached.lock().await;
        cached.remove(key);
        s.inner.delete(key, options).await
    }
}
