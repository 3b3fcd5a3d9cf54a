//! A store whose etags are those of the bytes, and whose clock has whole seconds.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    BackendInfo, Body, Bytes, Condition, DeleteOptions, Entry, EntryStream, Error, ErrorKind, Etag, GetOptions, Key,
    ListItem, ListOptions, ListStream, Object, PutOptions, Result, StatOptions, StorageBackend, Transaction,
    async_trait,
};

use crate::saboteurs::{Fault, Sides, within};

/// The steps of its clock.
const SECOND: Duration = Duration::from_secs(1);
/// So many pieces of a value are single bytes, the others have `PIECE`.
const SINGLE: usize = 40;
const PIECE: usize = 4000;

#[derive(Debug)]
pub(super) struct Weak;

#[async_trait]
impl Fault for Weak {
    const DERIVED: bool = true;

    fn declare(&self, info: &mut BackendInfo) {
        info.capabilities.version_etags = false;
        info.limits.time_granularity = SECOND;
    }

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let found = found(&**s.inner, key, options.version.clone()).await?;
        options.check_current(found.as_ref().map(|found| &found.entry))?;
        let Some(Found { entry, bytes, .. }) = found else {
            return Ok(None);
        };
        let part = match options.range {
            Some(range) => {
                let range = range.resolve(entry.size)?;
                bytes.slice(range.start as usize..range.end as usize)
            }
            None => bytes,
        };
        let entry = match options.entry {
            true => entry,
            false => {
                let mut bare = Entry::new(entry.key, entry.size);
                (bare.etag, bare.version) = (entry.etag, entry.version);
                bare
            }
        };
        Ok(Some(Object::new(entry, in_pieces(part))))
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = body.bytes(s.outer.info().limits.value).await?;
        loop {
            let mut exact = options.clone();
            exact.condition = exactly(&**s.inner, key, options.condition.as_ref()).await?;
            match s.inner.put(key, bytes.clone().into(), exact).await {
                Err(e) if options.condition.is_some() && lost(&e) => {}
                result => {
                    let mut entry = weak(result?, &bytes);
                    (entry.modified, entry.created) = (None, None);
                    return Ok(entry);
                }
            }
        }
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        loop {
            let mut exact = options.clone();
            exact.condition = exactly(&**s.inner, key, options.condition.as_ref()).await?;
            match s.inner.delete(key, exact).await {
                Err(e) if options.condition.is_some() && lost(&e) => {}
                result => return result,
            }
        }
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        Ok(found(&**s.inner, key, options.version).await?.map(|found| found.entry))
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let (inner, metadata) = (s.inner.clone(), options.metadata);
        let items = s.inner.list(options).await?.try_filter_map(move |item| {
            let inner = inner.clone();
            async move {
                let ListItem::Entry(entry) = item else {
                    return Ok(Some(item));
                };
                // One that was deleted meanwhile need not be listed.
                let found = found(&*inner, &entry.key, None).await?;
                Ok(found.map(|mut found| {
                    found.entry.metadata = found.entry.metadata.filter(|_| metadata);
                    ListItem::Entry(found.entry)
                }))
            }
        });
        Ok(items.boxed())
    }

    async fn versions(&self, s: Sides<'_>, key: &Key) -> Result<EntryStream> {
        let (inner, key) = (s.inner.clone(), key.clone());
        let versions = s.inner.versions(&key).await?.try_filter_map(move |entry| {
            let (inner, key) = (inner.clone(), key.clone());
            async move { Ok(found(&*inner, &key, entry.version).await?.map(|found| found.entry)) }
        });
        Ok(versions.boxed())
    }

    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        Ok(within(s.inner.begin().await?, Self))
    }
}

/// A value, with its entry as this store shows it, and its etag below.
struct Found {
    entry: Entry,
    etag: Option<Etag>,
    bytes: Bytes,
}

async fn found(
    inner: &dyn StorageBackend,
    key: &Key,
    version: Option<storage_core::VersionId>,
) -> Result<Option<Found>> {
    let mut options = GetOptions::new().prefer_buffered(true);
    options.version = version;
    let Some(object) = inner.get(key, options).await? else {
        return Ok(None);
    };
    let bytes = object.body.bytes(u64::MAX).await?;
    if bytes.len() as u64 != object.entry.size {
        return Err(Error::new(ErrorKind::Unavailable, "the value broke off; try again"));
    }
    let etag = object.entry.etag.clone();
    Ok(Some(Found { entry: weak(object.entry, &bytes), etag, bytes }))
}

/// The condition on the store below that holds exactly if this one holds now.
async fn exactly(inner: &dyn StorageBackend, key: &Key, condition: Option<&Condition>) -> Result<Option<Condition>> {
    let Some(condition) = condition else {
        return Ok(None);
    };
    let current = found(inner, key, None).await?;
    condition.check(current.as_ref().map(|found| &found.entry))?;
    Ok(Some(current.and_then(|found| found.etag).map_or(Condition::IfAbsent, Condition::IfMatch)))
}

/// Whether another writer was in between.
fn lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PreconditionFailed | ErrorKind::AlreadyExists)
}

fn weak(mut entry: Entry, bytes: &[u8]) -> Entry {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    entry.etag = Some(Etag::new(format!("{:x}-{}", hasher.finish(), bytes.len())));
    entry.modified = entry.modified.map(whole_seconds);
    entry.created = entry.created.map(whole_seconds);
    entry
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// First byte by byte, an empty piece among them, then in pieces.
fn in_pieces(bytes: Bytes) -> Body {
    let len = bytes.len() as u64;
    let pieces = stream::unfold((bytes, 0), |(mut rest, n)| async move {
        if rest.is_empty() {
            return None;
        }
        let size = match n {
            3 => 0,
            _ if n <= SINGLE => 1,
            _ => PIECE,
        };
        let piece = rest.split_to(size.min(rest.len()));
        Some((Ok(piece), (rest, n + 1)))
    });
    Body::from_backend(len, pieces)
}
