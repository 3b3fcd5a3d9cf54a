//! Stacks and values for the tests.

use std::sync::Arc;

use futures_util::stream;
use storage_core::{Body, Bytes, Storage, StorageBackend};
use storage_layer_compress::{Algorithm, CompressLayer, Compressed};

pub(crate) const BLOCK: usize = 256 * 1024;

pub(crate) fn over<B: StorageBackend>(backend: B, layer: CompressLayer) -> Storage {
    Storage::new(Compressed::new(Arc::new(backend), layer).unwrap())
}

pub(crate) fn zstd() -> CompressLayer {
    CompressLayer::new(Algorithm::Zstd)
}

pub(crate) fn gzip() -> CompressLayer {
    CompressLayer::new(Algorithm::Gzip)
}

/// Text that compresses well, never the same in two places.
pub(crate) fn text(len: usize) -> Bytes {
    let mut text = String::with_capacity(len + 40);
    for line in 0.. {
        if text.len() >= len {
            break;
        }
        text += &format!("line {line}: nothing new in the north\n");
    }
    text.truncate(len);
    text.into()
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut noise = vec![0; len];
    rng.fill(&mut noise);
    noise.into()
}

/// A stream of uneven pieces that does not say how long it is.
pub(crate) fn undeclared(value: &Bytes) -> Body {
    let pieces: Vec<_> = value.chunks(100_001).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Body::stream(stream::iter(pieces))
}

pub(crate) fn declared(value: &Bytes) -> Body {
    let pieces: Vec<_> = value.chunks(77_777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Body::with_len(value.len() as u64, stream::iter(pieces))
}
