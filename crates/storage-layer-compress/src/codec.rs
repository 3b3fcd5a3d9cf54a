//! One block compressed or decompressed, beside the runtime.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use storage_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use zstd::zstd_safe::CParameter;

use crate::{
    Algorithm,
    format::{Mark, Method, corrupt},
};

/// Blocks up to this size are done at once: that takes less time than to hand them to another thread.
const AT_ONCE: usize = 8 * 1024;

/// How blocks are compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec {
    pub(crate) algorithm: Algorithm,
    pub(crate) level: u32,
}

impl Codec {
    /// A block as it is stored, and its mark. What does not become smaller by a thirty-second part stays as it is.
    pub(crate) async fn encode(self, plain: Bytes) -> Result<(Mark, Bytes)> {
        beside_the_runtime(plain.len(), move || {
            let (method, packed) = match self.algorithm {
                Algorithm::Zstd => (Method::Zstd, zstandard(&plain, self.level)),
                Algorithm::Gzip => (Method::Gzip, gzip(&plain, self.level)),
            };
            let packed =
                packed.map_err(|e| Error::new(ErrorKind::Other, "a block could not be compressed").with_source(e))?;
            if packed.len() < plain.len() - plain.len() / 32 {
                return Ok((Mark { method, len: packed.len() as u32 }, packed.into()));
            }
            Ok((Mark { method: Method::Plain, len: plain.len() as u32 }, plain))
        })
        .await
    }
}

/// A stored block as it was. It never becomes longer than `len`, whatever it claims.
pub(crate) async fn decode(method: Method, stored: Bytes, len: usize) -> Result<Bytes> {
    if method == Method::Plain {
        return Ok(stored);
    }
    beside_the_runtime(len, move || {
        let plain = match method {
            Method::Zstd => zstd::bulk::decompress(&stored, len),
            _ => gunzip(&stored, len),
        };
        match plain {
            Ok(plain) if plain.len() == len => Ok(plain.into()),
            Ok(_) => Err(corrupt("a block has another length than the value's size demands")),
            Err(e) => Err(corrupt("a block does not decompress").with_source(e)),
        }
    })
    .await
}

fn zstandard(plain: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(level as i32)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.compress(plain)
}

fn gzip(plain: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(plain)?;
    encoder.finish()
}

fn gunzip(stored: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(len + 1);
    // One byte more than there may be, to notice that there are more.
    GzDecoder::new(stored).take(len as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

/// Runs what takes long on a thread where it holds nobody up.
async fn beside_the_runtime<T: Send + 'static>(
    len: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match Handle::try_current() {
        Ok(runtime) if len > AT_ONCE => runtime
            .spawn_blocking(work)
            .await
            .unwrap_or_else(|e| Err(Error::new(ErrorKind::Other, "the work on a block was stopped").with_source(e))),
        _ => work(),
    }
}
