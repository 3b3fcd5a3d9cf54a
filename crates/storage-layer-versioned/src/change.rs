//! Writes: what is there is archived, then replaced or deleted on condition that it still is what was archived.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    Body, Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions, Key, ListOptions, Metadata,
    Object, PutOptions, Result, StatOptions, StorageBackend, VersionId, defaults,
};

use crate::{
    Versioned,
    names::{self, Past},
    stamp,
};

/// How often a writer that others overtake begins again. One of them succeeds each time, so this many are a sign of a
/// backend that does not know its own etags.
pub(crate) const ATTEMPTS: usize = 1000;
/// How much of a stream is held in memory before it is staged.
const WHOLE: usize = 1 << 20;
/// After this time a staged value belongs to nobody: it is staged when it has arrived, and copied at once.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What happens to a value.
pub(crate) enum Change {
    Put { source: Source, metadata: Option<Arc<Metadata>> },
    Delete,
}

/// Where a new value comes from.
pub(crate) enum Source {
    /// From memory, as often as needed.
    Whole(Body),
    /// From a stream, which can be read once and at its own pace: only for a caller whose condition forbids a second try,
    /// and while nobody waits.
    Once(Body),
    /// From a key below.
    Copy(Key),
}

/// What a change finds.
enum There {
    Nothing,
    Value(Object),
    /// A value that cannot be read, and so cannot be kept. No etag tells whether it is still there when it is replaced.
    Damaged(Entry),
}

/// The older versions of a key, oldest first, and the one that was added.
struct Archived {
    older: Vec<Past>,
    own: Option<Past>,
}

impl There {
    fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Nothing => None,
            Self::Value(value) => Some(&value.entry),
            Self::Damaged(entry) => Some(entry),
        }
    }

    fn etag(&self) -> Option<Etag> {
        self.entry().and_then(|entry| entry.etag.clone())
    }
}

impl<S: StorageBackend + ?Sized> Versioned<S> {
    pub(crate) async fn put_value(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let source = if body.is_in_memory() {
            Source::Whole(body)
        } else if options.condition.is_some() && !self.takes_turns() {
            Source::Once(body)
        } else {
            let body = gathered(body).await?;
            if !body.is_in_memory() {
                return self.put_staged(key, body, options).await;
            }
            body.check(self.info())?;
            Source::Whole(body)
        };
        let change = Change::Put { source, metadata: options.metadata };
        self.change_to_value(key, change, options.condition).await
    }

    /// A large stream is stored aside first: whoever is overtaken could not read it again, and others must not wait for it.
    async fn put_staged(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if let Err(e) = self.sweep().await {
            tracing::warn!(error = %e, "values staged by writers that died could not be removed");
        }
        let staged = self.inner.put(&names::staging(&stamp::token())?, body, PutOptions::new()).await?;
        let metadata = Some(options.metadata.unwrap_or_default());
        let change = Change::Put { source: Source::Copy(staged.key.clone()), metadata };
        let written = self.change_to_value(key, change, options.condition).await;
        if let Err(e) = self.discard(staged).await {
            tracing::warn!(error = %e, "a staged value could not be removed; it will be after a day");
        }
        written
    }

    async fn sweep(&self) -> Result<()> {
        let listing = self.inner.list(ListOptions::new().prefix(names::STAGING)).await?;
        let staged: Vec<Entry> = defaults::entries(listing).try_collect().await?;
        for entry in staged {
            let token = entry.key.as_str().strip_prefix(names::STAGING);
            if token.and_then(stamp::age).is_some_and(|age| age > ABANDONED) {
                self.discard(entry).await?;
            }
        }
        Ok(())
    }

    /// As `change`, which returns an entry unless it deletes.
    pub(crate) async fn change_to_value(
        &self,
        key: &Key,
        change: Change,
        condition: Option<Condition>,
    ) -> Result<Entry> {
        self.change(key, change, condition).await?.ok_or_else(|| Error::new(ErrorKind::Other, "nothing was written"))
    }

    /// Archives the value, changes it, and drops the oldest versions beyond the limit.
    pub(crate) async fn change(
        &self,
        key: &Key,
        mut change: Change,
        condition: Option<Condition>,
    ) -> Result<Option<Entry>> {
        let token = self.give_token(&mut change);
        let stored = names::key_below(key)?;
        let _turn = self.turn(key).await;
        for _ in 0..ATTEMPTS {
            let there = self.there(key, &stored).await?;
            if let Some(condition) = &condition {
                condition.check(there.entry())?;
            }
            if matches!((&there, &change), (There::Nothing, Change::Delete)) {
                return Ok(None);
            }
            let (etag, is_absent) = (there.etag(), matches!(there, There::Nothing));
            let archived = match there {
                There::Value(value) => self.archive(key, Some(value)).await,
                There::Nothing | There::Damaged(_) => self.archive(key, None).await,
            };
            let archived = match archived {
                // The value was replaced while it was read.
                Err(e) if e.kind() == ErrorKind::Conflict && self.has_changed(&stored, &etag).await? => continue,
                // What cannot be read cannot be kept, and must not stay for ever either.
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(error = %e, "a damaged value is replaced without being kept as a version");
                    self.archive(key, None).await?
                }
                archived => archived?,
            };
            let now = etag.map(Condition::IfMatch).or(is_absent.then_some(Condition::IfAbsent));
            match self.apply(&stored, &mut change, condition.clone().or(now)).await {
                Err(e) => {
                    let again = condition.is_none() && is_overtaken(&e);
                    if !e.is_ambiguous() {
                        self.take_back(archived).await;
                    }
                    if !again {
                        return Err(e);
                    }
                }
                Ok(written) => {
                    self.prune(archived, written.is_some()).await;
                    return Ok(written.map(|written| {
                        let mut entry = self.view.value(key.clone(), written);
                        entry.version = token.or(entry.version);
                        entry
                    }));
                }
            }
        }
        Err(beaten())
    }

    /// What is there now.
    async fn there(&self, key: &Key, stored: &Key) -> Result<There> {
        match self.inner.get(stored, GetOptions::new()).await {
            Ok(Some(value)) => match self.view.value(key.clone(), value.entry.clone()) {
                damaged if damaged.damaged.is_some() => Ok(There::Damaged(damaged)),
                _ => Ok(There::Value(value)),
            },
            Ok(None) => Ok(There::Nothing),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                tracing::warn!(error = %e, "a damaged value is replaced without being kept as a version");
                Ok(There::Damaged(Entry::new(key.clone(), 0).into_damaged(e)))
            }
            Err(e) => Err(e),
        }
    }

    /// Gives a new value its token, where etags do not tell versions apart.
    fn give_token(&self, change: &mut Change) -> Option<VersionId> {
        let Change::Put { metadata, .. } = change else {
            return None;
        };
        self.view.tokens.then(|| {
            let token = stamp::token();
            *metadata = Some(Arc::new(stamp::attach(metadata.as_deref(), &token)));
            VersionId::new(token)
        })
    }

    /// Makes the value one of the older versions, under a name that no other writer uses: whoever is overtaken takes its own away, for it
    /// may have come behind versions that are newer, or after the value was deleted for good. Whoever replaces the value keeps its own.
    async fn archive(&self, key: &Key, value: Option<Object>) -> Result<Archived> {
        let older = self.past(key, false).await?;
        let Some(value) = value else {
            return Ok(Archived { older, own: None });
        };
        let mut entry = self.view.value(key.clone(), value.entry);
        let version = entry.version.get_or_insert_with(|| VersionId::new("unknown"));
        let mut own = Past::new(key, names::next(older.last()), names::mark(version), entry.size)?;
        let metadata = stamp::attach(entry.metadata.as_deref(), &stamp::write(&entry));
        let options = PutOptions::new().metadata(metadata);
        let body = match value.body {
            body if body.is_in_memory() && body.len() == Some(entry.size) => body,
            // A body that breaks off must not be taken for the value.
            body => Body::from_backend(entry.size, body.into_stream()),
        };
        own.stored = self.inner.put(&own.stored.key, body, options).await?;
        Ok(Archived { older, own: Some(own) })
    }

    /// The value was not replaced by this writer.
    async fn take_back(&self, archived: Archived) {
        if let Some(own) = archived.own
            && let Err(e) = self.discard(own.stored).await
        {
            tracing::warn!(error = %e, "a copy of a version could not be removed; it stays among the versions");
        }
    }

    async fn has_changed(&self, stored: &Key, etag: &Option<Etag>) -> Result<bool> {
        let now = self.inner.stat(stored, StatOptions::new()).await?;
        Ok(now.and_then(|entry| entry.etag) != *etag)
    }

    /// The change itself, on this condition as far as the backend takes one.
    async fn apply(&self, stored: &Key, change: &mut Change, condition: Option<Condition>) -> Result<Option<Entry>> {
        let capabilities = self.inner.info().capabilities;
        let on_write = condition.clone().filter(|_| capabilities.conditional);
        let Change::Put { source, metadata } = change else {
            let mut options = DeleteOptions::new();
            options.condition = condition.filter(|_| capabilities.conditional_delete);
            return self.inner.delete(stored, options).await.map(|()| None);
        };
        let body = match source {
            Source::Whole(body) => body.try_clone().unwrap_or_default(),
            Source::Once(body) => std::mem::take(body),
            Source::Copy(from) => {
                let mut options = CopyOptions::new();
                options.metadata = metadata.clone();
                options.condition = on_write;
                return self.inner.copy(from, stored, options).await.map(Some);
            }
        };
        let mut options = PutOptions::new();
        options.metadata = metadata.clone();
        options.condition = on_write;
        self.inner.put(stored, body, options).await.map(Some)
    }

    /// Drops the oldest versions beyond the limit, and copies of the newest that writers left which were overtaken or died. The write
    /// has happened: what fails here is done by the next one.
    async fn prune(&self, archived: Archived, there_is_a_value: bool) {
        // With one version, a deleted key keeps none.
        let keep = match self.settings.max_versions.get() {
            1 => 0,
            most => most - usize::from(there_is_a_value),
        };
        let Archived { older, own } = archived;
        let (copies, mut past): (Vec<_>, Vec<_>) = older.into_iter().partition(|older| {
            own.as_ref().is_some_and(|own| own.mark == older.mark && own.stored.size == older.stored.size)
        });
        past.extend(own);
        let excess = past.len().saturating_sub(keep);
        for surplus in copies.into_iter().chain(past.into_iter().take(excess)) {
            if let Err(e) = self.discard(surplus.stored).await {
                tracing::warn!(error = %e, "an old version could not be removed; the next write tries again");
                return;
            }
        }
    }
}

/// Whether another writer was faster, so that nothing was done.
fn is_overtaken(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::PreconditionFailed | ErrorKind::AlreadyExists) && !e.is_ambiguous()
}

pub(crate) fn beaten() -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("write conflict: other writers changed the value first {ATTEMPTS} times in a row; retry later"),
    )
}

/// The body in memory if it is small, else as it was.
async fn gathered(body: Body) -> Result<Body> {
    let len = body.len();
    if len.is_some_and(|len| len > WHOLE as u64) {
        return Ok(body);
    }
    let (mut pieces, mut read, mut stream) = (Vec::new(), 0, body.into_stream());
    while read <= WHOLE {
        let Some(piece) = stream.try_next().await? else {
            let whole = Body::stream(stream::iter(pieces.into_iter().map(Ok)));
            return whole.bytes(u64::MAX).await.map(Body::from);
        };
        read += piece.len();
        pieces.push(piece);
    }
    // No length was declared: a body that is longer than it declares has failed above.
    Ok(Body::stream(stream::iter(pieces.into_iter().map(Ok)).chain(stream)))
}
