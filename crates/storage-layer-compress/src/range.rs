//! A range of a value, without decompressing the rest.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use storage_core::{
    Body, ByteRange, ByteStream, Entry, Error, ErrorKind, GetOptions, Key, Object, Result, StorageBackend,
};

use crate::{
    decode::read_block,
    format::{BLOCK, HEADER, MARK, Mark, TRAILER, block_len, blocks, corrupt, read_trailer, trailer},
    pieces::Pieces,
};

/// How much of a value's end is read first: all of a small value, the index of one of up to two gibibytes.
const TAIL: u64 = 32 * 1024;

/// The end of a stored value.
pub(crate) struct Tail {
    /// The stored entry.
    pub(crate) entry: Entry,
    bytes: Bytes,
    /// To read more of the same value.
    same: GetOptions,
}

/// Options that read the same version of the value again.
pub(crate) fn pinned(mut options: GetOptions, read: &Entry) -> GetOptions {
    options.if_none_match = None;
    if options.version.is_none() {
        options.if_match = read.etag.clone();
    }
    options
}

pub(crate) fn replaced(key: &Key) -> Error {
    Error::new(ErrorKind::Conflict, "the value was replaced while it was read; read it again").with_key(key)
}

impl Tail {
    /// Reads enough of a value's end for a range of most values; `None` when there is none.
    pub(crate) async fn of_range<S: StorageBackend + ?Sized>(
        inner: &S,
        key: &Key,
        options: GetOptions,
    ) -> Result<Option<Self>> {
        Self::read(inner, key, options, TAIL).await
    }

    /// Reads the trailer of a value; `None` when there is none.
    pub(crate) async fn of_size<S: StorageBackend + ?Sized>(
        inner: &S,
        key: &Key,
        options: GetOptions,
    ) -> Result<Option<Self>> {
        Self::read(inner, key, options, TRAILER).await
    }

    async fn read<S: StorageBackend + ?Sized>(
        inner: &S,
        key: &Key,
        options: GetOptions,
        len: u64,
    ) -> Result<Option<Self>> {
        let last = options.clone().range(ByteRange::Suffix(len)).prefer_buffered(true);
        let Some(object) = inner.get(key, last).await? else {
            return Ok(None);
        };
        let same = pinned(options, &object.entry);
        Ok(Some(Self { entry: object.entry, bytes: object.body.bytes(len).await?, same }))
    }

    /// The plain size, as the trailer says.
    pub(crate) fn size(&self) -> Result<u64> {
        read_trailer(&self.bytes[self.bytes.len().saturating_sub(TRAILER as usize)..])
    }

    /// A range of a value that is not in our form.
    pub(crate) async fn range_as_it_is<S: StorageBackend + ?Sized>(
        self,
        inner: &S,
        key: &Key,
        range: ByteRange,
    ) -> Result<Object> {
        inner.get(key, self.same.range(range)).await?.ok_or_else(|| replaced(key))
    }

    /// A range of the plain value.
    pub(crate) async fn range<S: StorageBackend + ?Sized>(
        self,
        inner: &S,
        key: &Key,
        range: ByteRange,
    ) -> Result<Body> {
        let plain = self.size()?;
        let range = range.resolve(plain)?;
        if range.is_empty() {
            return Ok(Body::default());
        }
        Ok(Body::from_backend(range.end - range.start, self.blocks(inner, key, plain, range).await?))
    }

    async fn blocks<S: StorageBackend + ?Sized>(
        self,
        inner: &S,
        key: &Key,
        plain: u64,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        let (first, last) = (range.start / BLOCK, (range.end - 1) / BLOCK);
        let (marks, stored) = self.marks(inner, key, plain, first..last + 1).await?;
        let pieces = Pieces::new(self.stored(inner, key, stored).await?.into_stream());
        let left = range.end - range.start;
        let window = Window { pieces, marks: marks.into_iter(), plain, next: first, skip: range.start % BLOCK, left };
        let blocks = stream::try_unfold(window, |mut window| async {
            let Some(mark) = window.marks.next() else {
                return Ok(None);
            };
            Ok(Some((window.block(mark).await?, window)))
        });
        Ok(blocks.boxed())
    }

    /// The marks of some blocks, and where these blocks are stored.
    async fn marks<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        plain: u64,
        wanted: Range<u64>,
    ) -> Result<(Vec<Mark>, Range<u64>)> {
        let (stored, count) = (self.entry.size, blocks(plain));
        let (end, len) = (stored.saturating_sub(TRAILER), count.checked_mul(MARK));
        // An index that does not fit into the value is not even asked for.
        let begin = len.and_then(|len| end.checked_sub(len)).filter(|begin| *begin >= HEADER);
        let begin = begin.ok_or_else(|| corrupt("its index does not fit into it"))?;
        let index = self.stored(inner, key, begin..end).await?.bytes(end - begin).await?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(&index);
        if self.bytes[self.bytes.len() - TRAILER as usize..] != trailer(plain, sum) {
            return Err(corrupt("its index does not belong to its trailer"));
        }
        let (mut marks, mut at, mut place) = (Vec::new(), HEADER, HEADER..HEADER);
        for (number, mark) in (0..).zip(index.chunks(MARK as usize)) {
            let mark = Mark::read(mark, block_len(plain, number))?;
            let after = at + MARK + u64::from(mark.len);
            if wanted.contains(&number) {
                place = if marks.is_empty() { at..after } else { place.start..after };
                marks.push(mark);
            }
            at = after;
        }
        if at != begin {
            return Err(corrupt("its blocks have another length than its index says"));
        }
        Ok((marks, place))
    }

    /// A part of the stored value, which may be at hand already.
    async fn stored<S: StorageBackend + ?Sized>(&self, inner: &S, key: &Key, part: Range<u64>) -> Result<Body> {
        let from = self.entry.size.checked_sub(self.bytes.len() as u64);
        let from = from.ok_or_else(|| corrupt("it is shorter than its end"))?;
        if let Some(start) = part.start.checked_sub(from) {
            return Ok(self.bytes.slice(start as usize..(part.end - from) as usize).into());
        }
        let options = self.same.clone().range(part);
        Ok(inner.get(key, options).await?.ok_or_else(|| replaced(key))?.body)
    }
}

/// The blocks of a value that hold a range of it.
struct Window {
    pieces: Pieces,
    marks: std::vec::IntoIter<Mark>,
    plain: u64,
    /// The index of the next block.
    next: u64,
    /// Plain bytes of the next block before the range.
    skip: u64,
    /// Plain bytes of the range still to come.
    left: u64,
}

impl Window {
    async fn block(&mut self, mark: Mark) -> Result<Bytes> {
        let len = block_len(self.plain, self.next);
        if self.pieces.take(MARK).await? != mark.encode()[..] {
            return Err(corrupt("a block has another mark than its index says"));
        }
        let plain = read_block(&mut self.pieces, mark, len).await?;
        let (start, end) = (self.skip, len.min(self.skip + self.left));
        self.next += 1;
        self.skip = 0;
        self.left -= end - start;
        Ok(plain.slice(start as usize..end as usize))
    }
}
