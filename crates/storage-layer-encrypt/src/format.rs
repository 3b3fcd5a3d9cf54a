//! The stored form: a header of 256 bytes, then chunks. Its description is in the README.

use bytes::BytesMut;
use ring::{
    aead::{Aad, LessSafeKey, Nonce, UnboundKey},
    digest,
};
use storage_core::{DataKey, Error, ErrorKind, Key, Metadata, Result, WrappedKey};

use crate::Algorithm;

/// Bytes of the header.
pub(crate) const HEADER: u64 = 256;
/// Plain bytes of a chunk; the last may have fewer.
pub(crate) const CHUNK: u64 = 64 * 1024;
/// Bytes of a chunk's authentication tag.
pub(crate) const TAG: u64 = 16;
/// Bytes of a stored chunk.
pub(crate) const SEALED: u64 = CHUNK + TAG;
/// The longest key id.
pub(crate) const MAX_KEY_ID: usize = 64;

const MAGIC: [u8; 4] = *b"STE\x01";
const FIXED: usize = 9;
const MAX_WRAPPED: usize = HEADER as usize - FIXED - MAX_KEY_ID;

/// What a header says.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) wrapped: WrappedKey,
}

impl Header {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let (id, wrapped) = (self.wrapped.key_id.as_bytes(), &self.wrapped.wrapped);
        if id.is_empty() || id.len() > MAX_KEY_ID || wrapped.len() > MAX_WRAPPED {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the key provider's key id ({} bytes) or wrapped key ({} bytes) does not fit the header; \
                     it takes {MAX_KEY_ID} and {MAX_WRAPPED} bytes",
                    id.len(),
                    wrapped.len()
                ),
            ));
        }
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend_from_slice(&MAGIC);
        header.push(self.algorithm.code());
        header.push(CHUNK.ilog2() as u8);
        header.push(id.len() as u8);
        header.extend_from_slice(&(wrapped.len() as u16).to_be_bytes());
        header.extend_from_slice(id);
        header.extend_from_slice(wrapped);
        header.resize(HEADER as usize, 0);
        Ok(header)
    }

    pub(crate) fn decode(header: &[u8]) -> Result<Self> {
        let foreign = || {
            Error::new(
                ErrorKind::Corrupt,
                "the stored value does not begin with an encryption header: it was written without this layer, or changed",
            )
        };
        if header.len() != HEADER as usize || header[..4] != MAGIC {
            return Err(foreign());
        }
        let algorithm = Algorithm::from_code(header[4]).ok_or_else(foreign)?;
        if u64::from(header[5]) != u64::from(CHUNK.ilog2()) {
            return Err(foreign());
        }
        let id_len = usize::from(header[6]);
        let wrapped_len = usize::from(u16::from_be_bytes([header[7], header[8]]));
        let rest = &header[FIXED..];
        let (id, rest) = rest.split_at_checked(id_len).ok_or_else(foreign)?;
        let (wrapped, padding) = rest.split_at_checked(wrapped_len).ok_or_else(foreign)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(foreign());
        }
        let key_id = std::str::from_utf8(id).map_err(|_| foreign())?.to_owned();
        Ok(Self { algorithm, wrapped: WrappedKey { key_id, wrapped: wrapped.to_vec() } })
    }
}

/// What the wrapping of a data key is bound to: the format, the algorithm, the value's key and its metadata.
pub(crate) fn context(algorithm: Algorithm, key: &Key, metadata: Option<&Metadata>) -> Vec<u8> {
    let json = metadata.map_or_else(|| Metadata::new().to_json(), Metadata::to_json);
    let mut context = MAGIC.to_vec();
    context.push(algorithm.code());
    context.push(CHUNK.ilog2() as u8);
    context.extend_from_slice(digest::digest(&digest::SHA256, json.as_bytes()).as_ref());
    context.extend_from_slice(key.as_str().as_bytes());
    context
}

/// Seals and opens the chunks of one value.
#[derive(Debug)]
pub(crate) struct Cipher {
    cipher: LessSafeKey,
    key: Key,
}

impl Cipher {
    pub(crate) fn new(algorithm: Algorithm, data_key: &DataKey, key: &Key) -> Result<Self> {
        let unbound = UnboundKey::new(algorithm.aead(), data_key.expose())
            .map_err(|_| Error::new(ErrorKind::Other, "a data key has 32 bytes"))?;
        Ok(Self { cipher: LessSafeKey::new(unbound), key: key.clone() })
    }

    /// Replaces a plain chunk by the sealed one.
    pub(crate) fn seal(&self, chunk: &mut BytesMut, index: u64, last: bool) -> Result<()> {
        let tag = self
            .cipher
            .seal_in_place_separate_tag(nonce(index, last)?, Aad::empty(), chunk)
            .map_err(|_| Error::new(ErrorKind::Other, "a chunk could not be encrypted"))?;
        chunk.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Replaces a sealed chunk, the whole of `chunk`, by the plain one at its start; returns the plain length.
    pub(crate) fn open(&self, chunk: &mut [u8], index: u64, last: bool) -> Result<usize> {
        let plain = self.cipher.open_in_place(nonce(index, last)?, Aad::empty(), chunk).map_err(|_| {
            Error::new(
                ErrorKind::Corrupt,
                "the stored value does not authenticate: it was changed, truncated or reordered",
            )
            .with_key(&self.key)
        })?;
        Ok(plain.len())
    }
}

/// Each value has a key of its own, so the position alone makes a nonce unique: seven zero bytes, the chunk's index, and
/// whether it is the last.
fn nonce(index: u64, last: bool) -> Result<Nonce> {
    let index = u32::try_from(index)
        .map_err(|_| Error::new(ErrorKind::TooLarge, "an encrypted value has at most 2^32 chunks of 64 KiB"))?;
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(last);
    Ok(Nonce::assume_unique_for_key(nonce))
}

/// Chunks of a value of so many plain bytes: an empty one has one too.
pub(crate) fn chunks(plain: u64) -> u64 {
    plain.div_ceil(CHUNK).max(1)
}

/// Stored bytes of a value of so many plain bytes.
pub(crate) fn stored_size(plain: u64) -> u64 {
    HEADER + plain + chunks(plain) * TAG
}

/// Plain bytes of a value of so many stored bytes, if any value is stored in so many.
pub(crate) fn plain_size(stored: u64) -> Option<u64> {
    let sealed = stored.checked_sub(HEADER)?;
    let plain = sealed.checked_sub(sealed.div_ceil(SEALED).max(1) * TAG)?;
    (stored_size(plain) == stored).then_some(plain)
}
