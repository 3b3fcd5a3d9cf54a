//! Older versions: finding, reading, listing and deleting them.

use std::cmp::Reverse;

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    Condition, DeleteOptions, Entry, EntryStream, ErrorKind, GetOptions, Key, ListOptions, Object, Result, StatOptions,
    StorageBackend, VersionId, defaults,
};

use crate::{
    Versioned,
    change::{ATTEMPTS, beaten},
    names::{self, Past},
    stamp,
};

/// A version that was found.
pub(crate) struct Found {
    /// The user's entry.
    pub(crate) entry: Entry,
    /// Where it lies; `None` while it is the value of its key.
    pub(crate) past: Option<Past>,
}

impl<S: StorageBackend + ?Sized> Versioned<S> {
    /// The names of the older versions of a key, oldest first.
    pub(crate) async fn past(&self, key: &Key, metadata: bool) -> Result<Vec<Past>> {
        let history = names::history(key);
        let options = ListOptions::new().prefix(history.as_str()).metadata(metadata);
        let stored = defaults::entries(self.inner.list(options).await?);
        let past = stored.try_filter_map(|entry| std::future::ready(Ok(Past::parse(&history, entry))));
        past.try_collect().await
    }

    /// The value looked at first: a value that becomes an older version meanwhile is then among those.
    pub(crate) async fn find(&self, key: &Key, version: &VersionId) -> Result<Option<Found>> {
        let value = self.stated(key).await?;
        if let Some(value) = value.as_ref().filter(|value| value.version.as_ref() == Some(version)) {
            return Ok(Some(Found { entry: value.clone(), past: None }));
        }
        let past = self.past_versions(key, version).await?;
        let Some((past, entry)) = past.into_iter().next() else {
            // It may be the damaged value.
            return value.and_then(|value| value.damaged).map_or(Ok(None), Err);
        };
        Ok(Some(Found { entry: entry.sound()?, past: Some(past) }))
    }

    /// The value's entry; a damaged one has no version.
    async fn stated(&self, key: &Key) -> Result<Option<Entry>> {
        match self.stat(key, StatOptions::new()).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(Entry::new(key.clone(), 0).into_damaged(e))),
            value => value,
        }
    }

    /// The copies of this version among the older ones, newest first. There are several after races and crashes only.
    async fn past_versions(&self, key: &Key, version: &VersionId) -> Result<Vec<(Past, Entry)>> {
        let mark = names::mark(version);
        let mut found = Vec::new();
        for past in self.past(key, false).await?.into_iter().rev().filter(|past| past.mark == mark) {
            let stored = match self.inner.stat(&past.stored.key, StatOptions::new()).await {
                Err(e) if e.kind() == ErrorKind::Corrupt => past.stored.clone().into_damaged(e),
                // It may have been deleted since.
                Ok(None) => continue,
                Ok(Some(stored)) => stored,
                Err(e) => return Err(e),
            };
            match entry(key, stored) {
                // What a damaged one is, only its mark tells.
                Some(entry) if entry.damaged.is_some() || entry.version.as_ref() == Some(version) => {
                    found.push((past, entry));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Reads a version.
    pub(crate) async fn get_version(
        &self,
        key: &Key,
        version: &VersionId,
        options: GetOptions,
    ) -> Result<Option<Object>> {
        for _ in 0..ATTEMPTS {
            let found = self.find(key, version).await?;
            options.check_current(found.as_ref().map(|found| &found.entry))?;
            let Some(Found { entry, past }) = found else {
                return Ok(None);
            };
            let mut read = GetOptions::new().prefer_buffered(options.prefer_buffered);
            read.range = options.range;
            if let Some(past) = past {
                let object = self.inner.get(&past.stored.key, read).await?;
                return Ok(object.map(|object| Object::new(entry, object.body)));
            }
            read.if_match = entry.etag;
            match self.get(key, read).await {
                Ok(Some(object)) if object.entry.version.as_ref() == Some(version) => return Ok(Some(object)),
                // It has become an older version in the meantime.
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::PreconditionFailed => {}
                Err(e) => return Err(e),
            }
        }
        Err(beaten())
    }

    /// All versions, newest first, the value looked at first as in `find`.
    pub(crate) async fn all_versions(&self, key: &Key) -> Result<EntryStream> {
        let value = self.stated(key).await?;
        let mut entries = Vec::from_iter(value);
        let mut past = self.past(key, true).await?;
        past.sort_by_key(|past| Reverse(past.number));
        for past in past {
            let Some(entry) = entry(key, past.stored) else {
                continue;
            };
            // A crash between archiving a value and replacing it leaves both.
            if entry.damaged.is_some() || entries.iter().all(|known| known.version != entry.version) {
                entries.push(entry);
            }
        }
        Ok(stream::iter(entries.into_iter().map(Ok)).boxed())
    }

    /// Deletes a version for good. If it is the value, the key is hidden.
    pub(crate) async fn forget(&self, key: &Key, version: &VersionId) -> Result<()> {
        let _turn = self.turn(key).await;
        self.forget_value(key, version).await?;
        for (past, _) in self.past_versions(key, version).await? {
            self.discard(past.stored).await?;
        }
        Ok(())
    }

    async fn forget_value(&self, key: &Key, version: &VersionId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let value = self.stated(key).await?;
            let Some(value) = value.filter(|value| value.version.as_ref() == Some(version)) else {
                return Ok(());
            };
            let mut options = DeleteOptions::new();
            if self.inner.info().capabilities.conditional_delete {
                options.condition = value.etag.map(Condition::IfMatch);
            }
            match self.inner.delete(&names::key_below(key)?, options).await {
                Err(e) if e.kind() == ErrorKind::PreconditionFailed => {}
                done => return done,
            }
        }
        Err(beaten())
    }

    /// Deletes what lies under one of the layer's own names. A backend with versions of its own must not keep one of it.
    pub(crate) async fn discard(&self, stored: Entry) -> Result<()> {
        let mut options = DeleteOptions::new();
        options.version = stored.version.filter(|_| self.inner.info().capabilities.versioning);
        self.inner.delete(&stored.key, options).await
    }
}

/// The user's entry for the entry of an older version, damaged if its stamp is; `None` for what others put among them.
fn entry(key: &Key, mut stored: Entry) -> Option<Entry> {
    stored.key = key.clone();
    let reason = match (stored.damaged.take(), stored.metadata.as_ref().map(stamp::detach)) {
        (Some(reason), _) => reason.map_key(|_| None),
        (None, Some(Err(reason))) => reason,
        (None, None | Some(Ok((_, None)))) => return None,
        (None, Some(Ok((metadata, Some(note))))) => {
            stored.metadata = Some(metadata);
            match stamp::read(&note, &mut stored) {
                Ok(()) => return Some(stored),
                Err(reason) => reason,
            }
        }
    };
    stored.version = None;
    Some(stored.into_damaged(reason))
}
