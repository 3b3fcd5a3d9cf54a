//! A value in memory that may be in several pieces.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{Error, ErrorKind, Result};

/// From this many bytes on a piece of a stream is kept as it came.
const KEPT: usize = 64 << 10;

/// A value in memory: one or several `Bytes`, in order, which are joined only by [`Buffer::into_bytes`]. Cloning shares them.
#[derive(Clone)]
pub struct Buffer(Pieces);

#[derive(Clone)]
enum Pieces {
    One(Bytes),
    /// At least two pieces, and the sum of their lengths.
    Many(Arc<[Bytes]>, u64),
}

impl Buffer {
    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Pieces::One(bytes) => bytes.len() as u64,
            Pieces::Many(_, len) => *len,
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, none of which is empty; of an empty value none.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        match &self.0 {
            Pieces::One(bytes) if bytes.is_empty() => &[],
            Pieces::One(bytes) => std::slice::from_ref(bytes),
            Pieces::Many(pieces, _) => pieces,
        }
    }

    /// These positions of the value, without a copy.
    ///
    /// # Panics
    /// If the range does not lie within the value.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "the range lies within the value");
        if range == (0..self.len()) {
            return self.clone();
        }
        let mut begin = 0;
        let pieces = self.pieces().iter().filter_map(|piece| {
            let (from, len) = (begin, piece.len() as u64);
            begin += len;
            let (start, end) = (range.start.max(from), range.end.min(from + len));
            // Both lie within the piece, whose length is a usize.
            (start < end).then(|| piece.slice((start - from) as usize..(end - from) as usize))
        });
        pieces.collect()
    }

    /// The whole value in one piece; several are copied together.
    ///
    /// # Errors
    /// `TooLarge` if so much cannot be allocated.
    pub fn into_bytes(self) -> Result<Bytes> {
        let (pieces, len) = match self.0 {
            Pieces::One(bytes) => return Ok(bytes),
            Pieces::Many(pieces, len) => (pieces, len),
        };
        let mut whole = Vec::new();
        reserve(&mut whole, usize::try_from(len).unwrap_or(usize::MAX))?;
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Ok(whole.into())
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::from(Bytes::new())
    }
}

impl From<Bytes> for Buffer {
    fn from(bytes: Bytes) -> Self {
        Self(Pieces::One(bytes))
    }
}

impl FromIterator<Bytes> for Buffer {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        let (Some(first), second) = (pieces.next(), pieces.next()) else { return Self::default() };
        let Some(second) = second else { return first.into() };
        let pieces: Arc<[Bytes]> = [first, second].into_iter().chain(pieces).collect();
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self(Pieces::Many(pieces, len))
    }
}

impl IntoIterator for Buffer {
    type Item = Bytes;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { buffer: self, next: 0 }
    }
}

/// The pieces of a [`Buffer`], in order.
#[derive(Clone, Debug)]
pub struct IntoIter {
    buffer: Buffer,
    next: usize,
}

impl Iterator for IntoIter {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.buffer.pieces().get(self.next).cloned();
        self.next += 1;
        piece
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.pieces().iter().flatten().eq(other.pieces().iter().flatten())
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).field("pieces", &self.pieces().len()).finish()
    }
}

/// Collects the pieces of a stream.
#[derive(Default)]
pub(super) struct Collector {
    done: Vec<Bytes>,
    /// Small pieces, copied together; at most [`KEPT`] bytes.
    small: Vec<u8>,
    len: u64,
}

impl Collector {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn push(&mut self, piece: Bytes) -> Result<()> {
        self.len += piece.len() as u64;
        if piece.len() >= KEPT {
            self.flush();
            self.done.push(piece);
            return Ok(());
        }
        if self.small.len() + piece.len() > KEPT {
            self.flush();
        }
        // A value may be as small as its first pieces; once there is a block, the next one is likely to be full too.
        let room = if self.done.is_empty() { piece.len() } else { KEPT - self.small.len() };
        reserve(&mut self.small, room)?;
        self.small.extend_from_slice(&piece);
        Ok(())
    }

    fn flush(&mut self) {
        let mut block = std::mem::take(&mut self.small);
        if !block.is_empty() {
            block.shrink_to_fit();
            self.done.push(block.into());
        }
    }

    pub(super) fn finish(mut self) -> Buffer {
        self.flush();
        self.done.into_iter().collect()
    }
}

/// Makes room for more bytes, or fails where a plain allocation would end the process.
pub(super) fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<()> {
    bytes.try_reserve(more).map_err(|_| {
        let size = bytes.len().saturating_add(more);
        let message = format!("{size} bytes do not fit into memory: read the value as a stream, or in ranges");
        Error::new(ErrorKind::TooLarge, message)
    })
}
