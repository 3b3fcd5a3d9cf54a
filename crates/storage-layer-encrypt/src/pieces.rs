//! A stream cut into pieces of one size, and which of them is the last.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use storage_core::{ByteStream, Result};

/// Reads a stream in pieces of `size` bytes. There is always a last piece, which may be shorter or empty.
pub(crate) struct Pieces {
    stream: ByteStream,
    size: usize,
    ahead: Bytes,
    ended: bool,
}

impl Pieces {
    pub(crate) fn new(stream: ByteStream, size: u64) -> Self {
        Self { stream, size: size as usize, ahead: Bytes::new(), ended: false }
    }

    /// Exactly `len` bytes, or all there are.
    pub(crate) async fn take(&mut self, len: u64) -> Result<BytesMut> {
        let mut taken = BytesMut::with_capacity(len as usize);
        while taken.len() < len as usize && self.look_ahead().await? {
            let n = self.ahead.len().min(len as usize - taken.len());
            taken.extend_from_slice(&self.ahead.split_to(n));
        }
        Ok(taken)
    }

    /// The next piece, in a buffer with room for `spare` bytes more, and whether it is the last.
    pub(crate) async fn next(&mut self, spare: u64) -> Result<(BytesMut, bool)> {
        let mut piece = BytesMut::with_capacity(self.size + spare as usize);
        while piece.len() < self.size && self.look_ahead().await? {
            let n = self.ahead.len().min(self.size - piece.len());
            piece.extend_from_slice(&self.ahead.split_to(n));
        }
        let last = !self.look_ahead().await?;
        Ok((piece, last))
    }

    /// Whether there is anything more.
    async fn look_ahead(&mut self) -> Result<bool> {
        while self.ahead.is_empty() && !self.ended {
            match self.stream.next().await.transpose()? {
                Some(bytes) => self.ahead = bytes,
                None => self.ended = true,
            }
        }
        Ok(!self.ahead.is_empty())
    }
}
