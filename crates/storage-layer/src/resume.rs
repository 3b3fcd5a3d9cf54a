//! How to go on with a stream that broke.

use std::{ops::Range, sync::Arc};

use futures_util::TryStreamExt;
use storage_core::{
    Body, BoxFuture, BoxStream, ByteStream, Bytes, Entry, EntryStream, Error, ErrorKind, GetOptions, Key, ListItem,
    ListOptions, ListStream, Query, Result, StorageBackend,
};

/// Knows how far a stream was read and can open the rest of it.
pub trait Resume<T>: Send + Sync + 'static {
    /// Takes note of an item that was delivered.
    fn seen(&mut self, item: &T);

    /// The rest of the stream, opened anew. It never mixes two versions of a value: if the value changed, this fails with
    /// `Conflict`, and if that cannot be known, with `Unavailable`.
    fn reopen(&self) -> BoxFuture<'static, Result<BoxStream<'static, Result<T>>>>;
}

/// The body of a `get`: at its offset, under the same etag or version.
pub(crate) struct ResumeGet<S: ?Sized> {
    inner: Arc<S>,
    key: Key,
    options: GetOptions,
    /// What is still to come.
    rest: Range<u64>,
    pinned: bool,
}

impl<S: ?Sized> ResumeGet<S> {
    pub(crate) fn new(inner: &Arc<S>, mut options: GetOptions, entry: &Entry, rest: Range<u64>) -> Self {
        options.if_none_match = None;
        if options.version.is_none() {
            options.if_match = entry.etag.clone();
        }
        let pinned = options.version.is_some() || options.if_match.is_some();
        Self { inner: inner.clone(), key: entry.key.clone(), options, rest, pinned }
    }
}

impl<S: StorageBackend + ?Sized> Resume<Bytes> for ResumeGet<S> {
    fn seen(&mut self, piece: &Bytes) {
        self.rest.start += piece.len() as u64;
    }

    fn reopen(&self) -> BoxFuture<'static, Result<ByteStream>> {
        let (inner, key, pinned) = (self.inner.clone(), self.key.clone(), self.pinned);
        let (len, options) = (self.rest.end - self.rest.start, self.options.clone().range(self.rest.clone()));
        Box::pin(async move {
            if !pinned {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the body broke off and cannot be resumed, because the backend gives no etag",
                ));
            }
            let changed =
                || Error::new(ErrorKind::Conflict, "the value changed while it was read; read it again from the start");
            match inner.get(&key, options).await {
                Ok(Some(rest)) => Ok(Body::from_backend(len, rest.body.into_stream()).into_stream()),
                Ok(None) => Err(changed()),
                Err(e) if e.kind() == ErrorKind::PreconditionFailed => Err(changed().with_source(e)),
                Err(e) => Err(e),
            }
        })
    }
}

/// A listing: behind its last item.
pub(crate) struct ResumeList<S: ?Sized> {
    pub(crate) inner: Arc<S>,
    pub(crate) options: ListOptions,
}

impl<S: StorageBackend + ?Sized> Resume<ListItem> for ResumeList<S> {
    fn seen(&mut self, item: &ListItem) {
        self.options.start_after = Some(item.position().to_owned());
        self.options.limit = self.options.limit.map(|n| n.saturating_sub(1));
    }

    fn reopen(&self) -> BoxFuture<'static, Result<ListStream>> {
        let (inner, options) = (self.inner.clone(), self.options.clone());
        Box::pin(async move { inner.list(options).await })
    }
}

/// A query: from the continuation behind its last entry.
pub(crate) struct ResumeQuery<S: ?Sized> {
    pub(crate) inner: Arc<S>,
    pub(crate) query: Query,
}

impl<S: StorageBackend + ?Sized> Resume<Entry> for ResumeQuery<S> {
    fn seen(&mut self, entry: &Entry) {
        self.query.continuation = Some(self.query.continuation_after(entry));
        self.query.limit = self.query.limit.map(|n| n.saturating_sub(1));
    }

    fn reopen(&self) -> BoxFuture<'static, Result<EntryStream>> {
        let (inner, query) = (self.inner.clone(), self.query.clone());
        Box::pin(async move { inner.query(query).await })
    }
}

/// The versions of a value: from the start, without those already seen.
pub(crate) struct ResumeVersions<S: ?Sized> {
    pub(crate) inner: Arc<S>,
    pub(crate) key: Key,
    pub(crate) last: Option<Entry>,
}

impl<S: StorageBackend + ?Sized> Resume<Entry> for ResumeVersions<S> {
    fn seen(&mut self, entry: &Entry) {
        self.last = Some(entry.clone());
    }

    fn reopen(&self) -> BoxFuture<'static, Result<EntryStream>> {
        let (inner, key, last) = (self.inner.clone(), self.key.clone(), self.last.clone());
        Box::pin(async move {
            let versions = inner.versions(&key).await?;
            let Some(last) = last else {
                return Ok(versions);
            };
            let mut versions = versions;
            while let Some(entry) = versions.try_next().await? {
                if entry.version == last.version {
                    return Ok(versions);
                }
            }
            Err(Error::new(ErrorKind::Conflict, "versions were deleted while they were listed; list them again"))
        })
    }
}
