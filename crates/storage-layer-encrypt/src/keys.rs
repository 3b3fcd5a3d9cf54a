//! Key-encryption keys held in memory.

use std::{collections::BTreeMap, fmt};

use ring::rand::SystemRandom;
use storage_config::{DataKey, KeyProvider, WrappedKey};
use storage_core::{Error, ErrorKind, Result, async_trait};

use crate::wrap::{WrappingKey, random_key};

/// One current key-encryption key, which wraps, and any number of older ones, which still unwrap.
///
/// A key is wrapped with AES-256-GCM under a random 96-bit nonce: replace the current key before it has wrapped
/// 2³² keys.
pub struct StaticKeys {
    current: String,
    keys: BTreeMap<String, WrappingKey>,
    random: SystemRandom,
}

impl StaticKeys {
    /// The current key and its id. The id is stored in the clear with everything it wraps.
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
        if self.keys.contains_key(&id) {
            return Err(Error::new(ErrorKind::Config, format!("the key id {id:?} is given twice")));
        }
        self.keys.insert(id.clone(), WrappingKey::new(id, key)?);
        Ok(self)
    }

    fn key(&self, id: &str) -> Result<&WrappingKey> {
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
        self.key(&self.current)?.wrap(&self.random, key, context)
    }

    async fn unwrap(&self, key: &WrappedKey, context: &[u8]) -> Result<DataKey> {
        self.key(&key.key_id)?.unwrap(&key.wrapped, context)
    }
}
