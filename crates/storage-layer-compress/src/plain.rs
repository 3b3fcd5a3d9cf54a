//! Reading what lies below: entries with their plain size, and plain values.

use std::sync::Arc;

use storage_core::{Body, Entry, Error, ErrorKind, GetOptions, Key, Object, Result, StatOptions, StorageBackend};

use crate::{
    Foreign,
    decode::decoded,
    format::{HEADER, TRAILER, corrupt, read_header, read_trailer},
    note::{self, Note, detach},
    pieces::Pieces,
    range::{Tail, pinned, replaced},
};

/// How often a read is begun again when the value is replaced between its parts.
const ATTEMPTS: usize = 4;
/// Values up to this size are given out whole where they come whole.
const WHOLE: u64 = 1 << 20;

/// The backend below, as far as reading goes.
#[derive(Debug)]
pub(crate) struct Plain<S: ?Sized> {
    pub(crate) inner: Arc<S>,
    pub(crate) foreign: Foreign,
}

impl<S: ?Sized> Clone for Plain<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), foreign: self.foreign }
    }
}

impl<S: StorageBackend + ?Sized> Plain<S> {
    /// The plain entry for a stored one; `None` when the value was deleted in the meantime.
    ///
    /// # Errors
    /// `Corrupt` for one that is damaged, or that this layer did not write, unless those are passed.
    pub(crate) async fn entry(&self, mut stored: Entry) -> Result<Option<Entry>> {
        for _ in 0..ATTEMPTS {
            let Some(note) = self.note_of(&stored)? else {
                return Ok(Some(stored));
            };
            let size = match note {
                Note::Size(size) => Ok(Some(size)),
                Note::InTrailer => self.size_in_trailer(&stored).await,
            };
            match size {
                Ok(Some(size)) => return Ok(Some(plain_entry(stored, size))),
                // Replaced or deleted after it was found: what counts is what is there now.
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::PreconditionFailed => {}
                Err(e) => return Err(e.with_key(&stored.key)),
            }
            let mut options = StatOptions::new();
            options.version = stored.version.clone().filter(|_| self.inner.info().capabilities.versioning);
            match self.inner.stat(&stored.key, options).await? {
                Some(now) => stored = now,
                None => return Ok(None),
            }
        }
        Err(replaced(&stored.key))
    }

    /// As `entry`, for listings and queries: one that cannot be read is damaged, and ends none.
    pub(crate) async fn listed(&self, stored: Entry) -> Result<Option<Entry>> {
        if stored.damaged.is_some() {
            return Ok(Some(stored));
        }
        let bare = stored.clone();
        match self.entry(stored).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(bare.into_damaged(e))),
            done => done,
        }
    }

    /// What the metadata says of the plain size; `None` for a value that is passed as it is.
    fn note_of(&self, stored: &Entry) -> Result<Option<Note>> {
        let Some(metadata) = &stored.metadata else {
            return Ok(None);
        };
        match (detach(metadata), self.foreign) {
            (Some((_, note)), _) => Ok(Some(note)),
            (None, _) if note::is_there(metadata) => Err(unreadable(&stored.key)),
            (None, Foreign::Pass) => Ok(None),
            (None, Foreign::Refuse) => Err(foreign(&stored.key)),
        }
    }

    /// As `listed`, for a listing: when the version that was found is gone, the key may have another.
    pub(crate) async fn current(&self, stored: Entry) -> Result<Option<Entry>> {
        let key = stored.key.clone();
        if let Some(entry) = self.listed(stored).await? {
            return Ok(Some(entry));
        }
        match self.inner.stat(&key, StatOptions::new()).await {
            Ok(Some(now)) => self.listed(now).await,
            Ok(None) => Ok(None),
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(Entry::new(key, 0).into_damaged(e))),
            Err(e) => Err(e),
        }
    }

    async fn size_in_trailer(&self, stored: &Entry) -> Result<Option<u64>> {
        let mut options = GetOptions::new();
        match &stored.version {
            Some(version) if self.inner.info().capabilities.versioning => options.version = Some(version.clone()),
            _ => options.if_match = stored.etag.clone(),
        }
        Tail::of_size(&*self.inner, &stored.key, options).await?.map(|tail| tail.size()).transpose()
    }

    /// The plain entry of a value that was just written.
    pub(crate) async fn written(&self, mut stored: Entry) -> Result<Entry> {
        let entry = async {
            if stored.metadata.is_none() {
                let now = self.inner.stat(&stored.key, StatOptions::new()).await?;
                stored.metadata = now.and_then(|now| now.metadata);
            }
            let key = stored.key.clone();
            // That somebody else has been there since is no failure of it, but its size is not known any more.
            self.entry(stored).await?.ok_or_else(|| replaced(&key))
        };
        // The write has happened, whatever comes now.
        entry.await.map_err(Error::ambiguous)
    }

    pub(crate) async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        for _ in 0..ATTEMPTS {
            match self.try_get(key, options.clone()).await {
                Err(e) if e.kind() == ErrorKind::PreconditionFailed && options.if_match.is_none() => {}
                done => return done,
            }
        }
        Err(replaced(key))
    }

    async fn try_get(&self, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        let Some(wanted) = options.range.take() else {
            let Some(stored) = self.inner.get(key, options.clone()).await? else {
                return Ok(None);
            };
            return self.decode(key, stored, options).await.map(Some);
        };
        let Some(tail) = Tail::of_range(&*self.inner, key, options).await? else {
            return Ok(None);
        };
        let Some(note) = self.note_of(&tail.entry)? else {
            return tail.range_as_it_is(&*self.inner, key, wanted).await.map(Some);
        };
        let named = |e: Error| e.with_key(key);
        let size = tail.size().and_then(|size| agreed(note, size)).map_err(named)?;
        let entry = plain_entry(tail.entry.clone(), size);
        let body = tail.range(&*self.inner, key, wanted).await.map_err(named)?;
        Ok(Some(Object::new(entry, body)))
    }

    /// As `decode`, but what cannot be read in one go is read anew.
    pub(crate) async fn decode_or_get(&self, key: &Key, stored: Object, options: GetOptions) -> Result<Option<Object>> {
        match self.decode(key, stored, options.clone()).await {
            Err(e) if e.kind() == ErrorKind::PreconditionFailed => self.get(key, options).await,
            done => done.map(Some),
        }
    }

    /// The plain value of a whole stored one.
    async fn decode(&self, key: &Key, stored: Object, options: GetOptions) -> Result<Object> {
        let Some(note) = self.note_of(&stored.entry)? else {
            return Ok(stored);
        };
        let again = pinned(options, &stored.entry);
        let end = match stored.body.buffer() {
            Some(whole) => Some(whole.slice(whole.len().saturating_sub(TRAILER)..whole.len()).into_bytes()?),
            None => None,
        };
        let is_whole = end.is_some();
        let mut pieces = Pieces::new(stored.body.into_stream());
        let named = |e: Error| e.with_key(key);
        let header = read_header(&pieces.take(HEADER).await?).map_err(named)?;
        let size = match (header, end) {
            (Some(size), _) => size,
            (None, Some(end)) => read_trailer(&end).map_err(named)?,
            (None, None) => {
                let tail = Tail::of_size(&*self.inner, key, again).await?.ok_or_else(|| replaced(key))?;
                tail.size().map_err(named)?
            }
        };
        agreed(note, size).map_err(named)?;
        let mut body = Body::from_backend(size, decoded(pieces, size));
        if is_whole && size <= WHOLE {
            body = body.bytes(size).await.map_err(named)?.into();
        }
        Ok(Object::new(plain_entry(stored.entry, size), body))
    }
}

/// The size, if it is not another than the metadata says.
fn agreed(note: Note, size: u64) -> Result<u64> {
    match note {
        Note::Size(noted) if noted != size => Err(corrupt("its size is not the one in its metadata")),
        _ => Ok(size),
    }
}

/// The entry of a value of so many plain bytes.
pub(crate) fn plain_entry(mut stored: Entry, size: u64) -> Entry {
    if let Some((metadata, _)) = stored.metadata.as_ref().and_then(detach) {
        stored.metadata = Some(metadata);
    }
    // What the store says of the bytes as they are stored is not true of the plain value.
    stored.attributes.clear();
    stored.stored_size = Some(stored.stored_size.unwrap_or(stored.size));
    stored.size = size;
    stored
}

fn unreadable(key: &Key) -> Error {
    Error::new(ErrorKind::Corrupt, "the note of the value's size is not readable: it was changed below").with_key(key)
}

fn foreign(key: &Key) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the value was written without the compression layer; read it below the layer, or set `foreign` to `pass`",
    )
    .with_key(key)
}
