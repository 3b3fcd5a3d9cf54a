//! From a plain value to its stored form.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{Body, ByteStream, Error, ErrorKind, Result};

use crate::{
    codec::Codec,
    format::{BLOCK, header, trailer},
    note::Note,
    pieces::Pieces,
};

/// How much of the stored form of a stream is held in memory to see whether that is all.
const WHOLE: usize = 1 << 20;

/// A value on its way in.
pub(crate) struct Encoded {
    pub(crate) body: Body,
    pub(crate) note: Note,
    /// The plain bytes taken so far: at the end of the write, all of them.
    pub(crate) plain: Arc<AtomicU64>,
}

/// The stored form of a value of at most `limit` bytes. A whole value stays whole, a stream of more than a mebibyte a stream.
pub(crate) async fn encode(body: Body, codec: Codec, limit: u64) -> Result<Encoded> {
    let (declared, is_whole) = (body.len(), body.is_in_memory());
    let plain = Arc::new(AtomicU64::new(0));
    let mut stored = stored(body, codec, limit, plain.clone());
    let (mut gathered, mut len) = (Vec::new(), 0);
    while is_whole || len <= WHOLE {
        let Some(piece) = stored.try_next().await? else {
            let size = plain.load(Ordering::Relaxed);
            let mut whole = BytesMut::with_capacity(len);
            gathered.iter().for_each(|piece: &Bytes| whole.extend_from_slice(piece));
            let known = header(Some(size));
            whole[..known.len()].copy_from_slice(&known);
            return Ok(Encoded { body: whole.freeze().into(), note: Note::Size(size), plain });
        };
        len += piece.len();
        gathered.push(piece);
    }
    let body = Body::stream(stream::iter(gathered.into_iter().map(Ok)).chain(stored));
    Ok(Encoded { body, note: declared.map_or(Note::InTrailer, Note::Size), plain })
}

struct Encoder {
    pieces: Pieces,
    codec: Codec,
    limit: u64,
    plain: Arc<AtomicU64>,
    index: BytesMut,
}

impl Encoder {
    /// The next block, and whether it is the last; then the index and the trailer follow it.
    async fn next(&mut self) -> Result<(Bytes, bool)> {
        let block = self.pieces.take(BLOCK).await?;
        let plain = self.plain.load(Ordering::Relaxed) + block.len() as u64;
        if plain > self.limit {
            let message = format!("the value has more than the {} bytes that this backend takes", self.limit);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        self.plain.store(plain, Ordering::Relaxed);
        let mut piece = BytesMut::new();
        if !block.is_empty() {
            let (mark, stored) = self.codec.encode(block).await?;
            self.index.extend_from_slice(&mark.encode());
            piece.reserve(stored.len() + 4);
            piece.extend_from_slice(&mark.encode());
            piece.extend_from_slice(&stored);
        }
        let last = self.pieces.at_end().await?;
        if last {
            let mut marks = crc32fast::Hasher::new();
            marks.update(&self.index);
            piece.extend_from_slice(&self.index);
            piece.extend_from_slice(&trailer(plain, marks));
        }
        Ok((piece.freeze(), last))
    }
}

fn stored(body: Body, codec: Codec, limit: u64, plain: Arc<AtomicU64>) -> ByteStream {
    let head = Bytes::copy_from_slice(&header(body.len()));
    let encoder = Encoder { pieces: Pieces::new(body.into_stream()), codec, limit, plain, index: BytesMut::new() };
    let blocks = stream::try_unfold(Some(encoder), |encoder| async {
        let Some(mut encoder) = encoder else {
            return Ok(None);
        };
        let (piece, last) = encoder.next().await?;
        Ok(Some((piece, (!last).then_some(encoder))))
    });
    stream::once(async { Ok(head) }).chain(blocks).boxed()
}
