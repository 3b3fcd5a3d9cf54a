//! Wrapping of one key with another: AES-256-GCM under a random nonce.

use std::fmt;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use storage_config::{DataKey, WrappedKey};
use storage_core::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::format::MAX_KEY_ID;

/// A key that wraps others, and its id.
pub(crate) struct WrappingKey {
    id: String,
    key: LessSafeKey,
}

impl WrappingKey {
    pub(crate) fn new(id: String, key: &DataKey) -> Result<Self> {
        if id.is_empty() || id.len() > MAX_KEY_ID {
            return Err(Error::new(ErrorKind::Config, format!("a key id has 1 to {MAX_KEY_ID} bytes")));
        }
        let key = UnboundKey::new(&AES_256_GCM, key.expose())
            .map_err(|_| Error::new(ErrorKind::Config, "an AES-256-GCM key has 32 bytes"))?;
        Ok(Self { id, key: LessSafeKey::new(key) })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Nonce, encrypted key, tag: 60 bytes.
    pub(crate) fn wrap(&self, random: &SystemRandom, key: &DataKey, context: &[u8]) -> Result<WrappedKey> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce).map_err(|_| no_randomness())?;
        let mut sealed = Zeroizing::new([0; 32]);
        sealed.copy_from_slice(key.expose());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), self.bind(context), &mut *sealed)
            .map_err(|_| Error::new(ErrorKind::Other, "the key could not be wrapped"))?;
        Ok(WrappedKey { key_id: self.id.clone(), wrapped: [&nonce[..], &sealed[..], tag.as_ref()].concat() })
    }

    pub(crate) fn unwrap(&self, wrapped: &[u8], context: &[u8]) -> Result<DataKey> {
        let corrupt = || {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the wrapped key does not authenticate: what it belongs to was changed or moved, or the key {:?} is another",
                    self.id
                ),
            )
        };
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN).ok_or_else(corrupt)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| corrupt())?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = self.key.open_in_place(nonce, self.bind(context), &mut sealed).map_err(|_| corrupt())?;
        <&[u8; 32]>::try_from(&*opened).map(DataKey::from).map_err(|_| corrupt())
    }

    /// The id is authenticated too, with its length before it so that it cannot run over into the context.
    fn bind(&self, context: &[u8]) -> Aad<Vec<u8>> {
        let mut bound = Vec::with_capacity(1 + self.id.len() + context.len());
        bound.push(self.id.len() as u8);
        bound.extend_from_slice(self.id.as_bytes());
        bound.extend_from_slice(context);
        Aad::from(bound)
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// 32 bytes from the operating system.
pub(crate) fn random_key(random: &SystemRandom) -> Result<DataKey> {
    let mut key = Zeroizing::new([0; 32]);
    random.fill(&mut *key).map_err(|_| no_randomness())?;
    Ok(DataKey::from(&*key))
}

pub(crate) fn no_randomness() -> Error {
    Error::new(ErrorKind::Unavailable, "the operating system gives no randomness")
}
