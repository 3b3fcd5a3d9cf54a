//! Values through the cipher, chunk by chunk: whole, as streams, and a range of one.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use storage_core::{ByteStream, Error, ErrorKind, Key, Result};

use crate::{
    format::{CHUNK, Cipher, HEADER, SEALED, TAG, chunks, stored_size},
    pieces::Pieces,
};

pub(crate) fn seal_whole(header: &[u8], cipher: &Cipher, plain: &[u8]) -> Result<Bytes> {
    let mut sealed = Vec::with_capacity(stored_size(plain.len() as u64) as usize);
    sealed.extend_from_slice(header);
    let count = chunks(plain.len() as u64);
    for index in 0..count {
        let (start, at) = ((index * CHUNK) as usize, sealed.len());
        let end = plain.len().min(start + CHUNK as usize);
        sealed.extend_from_slice(&plain[start..end]);
        cipher.seal(&mut sealed, at, index, index + 1 == count)?;
    }
    Ok(sealed.into())
}

/// Opens a whole stored value, whose header is known. What nobody else holds is decrypted where it is.
pub(crate) fn open_whole(cipher: &Cipher, stored: Bytes) -> Result<Bytes> {
    match stored.try_into_mut() {
        Ok(mut stored) => {
            let (mut to, mut from, mut index) = (0, HEADER as usize, 0);
            loop {
                let end = stored.len().min(from + SEALED as usize);
                let last = end == stored.len();
                to += cipher.open(&mut stored[to..end], from - to, index, last)?;
                if last {
                    break;
                }
                (from, index) = (end, index + 1);
            }
            stored.truncate(to);
            Ok(stored.freeze())
        }
        Err(shared) => open_copy(cipher, &shared[HEADER as usize..]),
    }
}

fn open_copy(cipher: &Cipher, sealed: &[u8]) -> Result<Bytes> {
    // There is room for the tag of one chunk more than the plain value has.
    let mut plain = Vec::with_capacity(sealed.len());
    let count = (sealed.len() as u64).div_ceil(SEALED).max(1);
    for index in 0..count {
        let (start, at) = ((index * SEALED) as usize, plain.len());
        let end = sealed.len().min(start + SEALED as usize);
        plain.extend_from_slice(&sealed[start..end]);
        let opened = cipher.open(&mut plain[at..], 0, index, index + 1 == count)?;
        plain.truncate(at + opened);
    }
    Ok(plain.into())
}

pub(crate) fn seal_stream(plain: ByteStream, cipher: Cipher) -> ByteStream {
    let state = (Pieces::new(plain, CHUNK), Arc::new(cipher), 0);
    stream::try_unfold(Some(state), |state| async {
        let Some((mut pieces, cipher, index)) = state else {
            return Ok(None);
        };
        let (mut chunk, last) = pieces.next(TAG).await?;
        cipher.seal(&mut chunk, 0, index, last)?;
        let next = (!last).then_some((pieces, cipher, index + 1));
        Ok(Some((chunk.freeze(), next)))
    })
    .boxed()
}

pub(crate) fn open_stream(pieces: Pieces, cipher: Cipher) -> ByteStream {
    stream::try_unfold(Some((pieces, Arc::new(cipher), 0)), |state| async {
        let Some((mut pieces, cipher, index)) = state else {
            return Ok(None);
        };
        let (mut chunk, last) = pieces.next(0).await?;
        let opened = cipher.open(&mut chunk, 0, index, last)?;
        chunk.truncate(opened);
        let next = (!last).then_some((pieces, cipher, index + 1));
        Ok(Some((chunk.freeze(), next)))
    })
    .boxed()
}

/// The chunks of a value that hold a range of it.
pub(crate) struct Window {
    /// The index of the next chunk.
    pub(crate) next: u64,
    /// Plain bytes of the value, as far as the store tells the truth.
    pub(crate) size: u64,
    /// Plain bytes of the next chunk before the range.
    pub(crate) skip: u64,
    /// Plain bytes of the range still to come.
    pub(crate) left: u64,
}

impl Window {
    /// What is wanted of the next chunk; `None` if it is not as long as the value's size says, which nothing authenticates.
    fn cut(&mut self, plain: &Bytes) -> Option<Bytes> {
        let len = self.size.checked_sub(self.next * CHUNK)?.min(CHUNK);
        let range: Range<u64> = self.skip..(self.skip + self.left).min(len);
        if plain.len() as u64 != len || range.start > range.end {
            return None;
        }
        self.next += 1;
        self.skip = 0;
        self.left -= range.end - range.start;
        Some(plain.slice(range.start as usize..range.end as usize))
    }
}

pub(crate) fn open_window(pieces: Pieces, cipher: Cipher, window: Window) -> ByteStream {
    let state = (pieces, Arc::new(cipher), window);
    stream::try_unfold(state, |(mut pieces, cipher, mut window)| async {
        if window.left == 0 {
            return Ok(None);
        }
        let (mut chunk, _): (BytesMut, bool) = pieces.next(0).await?;
        let last = window.next + 1 == chunks(window.size);
        let opened = cipher.open(&mut chunk, 0, window.next, last)?;
        chunk.truncate(opened);
        let plain = window.cut(&chunk.freeze()).ok_or_else(|| wrong_size(cipher.key()))?;
        Ok(Some((plain, (pieces, cipher, window))))
    })
    .boxed()
}

/// The store gives out another value than the one whose size it told.
pub(crate) fn wrong_size(key: &Key) -> Error {
    let message = "the stored value does not have the size that the store says; restore it, or write it again";
    Error::new(ErrorKind::Corrupt, message).with_key(key)
}
