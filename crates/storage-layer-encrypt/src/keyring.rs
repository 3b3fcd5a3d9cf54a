//! Wrapping keys kept in a storage, so that a new key-encryption key does not touch values.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::TryStreamExt;
use ring::rand::{SecureRandom, SystemRandom};
use storage_config::{DataKey, KeyProvider, WrappedKey};
use storage_core::{Bytes, Condition, Error, ErrorKind, GetOptions, PutOptions, Result, Storage, async_trait};

use crate::{
    record,
    wrap::{WrappingKey, no_randomness, random_key},
};

/// Wraps data keys with keys of its own, the wrapping keys, each of which lies in a storage, itself wrapped by a
/// key-encryption key.
///
/// So a new key-encryption key means wrapping these few anew ([`rewrap`](Keyring::rewrap)): no value is read, written, or
/// gets another etag, version or date. And a key management service is asked once for a wrapping key, not for each value.
///
/// The storage must be the ring's own, a prefix for instance, and live as long as what is encrypted: whoever deletes a
/// record deletes every value under that key. What lies there under names that are not the ring's is left alone.
///
/// Of several instances over one storage, in one process or many, each reads what any of them writes. A new wrapping key
/// is used by the others from when they first meet it.
pub struct Keyring {
    storage: Storage,
    keys: Arc<dyn KeyProvider>,
    random: SystemRandom,
    /// Those that were needed so far, by id. The last is the current one.
    known: RwLock<BTreeMap<String, Arc<WrappingKey>>>,
}

/// What [`Keyring::rewrap`] did to which wrapping keys.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Rewrap {
    /// Wrapped anew, by the current key-encryption key.
    pub rewrapped: Vec<String>,
    /// Left as they are: the current key-encryption key wraps them already.
    pub current: Vec<String>,
    /// Left as they are, because of this.
    pub failed: Vec<(String, Error)>,
}

impl Keyring {
    /// Opens the ring in a storage, and makes its first wrapping key where there is none.
    ///
    /// # Errors
    /// `Corrupt` when the newest record was changed; those of the storage and of `keys`.
    pub async fn open(storage: Storage, keys: impl KeyProvider + 'static) -> Result<Self> {
        Self::open_arc(storage, Arc::new(keys)).await
    }

    /// As [`open`](Keyring::open).
    ///
    /// # Errors
    /// As [`open`](Keyring::open).
    pub async fn open_arc(storage: Storage, keys: Arc<dyn KeyProvider>) -> Result<Self> {
        let ring = Self { storage, keys, random: SystemRandom::new(), known: RwLock::default() };
        match ring.ids().await?.pop() {
            Some(newest) => drop(ring.load(&newest).await?),
            None => drop(ring.renew().await?),
        }
        Ok(ring)
    }

    /// Makes a new wrapping key, which wraps the data keys of values written from now on, and returns its id.
    ///
    /// # Errors
    /// `Config` after 65,535 of them; those of the storage and of the key provider. The older key stays in use then.
    pub async fn renew(&self) -> Result<String> {
        let ids = self.ids().await?;
        let number = record::number(ids.last().map_or("", String::as_str)).unwrap_or(0);
        let number = number.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Config, "the ring is full; begin another and write the values anew through it")
        })?;
        // Others may do the same at the same time, also where a write cannot be made conditional: chance keeps them apart.
        let mut chance = [0; 8];
        self.random.fill(&mut chance).map_err(|_| no_randomness())?;
        let id = record::id(number, chance);
        let key = random_key(&self.random)?;
        let wrapped = self.keys.wrap(&key, &record::context(&id)).await?;
        self.write(&id, &wrapped, Condition::IfAbsent).await?;
        self.remember(WrappingKey::new(id.clone(), &key)?);
        Ok(id)
    }

    /// Wraps each wrapping key by the current key-encryption key, unless that wraps it already.
    ///
    /// Afterwards, if nothing `failed`, no older key-encryption key is needed. Values are read and written meanwhile as ever.
    /// It can be stopped at any point and called again.
    ///
    /// # Errors
    /// Of the listing. Each wrapping key's own are in the report.
    pub async fn rewrap(&self) -> Result<Rewrap> {
        let mut report = Rewrap::default();
        for id in self.ids().await? {
            match self.rewrap_one(&id).await {
                Ok(true) => report.rewrapped.push(id),
                Ok(false) => report.current.push(id),
                Err(e) => report.failed.push((id, e)),
            }
        }
        Ok(report)
    }

    async fn rewrap_one(&self, id: &str) -> Result<bool> {
        let object =
            self.storage.open(id, GetOptions::new().prefer_buffered(true)).await?.ok_or_else(|| missing(id))?;
        let etag = object.entry.etag;
        let old = record::decode(&object.body.bytes(record::MAX).await?)?;
        let context = record::context(id);
        let key = self.keys.unwrap(&old, &context).await?;
        let new = self.keys.wrap(&key, &context).await?;
        if new.key_id == old.key_id {
            return Ok(false);
        }
        // Whatever a racing instance wrote holds the same key; the condition keeps an older key-encryption key from coming back.
        let unchanged = etag.map(Condition::IfMatch);
        self.write(id, &new, unchanged).await?;
        Ok(true)
    }

    async fn write(&self, id: &str, wrapped: &WrappedKey, condition: impl Into<Option<Condition>>) -> Result<()> {
        let mut options = PutOptions::new();
        options.condition = condition.into().filter(|_| self.storage.info().capabilities.conditional);
        self.storage.put_with(id, Bytes::from(record::encode(wrapped)?), options).await.map(drop)
    }

    /// The ids of all records, the current one last.
    async fn ids(&self) -> Result<Vec<String>> {
        let keys: Vec<_> = self.storage.keys().await?.try_collect().await?;
        Ok(keys.iter().map(|key| key.as_str()).filter(|id| record::number(id).is_some()).map(str::to_owned).collect())
    }

    async fn load(&self, id: &str) -> Result<Arc<WrappingKey>> {
        // An id that was changed must not become a read of just any key.
        let value = match record::number(id) {
            Some(_) => self.storage.get_with(id, GetOptions::new().range(..record::MAX)).await?,
            None => None,
        };
        let wrapped = record::decode(&value.ok_or_else(|| missing(id))?)?;
        let key: DataKey = self.keys.unwrap(&wrapped, &record::context(id)).await?;
        Ok(self.remember(WrappingKey::new(id.to_owned(), &key)?))
    }

    fn remember(&self, key: WrappingKey) -> Arc<WrappingKey> {
        let key = Arc::new(key);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(key.id().to_owned(), key.clone());
        key
    }

    fn current(&self) -> Result<Arc<WrappingKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        // An opened ring has one.
        known.values().next_back().cloned().ok_or_else(|| missing(""))
    }

    fn known(&self, id: &str) -> Option<Arc<WrappingKey>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

fn missing(id: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!(
            "there is no wrapping key {id:?} in the ring: it is the ring of another store, or its record was deleted"
        ),
    )
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Keyring").field("known", &known.keys()).field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyProvider for Keyring {
    async fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<WrappedKey> {
        self.current()?.wrap(&self.random, key, context)
    }

    async fn unwrap(&self, key: &WrappedKey, context: &[u8]) -> Result<DataKey> {
        let wrapping = match self.known(&key.key_id) {
            Some(known) => known,
            None => self.load(&key.key_id).await?,
        };
        wrapping.unwrap(&key.wrapped, context)
    }
}
