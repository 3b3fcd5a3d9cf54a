//! Ranged reads of one value, several at once.

use std::{ops::Range, sync::Arc};

use futures_util::{StreamExt, stream};

use super::Storage;
use crate::{
    Body, ByteRange, Entry, Error, ErrorKind, GetOptions, Key, Object, Result, StorageBackend, options::ParallelReads,
};

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// The object, whose body asks for `how.at_once` ranges at once if it is larger than one. The first says how large the value is, and
    /// which it is: the others are read of no other.
    pub(super) async fn get_parallel(
        backend: &Arc<B>,
        key: &Key,
        options: GetOptions,
        how: ParallelReads,
    ) -> Result<Option<Object>> {
        let asked = options.range.unwrap_or(ByteRange::From(0));
        let first = match asked {
            ByteRange::From(start) => start..start.saturating_add(how.chunk),
            ByteRange::Bounded(start, end) => start..end.min(start.saturating_add(how.chunk)),
            // Where it begins, only the size tells.
            ByteRange::Suffix(_) => 0..0,
        };
        let Some(object) = backend.get(key, options.clone().range(first.clone())).await? else { return Ok(None) };
        let Object { entry, body } = object;
        let wanted = asked.resolve(entry.size)?;
        let first = first.start..first.end.min(entry.size);
        if first == wanted {
            return Ok(Some(Object { entry, body }));
        }
        let Some(pinned) = pinned(&options, &entry) else {
            // Nothing would tell this value from the next one.
            return backend.get(key, options).await;
        };
        // One that begins elsewhere has been read for its size alone.
        let begun = first.start == wanted.start && !first.is_empty();
        let rest = if begun { first.end..wanted.end } else { wanted.clone() };
        let begun = begun.then_some((body, first));
        let chunks = begun.map(|(body, range)| (Some(body), range)).into_iter();
        let chunks = chunks.chain(ranges(rest, how.chunk).map(|range| (None, range)));
        let read = {
            let (backend, key, size) = (backend.clone(), key.clone(), entry.size);
            move |(body, range): (Option<Body>, Range<u64>)| {
                let (backend, key, options) = (backend.clone(), key.clone(), pinned.clone());
                async move {
                    let len = range.end - range.start;
                    let body = match body {
                        Some(body) => body,
                        None => again(&*backend, &key, options.range(range), size).await?,
                    };
                    body.expecting(len).bytes(len).await
                }
            }
        };
        let pieces = stream::iter(chunks).map(read).buffered(how.at_once);
        let len = wanted.end - wanted.start;
        Ok(Some(Object { entry, body: Body::from_backend(len, pieces) }))
    }
}

/// The same options, for further ranges of the value that this entry describes; `None` where it has neither version nor etag.
fn pinned(options: &GetOptions, entry: &Entry) -> Option<GetOptions> {
    let mut pinned = options.clone();
    pinned.if_none_match = None;
    pinned.prefer_buffered = true;
    pinned.entry = false;
    if pinned.version.is_none() {
        pinned.if_match = Some(entry.etag.clone()?);
    }
    Some(pinned)
}

/// Another part of the value.
async fn again<B: StorageBackend + ?Sized>(backend: &B, key: &Key, options: GetOptions, size: u64) -> Result<Body> {
    let changed =
        || Error::new(ErrorKind::Conflict, "the value changed while it was read in several ranges; read again");
    match backend.get(key, options).await {
        Ok(Some(object)) if object.entry.size == size => Ok(object.body),
        Ok(_) => Err(changed()),
        Err(e) if matches!(e.kind(), ErrorKind::PreconditionFailed | ErrorKind::RangeNotSatisfiable) => Err(changed()),
        Err(e) => Err(e),
    }
}

fn ranges(whole: Range<u64>, chunk: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = whole.start;
    std::iter::from_fn(move || {
        let range = start..start.saturating_add(chunk).min(whole.end);
        start = range.end;
        (!range.is_empty()).then_some(range)
    })
}
