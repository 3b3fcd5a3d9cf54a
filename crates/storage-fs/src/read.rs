//! Reading: a small value in the same hop that opens it, a large one piece by piece from the file that was opened.

use std::{io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use storage_core::{Body, Entry, Error, ErrorKind, GetOptions, Key, Object, Result};

use crate::{
    blocking, error, record,
    store::{Found, Store},
};

/// What is read or written at once, in bytes.
pub(crate) const PIECE: u64 = 1 << 20;

impl Store {
    /// The entry of a value.
    pub(crate) fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.find(key)?.map(|found| found.entry(key)).transpose()
    }

    /// A value, or the part of it that was asked for. More than a piece is streamed, unless the whole was asked for.
    pub(crate) fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Object>> {
        let found = self.find(key)?;
        let entry = found.as_ref().map(|found| found.entry(key)).transpose()?;
        options.check_current(entry.as_ref())?;
        let (Some(found), Some(entry)) = (found, entry) else { return Ok(None) };
        let range = match options.range {
            Some(range) => range.resolve(entry.size)?,
            None => 0..entry.size,
        };
        let len = range.end - range.start;
        let body = if options.whole || len <= PIECE {
            let bytes = found.read(range)?;
            found.check_unchanged()?;
            Body::from(bytes)
        } else {
            Body::stored(len, found.pieces(range))
        };
        Ok(Some(Object::new(entry, body)))
    }
}

impl Found {
    /// Fails if another program changed the file since it was opened. (We replace files, and never change them.)
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let stat = self.file.metadata().map_err(error::os)?;
        let same = stat.len() == self.stat.len() && record::modified(&stat) == record::modified(&self.stat);
        if same { Ok(()) } else { Err(error::changed()) }
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let too_large = |_| {
            let what = "the value is too large for memory: read it as a stream";
            Error::new(ErrorKind::TooLarge, what)
        };
        let len = usize::try_from(range.end - range.start).map_err(too_large)?;
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, range.start) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(error::changed()),
            Err(e) => Err(error::os(e)),
            Ok(()) => Ok(bytes.into()),
        }
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
