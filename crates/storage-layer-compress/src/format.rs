//! The stored form: a header, blocks, an index of the blocks, a trailer. Its description is in the README.

use storage_core::{Error, ErrorKind, Result};

/// Bytes of the header.
pub(crate) const HEADER: u64 = 16;
/// Bytes of the trailer.
pub(crate) const TRAILER: u64 = 16;
/// Bytes of a block's mark, which stands before the block and again in the index.
pub(crate) const MARK: u64 = 4;
/// Plain bytes of a block; the last may have fewer.
pub(crate) const BLOCK: u64 = 256 * 1024;

const MAGIC: [u8; 4] = *b"STZ\x01";
const END: [u8; 4] = *b"\x01ZTS";
const UNKNOWN: u64 = u64::MAX;
/// Where the length of a mark ends and its method begins.
const METHOD_SHIFT: u32 = 30;

pub(crate) fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the compressed value was changed or truncated below: {what}"))
}

/// Blocks of a value of so many plain bytes.
pub(crate) fn blocks(plain: u64) -> u64 {
    plain.div_ceil(BLOCK)
}

/// The most that a value of so many plain bytes takes in addition.
pub(crate) fn overhead(plain: u64) -> u64 {
    HEADER + TRAILER + blocks(plain) * 2 * MARK
}

/// Plain bytes of the block with this index.
pub(crate) fn block_len(plain: u64, index: u64) -> u64 {
    (plain - index * BLOCK).min(BLOCK)
}

/// The header. The plain size is not known where a stream did not declare it; the trailer has it in any case.
pub(crate) fn header(plain: Option<u64>) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = BLOCK.ilog2() as u8;
    header[8..].copy_from_slice(&plain.unwrap_or(UNKNOWN).to_be_bytes());
    header
}

/// The plain size in a header, if it is known there.
pub(crate) fn read_header(bytes: &[u8]) -> Result<Option<u64>> {
    let expected = header(None);
    let (fixed, plain) = bytes.split_at_checked(8).ok_or_else(|| corrupt("it is too short"))?;
    if fixed[..4] != MAGIC {
        return Err(corrupt("it does not begin with a header of version 1"));
    }
    if fixed != &expected[..8] {
        return Err(corrupt("its header has settings that version 1 does not know"));
    }
    let plain = plain.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("it is too short"))?;
    Ok((plain != UNKNOWN).then_some(plain))
}

/// The trailer: the plain size, and a checksum of the marks.
pub(crate) fn trailer(plain: u64, marks: crc32fast::Hasher) -> [u8; TRAILER as usize] {
    let mut trailer = [0; TRAILER as usize];
    trailer[..8].copy_from_slice(&plain.to_be_bytes());
    trailer[8..12].copy_from_slice(&checksum(plain, marks).to_be_bytes());
    trailer[12..].copy_from_slice(&END);
    trailer
}

/// The plain size in a trailer, without a look at the checksum.
pub(crate) fn read_trailer(bytes: &[u8]) -> Result<u64> {
    let Some((plain, [_, _, _, _, end @ ..])) = bytes.split_first_chunk::<8>() else {
        return Err(corrupt("it is too short"));
    };
    if end != END {
        return Err(corrupt("it does not end with a trailer of version 1"));
    }
    Ok(u64::from_be_bytes(*plain))
}

fn checksum(plain: u64, mut marks: crc32fast::Hasher) -> u32 {
    marks.update(&plain.to_be_bytes());
    marks.finalize()
}

/// How a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Plain = 0,
    Zstd = 1,
    Gzip = 2,
}

/// How a block is stored, and in how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) method: Method,
    pub(crate) len: u32,
}

impl Mark {
    pub(crate) fn encode(self) -> [u8; MARK as usize] {
        ((self.method as u32) << METHOD_SHIFT | self.len).to_be_bytes()
    }

    /// The mark of a block of so many plain bytes.
    pub(crate) fn read(bytes: &[u8], plain: u64) -> Result<Self> {
        let mark = bytes.try_into().map(u32::from_be_bytes).map_err(|_| corrupt("it is too short"))?;
        let len = mark & ((1 << METHOD_SHIFT) - 1);
        let method = match mark >> METHOD_SHIFT {
            0 => Method::Plain,
            1 => Method::Zstd,
            2 => Method::Gzip,
            _ => return Err(corrupt("a block is stored by a method that version 1 does not know")),
        };
        let fits = if method == Method::Plain { u64::from(len) == plain } else { u64::from(len) < plain };
        if !fits {
            return Err(corrupt("a block claims a length that it cannot have"));
        }
        Ok(Self { method, len })
    }
}
