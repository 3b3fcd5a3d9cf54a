//! Reading: a small value in the same hop that opens it, a large one piece by piece from the file that was opened.

use std::{
    fs::{self, Metadata as Stat},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use rustix::{
    buffer::spare_capacity,
    io::{Errno, pread},
};
use storage_core::{Body, Entry, GetOptions, Key, Object, Result};

use crate::{
    blocking, error,
    record::{self, Record},
    store::{Found, Store},
};

/// What is read or written at once, in bytes.
pub(crate) const PIECE: u64 = 1 << 20;
/// What is held in memory without asking how much of it there is, in bytes.
const ALWAYS_FITS: u64 = 64 << 20;

impl Store {
    /// The entry of a value.
    pub(crate) fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.look(key)?.map(|(_, entry)| entry.sound()).transpose()
    }

    /// A value, or the part of it that was asked for. More than a piece is streamed, unless the whole was asked for.
    pub(crate) fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Object>> {
        let found = self.look(key)?.map(|(found, entry)| Ok((found, entry.sound()?))).transpose()?;
        options.check_current(found.as_ref().map(|(_, entry)| entry))?;
        let Some((found, entry)) = found else { return Ok(None) };
        let range = match options.range {
            Some(range) => range.resolve(entry.size)?,
            None => 0..entry.size,
        };
        let len = range.end - range.start;
        let body = if options.prefer_buffered || len <= PIECE {
            let bytes = found.read(range)?;
            found.check_unchanged()?;
            Body::from(bytes)
        } else {
            Body::from_backend(len, found.pieces(range))
        };
        Ok(Some(Object::new(entry, body)))
    }

    /// As `get`, but what is streamed is opened again when it is read. If it is another value then, that is a `Conflict`.
    pub(crate) fn get_later(self: &Arc<Self>, key: &Key, options: &GetOptions) -> Result<Option<Object>> {
        let Some(mut object) = self.get(key, options)? else { return Ok(None) };
        if !object.body.is_in_memory() {
            let size = object.entry.size;
            let range = options.range.map_or(Ok(0..size), |range| range.resolve(size))?;
            let (store, key, etag, len) =
                (self.clone(), key.clone(), object.entry.etag.clone(), range.end - range.start);
            let open = move || match store.look(&key)? {
                Some((found, entry)) if entry.etag == etag => Ok(found.pieces(range)),
                _ => Err(error::replaced()),
            };
            object.body = Body::from_backend(len, stream::once(blocking::run(open)).try_flatten());
        }
        Ok(Some(object))
    }
}

impl Found {
    /// Fails if another program changed the file since it was opened. (We replace files, and change no more of them than their dates
    /// when they are renamed.)
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let stat = self.file.metadata().map_err(error::os)?;
        let renamed = |record: &Record| record.renamed.is_some() && record.is_of(&stat);
        if !self.differs(&stat) || Record::read(&self.file)?.is_some_and(|record| renamed(&record)) {
            Ok(())
        } else {
            Err(error::changed())
        }
    }

    /// Whether its size or date is another than when it was opened.
    pub(crate) fn has_changed(&self) -> Result<bool> {
        Ok(self.differs(&self.file.metadata().map_err(error::os)?))
    }

    fn differs(&self, stat: &Stat) -> bool {
        stat.len() != self.stat.len() || record::modified(stat) != record::modified(&self.stat)
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let size = range.end - range.start;
        if size > ALWAYS_FITS && memory().is_some_and(|memory| size > memory) {
            return Err(error::too_large_for_memory(size));
        }
        let len = usize::try_from(size).map_err(|_| error::too_large_for_memory(size))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| error::too_large_for_memory(size))?;
        while bytes.len() < len {
            let offset = range.start + bytes.len() as u64;
            match pread(&self.file, spare_capacity(&mut bytes), offset) {
                Ok(0) => return Err(error::changed()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(error::os(e)),
            }
        }
        // There may have been room for more.
        bytes.truncate(len);
        Ok(bytes.into())
    }

    fn pieces(self, range: Range<u64>) -> impl futures_util::Stream<Item = Result<Bytes>> + Send {
        let start = (Arc::new(self), range);
        stream::try_unfold(start, |(found, left)| async move {
            if left.is_empty() {
                return Ok(None);
            }
            let piece = left.start..left.end.min(left.start + PIECE);
            let left = piece.end..left.end;
            let (file, last) = (found.clone(), left.is_empty());
            let bytes = blocking::run(move || {
                let bytes = file.read(piece)?;
                if last {
                    file.check_unchanged()?;
                }
                Ok(bytes)
            });
            Ok(Some((bytes.await?, (found, left))))
        })
    }
}

/// How much memory this process could still take, in bytes, where the system tells. A system that promises more than it has ends the
/// process that believes it.
fn memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    let system = (kibibytes("MemAvailable:")? + kibibytes("SwapFree:")?) * 1024;
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|max| max.trim().parse().ok());
    Some(system.min(container.unwrap_or(u64::MAX)))
}
