//! The stored form: a header of 256 bytes, then chunks. Its description is in `docs/encryption.md`.

use ring::{
    aead::{Aad, LessSafeKey, Nonce, UnboundKey},
    digest,
};
use storage_config::{DataKey, WrappedKey};
use storage_core::{Error, ErrorKind, Key, Metadata, Result};

use crate::Algorithm;

/// Bytes of the header.
pub(crate) const HEADER: u64 = 256;
/// Plain bytes of a chunk; the last may have fewer.
pub(crate) const CHUNK: u64 = 64 * 1024;
/// Bytes of an authentication tag.
pub(crate) const TAG: u64 = 16;
/// Bytes of a stored chunk.
pub(crate) const SEALED: u64 = CHUNK + TAG;
/// The largest plain value: there are 2³² nonces for its chunks.
pub(crate) const MAX_PLAIN: u64 = CHUNK << 32;
/// The longest key id.
pub(crate) const MAX_KEY_ID: usize = 64;

const MAGIC: [u8; 4] = *b"STE\x01";
const FIXED: usize = 10;
const MAX_WRAPPED: usize = HEADER as usize - FIXED - MAX_KEY_ID;

/// How the metadata of a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataForm {
    /// In the clear; reading the value authenticates it.
    Plain,
    /// Encrypted with the value's data key.
    Sealed,
}

/// What a header says.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) metadata: MetadataForm,
    pub(crate) wrapped: WrappedKey,
}

impl Header {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let (id, wrapped) = (self.wrapped.key_id.as_bytes(), &self.wrapped.wrapped);
        if id.is_empty() || id.len() > MAX_KEY_ID || wrapped.len() > MAX_WRAPPED {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the key provider's key id ({} bytes) or wrapped key ({} bytes) does not fit the header, which takes \
                     {MAX_KEY_ID} and {MAX_WRAPPED} bytes; put a `Keyring` between",
                    id.len(),
                    wrapped.len()
                ),
            ));
        }
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend_from_slice(&kind(self.algorithm, self.metadata));
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
        if header.len() != HEADER as usize {
            return Err(foreign());
        }
        let (fixed, rest) = header.split_at(FIXED);
        let algorithm = Algorithm::from_code(fixed[4]).ok_or_else(foreign)?;
        let metadata = if fixed[6] == 0 { MetadataForm::Plain } else { MetadataForm::Sealed };
        if fixed[..7] != kind(algorithm, metadata) {
            return Err(foreign());
        }
        let (id_len, wrapped_len) = (usize::from(fixed[7]), usize::from(u16::from_be_bytes([fixed[8], fixed[9]])));
        let (id, rest) = rest.split_at_checked(id_len).ok_or_else(foreign)?;
        let (wrapped, padding) = rest.split_at_checked(wrapped_len).ok_or_else(foreign)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(foreign());
        }
        let key_id = std::str::from_utf8(id).map_err(|_| foreign())?.to_owned();
        Ok(Self { algorithm, metadata, wrapped: WrappedKey { key_id, wrapped: wrapped.to_vec() } })
    }
}

/// The first bytes of a header: format and version, algorithm, chunk size, form of the metadata.
fn kind(algorithm: Algorithm, metadata: MetadataForm) -> [u8; 7] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, algorithm.code(), CHUNK.ilog2() as u8, u8::from(metadata == MetadataForm::Sealed)]
}

/// What the wrapping of a data key is bound to when the metadata, as it is stored, is in the clear.
pub(crate) fn plain_context(algorithm: Algorithm, key: &Key, metadata: Option<&Metadata>) -> Vec<u8> {
    let json = metadata.map_or_else(|| Metadata::new().to_json(), Metadata::to_json);
    let digest = digest::digest(&digest::SHA256, json.as_bytes());
    [&kind(algorithm, MetadataForm::Plain), digest.as_ref(), key.as_str().as_bytes()].concat()
}

/// What it is bound to when the metadata is sealed: no digest is needed, for the same data key authenticates it.
pub(crate) fn sealed_context(algorithm: Algorithm, key: &Key) -> Vec<u8> {
    [&kind(algorithm, MetadataForm::Sealed)[..], &[0; 32], key.as_str().as_bytes()].concat()
}

/// Seals and opens the chunks and the metadata of one value.
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

    /// Whose value it is.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Replaces the plain chunk that begins at `start` by the sealed one.
    pub(crate) fn seal<B>(&self, buffer: &mut B, start: usize, index: u64, last: bool) -> Result<()>
    where
        B: AsMut<[u8]> + for<'t> Extend<&'t u8>,
    {
        self.seal_with(chunk_nonce(index, last)?, buffer, start)
    }

    /// Replaces a sealed chunk, which begins at `from` and is the rest of `buffer`, by the plain one at its start; returns the
    /// plain length.
    pub(crate) fn open(&self, buffer: &mut [u8], from: usize, index: u64, last: bool) -> Result<usize> {
        self.open_with(chunk_nonce(index, last)?, buffer, from).map_err(|()| {
            Error::new(
                ErrorKind::Corrupt,
                "the stored value does not authenticate: it was changed, truncated or reordered",
            )
            .with_key(&self.key)
        })
    }

    /// Seals metadata.
    pub(crate) fn seal_metadata(&self, json: &mut Vec<u8>) -> Result<()> {
        self.seal_with(metadata_nonce(), json, 0)
    }

    /// Replaces sealed metadata by the plain; returns its length.
    pub(crate) fn open_metadata(&self, sealed: &mut [u8]) -> Result<usize> {
        self.open_with(metadata_nonce(), sealed, 0).map_err(|()| {
            Error::new(ErrorKind::Corrupt, "the stored metadata does not authenticate: it was changed")
                .with_key(&self.key)
        })
    }

    fn seal_with<B>(&self, nonce: [u8; 12], buffer: &mut B, start: usize) -> Result<()>
    where
        B: AsMut<[u8]> + for<'t> Extend<&'t u8>,
    {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut buffer.as_mut()[start..])
            .map_err(|_| Error::new(ErrorKind::Other, "the value could not be encrypted"))?;
        buffer.extend(tag.as_ref());
        Ok(())
    }

    fn open_with(&self, nonce: [u8; 12], buffer: &mut [u8], from: usize) -> Result<usize, ()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.cipher.open_within(nonce, Aad::empty(), buffer, from..).map_err(|_| ())?;
        Ok(plain.len())
    }
}

/// Each value has a key of its own, so the position alone makes a nonce unique: seven zero bytes, the chunk's index, and
/// whether it is the last.
fn chunk_nonce(index: u64, last: bool) -> Result<[u8; 12]> {
    let index = u32::try_from(index)
        .map_err(|_| Error::new(ErrorKind::TooLarge, "an encrypted value has at most 2^32 chunks of 64 KiB"))?;
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(last);
    Ok(nonce)
}

/// No chunk's nonce begins like this.
fn metadata_nonce() -> [u8; 12] {
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
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
    (plain <= MAX_PLAIN && stored_size(plain) == stored).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_million_nonces_of_one_data_key_are_distinct() {
        let mut seen = HashSet::from([metadata_nonce()]);
        for index in (0..499_999).chain([u64::from(u32::MAX)]) {
            for last in [false, true] {
                assert!(seen.insert(chunk_nonce(index, last).unwrap()), "{index} {last}");
            }
        }
        assert_eq!(seen.len(), 1_000_001);
        assert_eq!(chunk_nonce(1 << 32, false).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn every_stored_size_has_at_most_one_plain_size() {
        for plain in (0..100).chain(CHUNK - 20..CHUNK + 20).chain(3 * CHUNK - 20..3 * CHUNK + 20) {
            assert_eq!(plain_size(stored_size(plain)), Some(plain));
        }
        for stored in (0..HEADER + TAG).chain(HEADER + SEALED + 1..=HEADER + SEALED + TAG) {
            assert_eq!(plain_size(stored), None, "{stored}");
        }
        assert_eq!(plain_size(stored_size(MAX_PLAIN)), Some(MAX_PLAIN));
        assert_eq!((plain_size(stored_size(MAX_PLAIN + 1)), plain_size(u64::MAX)), (None, None));
    }
}
