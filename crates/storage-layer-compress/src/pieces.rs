//! A stream cut into pieces of the sizes asked for.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use storage_core::{ByteStream, Result};

/// Reads a stream piece by piece, whatever pieces it comes in.
pub(crate) struct Pieces {
    stream: ByteStream,
    ahead: Bytes,
    ended: bool,
}

impl Pieces {
    pub(crate) fn new(stream: ByteStream) -> Self {
        Self { stream, ahead: Bytes::new(), ended: false }
    }

    /// Exactly `len` bytes, or all there are. What came in one piece is not copied.
    pub(crate) async fn take(&mut self, len: u64) -> Result<Bytes> {
        let len = len as usize;
        if !self.look_ahead().await? || self.ahead.len() >= len {
            return Ok(self.ahead.split_to(len.min(self.ahead.len())));
        }
        let mut taken = BytesMut::with_capacity(len.min(2 * self.ahead.len().max(4096)));
        while taken.len() < len && self.look_ahead().await? {
            let n = self.ahead.len().min(len - taken.len());
            taken.extend_from_slice(&self.ahead.split_to(n));
        }
        Ok(taken.freeze())
    }

    /// Whether there is nothing more.
    pub(crate) async fn at_end(&mut self) -> Result<bool> {
        Ok(!self.look_ahead().await?)
    }

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
