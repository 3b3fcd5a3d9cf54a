//! Key-encryption keys held in memory.

use std::{collections::BTreeMap, fmt};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use storage_core::{DataKey, Error, ErrorKind, KeyProvider, Result, WrappedKey, async_trait};
use zeroize::Zeroizing;

use crate::format::MAX_KEY_ID;

/// One current key-encryption key, which wraps, and any number of older ones, which still unwrap.
///
/// A data key is wrapped with AES-256-GCM under a random 96-bit nonce: replace the current key before it has wrapped
/// 2³² values.
pub struct StaticKeys {
    current: String,
    keys: BTreeMap<String, LessSafeKey>,
    random: SystemRandom,
}

impl StaticKeys {
    /// The current key and its id. The id is stored with every value in the clear.
    ///
    /// # Errors
    /// `Config` when the id is empty or longer than 64 bytes.
    pub fn new(id: impl Into<String>, key: &DataKey) -> Result<Self> {
        let id = id.into();
        let keys = Self { current: id.clone(), keys: BTreeMap::new(), random: SystemRandom::new() };
        keys.with_older(id, key)
    }

    /// A random current key, which is gone with the instance: for caches, examples and tests.
    ///
    /// # Errors
    /// As [`new`](StaticKeys::new); `Unavailable` when the operating system gives no randomness.
    pub fn generate(id: impl Into<String>) -> Result<Self> {
        Self::new(id, &random_key(&SystemRandom::new())?)
    }

    /// Adds a key that was current before.
    ///
    /// # Errors
    /// `Config` when the id is taken, empty or longer than 64 bytes.
    pub fn with_older(mut self, id: impl Into<String>, key: &DataKey) -> Result<Self> {
        let id = id.into();
        let config = |message: String| Err(Error::new(ErrorKind::Config, message));
        if id.is_empty() || id.len() > MAX_KEY_ID {
            return config(format!("a key id has 1 to {MAX_KEY_ID} bytes"));
        }
        if self.keys.contains_key(&id) {
            return config(format!("the key id {id:?} is given twice"));
        }
        let key = UnboundKey::new(&AES_256_GCM, key.expose())
            .map_err(|_| Error::new(ErrorKind::Config, "an AES-256-GCM key has 32 bytes"))?;
        self.keys.insert(id, LessSafeKey::new(key));
        Ok(self)
    }

    fn key(&self, id: &str) -> Result<&LessSafeKey> {
        self.keys.get(id).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("there is no key-encryption key {id:?}; add it as an older key to read what it wrote"),
            )
        })
    }
}

impl fmt::Debug for StaticKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeys")
            .field("current", &self.current)
            .field("ids", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyProvider for StaticKeys {
    async fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<WrappedKey> {
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the operating system gives no randomness"))?;
        let mut sealed = key.expose().to_vec();
        self.key(&self.current)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bind(&self.current, context), &mut sealed)
            .map_err(|_| Error::new(ErrorKind::Other, "the data key could not be wrapped"))?;
        let mut wrapped = nonce.to_vec();
        wrapped.append(&mut sealed);
        Ok(WrappedKey { key_id: self.current.clone(), wrapped })
    }

    async fn unwrap(&self, key: &WrappedKey, context: &[u8]) -> Result<DataKey> {
        let unwrapping = self.key(&key.key_id)?;
        let corrupt = || {
            Error::new(
                ErrorKind::Corrupt,
                "the data key does not authenticate: the value was changed or moved, or the key-encryption key is another",
            )
        };
        let (nonce, sealed) = key.wrapped.split_at_checked(NONCE_LEN).ok_or_else(corrupt)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| corrupt())?;
        let mut sealed = sealed.to_vec();
        let opened = unwrapping.open_in_place(nonce, bind(&key.key_id, context), &mut sealed).map_err(|_| corrupt())?;
        <[u8; 32]>::try_from(&*opened).map(DataKey::new).map_err(|_| corrupt())
    }
}

/// 32 bytes from the operating system.
pub(crate) fn random_key(random: &SystemRandom) -> Result<DataKey> {
    let mut key = Zeroizing::new([0; 32]);
    random
        .fill(&mut *key)
        .map_err(|_| Error::new(ErrorKind::Unavailable, "the operating system gives no randomness"))?;
    Ok(DataKey::new(*key))
}

/// The id goes in front with its length, so that no other id and context give the same bytes.
fn bind(id: &str, context: &[u8]) -> Aad<Vec<u8>> {
    let mut bound = vec![id.len() as u8];
    bound.extend_from_slice(id.as_bytes());
    bound.extend_from_slice(context);
    Aad::from(bound)
}
