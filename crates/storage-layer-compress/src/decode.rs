//! From the stored form of a whole value to the plain one.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use storage_core::{ByteStream, Result};

use crate::{
    codec,
    format::{MARK, Mark, TRAILER, block_len, blocks, corrupt, trailer},
    pieces::Pieces,
};

/// Bytes of the index that are compared at a time.
const AT_A_TIME: u64 = 16 * 1024;

/// The plain value of so many bytes, from what follows the header. Whatever is wrong with the stored form is noticed before the last
/// block is given out.
pub(crate) fn decoded(pieces: Pieces, plain: u64) -> ByteStream {
    let decoder = Decoder { pieces, plain, next: 0, marks: crc32fast::Hasher::new() };
    stream::try_unfold(Some(decoder), |decoder| async {
        let Some(mut decoder) = decoder else {
            return Ok(None);
        };
        if decoder.plain == 0 {
            decoder.end().await?;
            return Ok(None);
        }
        let block = decoder.block().await?;
        let more = decoder.next < blocks(decoder.plain);
        if !more {
            decoder.end().await?;
        }
        Ok(Some((block, more.then_some(decoder))))
    })
    .boxed()
}

struct Decoder {
    pieces: Pieces,
    plain: u64,
    next: u64,
    marks: crc32fast::Hasher,
}

impl Decoder {
    async fn block(&mut self) -> Result<Bytes> {
        let len = block_len(self.plain, self.next);
        self.next += 1;
        let mark = self.pieces.take(MARK).await?;
        self.marks.update(&mark);
        read_block(&mut self.pieces, Mark::read(&mark, len)?, len).await
    }

    /// Compares the index and the trailer with what was read.
    async fn end(&mut self) -> Result<()> {
        let mut index = crc32fast::Hasher::new();
        let mut left = blocks(self.plain) * MARK;
        while left > 0 {
            let part = self.pieces.take(left.min(AT_A_TIME)).await?;
            if part.is_empty() {
                return Err(corrupt("its end is missing"));
            }
            index.update(&part);
            left -= part.len() as u64;
        }
        let end = self.pieces.take(TRAILER).await?;
        if end != trailer(self.plain, self.marks.clone())[..] || end != trailer(self.plain, index)[..] {
            return Err(corrupt("its index or trailer does not belong to its blocks"));
        }
        if !self.pieces.at_end().await? {
            return Err(corrupt("something follows its end"));
        }
        Ok(())
    }
}

/// The plain bytes of the block that comes next, behind its mark.
pub(crate) async fn read_block(pieces: &mut Pieces, mark: Mark, len: u64) -> Result<Bytes> {
    let stored = pieces.take(u64::from(mark.len)).await?;
    if stored.len() != mark.len as usize {
        return Err(corrupt("its end is missing"));
    }
    codec::decode(mark.method, stored, len as usize).await
}
