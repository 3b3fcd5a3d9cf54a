//! A store that is a part of another, by its name.

use std::{fmt, sync::Arc};

use storage_config::{StorageContext, StoreConfig};
use storage_core::{Result, StorageBackend};
use tokio::sync::OnceCell;

use crate::error::{above, wrong};

/// The most bytes that a name has.
const NAME: usize = 64;

/// One of the stores, by its name. It is opened when it is first needed; clones share it.
#[derive(Clone)]
pub struct Store {
    name: Arc<str>,
    weight: u32,
    place: Arc<Place>,
}

struct Place {
    backend: OnceCell<Arc<dyn StorageBackend>>,
    /// How it is opened; `None` where it is open already.
    config: Option<(StoreConfig, StorageContext)>,
}

impl Store {
    /// A store that is open. Its name stays with it for good: markers in the store, and where its values are, depend on it.
    ///
    /// # Errors
    /// `Config` for a name that is not 1 to 64 letters, digits, `-` and `_`.
    pub fn new(name: &str, backend: Arc<dyn StorageBackend>) -> Result<Self> {
        let place = Place { backend: OnceCell::new_with(Some(backend)), config: None };
        Ok(Self { name: checked(name)?, weight: 1, place: Arc::new(place) })
    }

    /// A store that the context opens.
    ///
    /// # Errors
    /// As [`new`](Store::new).
    pub fn configured(name: &str, config: StoreConfig, context: &StorageContext) -> Result<Self> {
        let place = Place { backend: OnceCell::new(), config: Some((config, context.clone())) };
        Ok(Self { name: checked(name)?, weight: 1, place: Arc::new(place) })
    }

    /// The same store, which takes so many times the share of one with weight 1. One of weight 0 takes no values, and
    /// [`Sharded::rebalance`](crate::Sharded::rebalance) moves those that it has to the others.
    ///
    /// # Errors
    /// `Config` for more than 100.
    pub fn with_weight(mut self, weight: u32) -> Result<Self> {
        if weight > 100 {
            return Err(wrong("the weight of a store must be at most 100"));
        }
        self.weight = weight;
        Ok(self)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its share of the values, beside the others' weights; 1 unless set.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The store itself, which is opened at the first call. One that could not be opened is tried again.
    ///
    /// # Errors
    /// Those of the store, with its name.
    pub async fn backend(&self) -> Result<&Arc<dyn StorageBackend>> {
        let open = || async {
            let (config, context) =
                self.place.config.as_ref().ok_or_else(|| wrong("the store has no configuration to open it by"))?;
            context.open(config).await
        };
        self.place.backend.get_or_try_init(open).await.map_err(|e| above(&self.name, e))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("name", &self.name).field("weight", &self.weight).finish_non_exhaustive()
    }
}

fn checked(name: &str) -> Result<Arc<str>> {
    if !is_name(name) {
        return Err(wrong("the name of a store must be 1 to 64 letters, digits, `-` and `_`"));
    }
    Ok(name.into())
}

/// Whether a store can be called so.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
