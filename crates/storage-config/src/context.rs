//! What backends and layers are given from outside: keys, credentials, the clock.

use std::{
    fmt::{self, Debug},
    sync::Arc,
    time::SystemTime,
};

use async_trait::async_trait;
use serde::Deserialize;
use storage_core::{Error, ErrorKind, Result, StorageBackend};

use crate::{DataKey, Secret};

/// Everything supplied from outside, with defaults for all of it. Metrics and logs go through the facades `metrics` and
/// `tracing` instead.
///
/// A factory takes what it has a use for and documents it: a store that tells its own time has none for the clock, one
/// that needs no credentials none for those.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StorageContext {
    /// Wraps and unwraps data keys, for the encryption layer.
    pub keys: Option<Arc<dyn KeyProvider>>,
    /// Finds credentials that the configuration only names.
    pub credentials: Option<Arc<dyn CredentialProvider>>,
    /// Tells the time where the store itself does not.
    pub clock: Arc<dyn Clock>,
    /// Makes jitter and the like repeatable in tests. Never used for keys or nonces.
    pub seed: Option<u64>,
    /// Opens the other stores that a configuration names; the registry sets itself here.
    pub stores: Option<Arc<dyn OpenStore>>,
}

impl StorageContext {
    /// Opens a store that the options of a backend or layer name, such as the index of another store.
    ///
    /// # Errors
    /// `Config` without [`stores`](StorageContext::stores); those of the store.
    pub async fn open(&self, config: &StoreConfig) -> Result<Arc<dyn StorageBackend>> {
        let Some(stores) = &self.stores else {
            let what = "a configuration within this one needs a registry; connect through storage-registry";
            return Err(Error::new(ErrorKind::Config, what));
        };
        stores.open(config, self).await
    }
}

/// Another store, named in the options of a backend or layer: a URI, or a table as the whole configuration is one.
///
/// `Debug` shows none of it, for it may hold secrets.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct StoreConfig(serde_json::Value);

impl StoreConfig {
    /// A store by its URI.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self(uri.into().into())
    }

    /// The URI, a JSON string, or the table, a JSON object.
    #[must_use]
    pub fn as_json(&self) -> &serde_json::Value {
        &self.0
    }
}

impl Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig").finish_non_exhaustive()
    }
}

/// Opens stores by URI or table: what storage-registry is to a context.
#[async_trait]
pub trait OpenStore: Debug + Send + Sync {
    /// Opens the store with its layers.
    ///
    /// # Errors
    /// `Config` for what makes no sense; those of the store.
    async fn open(&self, config: &StoreConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>>;
}

impl Default for StorageContext {
    fn default() -> Self {
        Self { keys: None, credentials: None, clock: Arc::new(SystemClock), seed: None, stores: None }
    }
}

/// A data key under the protection of a key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which key-encryption key protects it: 1 to 255 bytes.
    pub key_id: String,
    /// The protected form: at most 65,535 bytes.
    pub wrapped: Vec<u8>,
}

/// Holds key-encryption keys. Asynchronous, and handing out wrapped keys rather than its own, so that a key management
/// service fits.
#[async_trait]
pub trait KeyProvider: Debug + Send + Sync {
    /// Protects a data key with the current key-encryption key. `context` is authenticated, not stored.
    ///
    /// # Errors
    /// Those of the service behind it.
    async fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<WrappedKey>;

    /// Takes the protection off again.
    ///
    /// # Errors
    /// `Config` when there is no key with that id; `Corrupt` when the key, the context or the wrapped bytes are not those
    /// of `wrap`.
    async fn unwrap(&self, key: &WrappedKey, context: &[u8]) -> Result<DataKey>;
}

/// Finds a credential by the name a configuration gives it.
#[async_trait]
pub trait CredentialProvider: Debug + Send + Sync {
    /// The credential. Asked again whenever it may have expired.
    ///
    /// # Errors
    /// `Config` when there is none of that name.
    async fn credential(&self, name: &str) -> Result<Secret>;
}

/// Tells the time.
pub trait Clock: Debug + Send + Sync {
    /// Now.
    fn now(&self) -> SystemTime;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
