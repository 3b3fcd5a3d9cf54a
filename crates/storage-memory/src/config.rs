//! What can be configured, and the factory that connects.

use std::{num::NonZeroUsize, sync::Arc};

use serde::Deserialize;
use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend, async_trait};

use crate::Memory;

/// The settings of a [`Memory`]. Start from `Config::default()` and assign.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// How many versions of a key are kept, the newest included; 10 unless set. With 1, a deleted key keeps none.
    pub max_versions: NonZeroUsize,
    /// Of how many deleted keys the versions are kept; 10,000 unless set. Beyond, the key deleted first is forgotten with all its
    /// versions.
    pub max_deleted: usize,
    /// The most bytes of a value; without it, as many as there is memory for.
    pub max_value: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_versions: const { NonZeroUsize::new(10).unwrap() }, max_deleted: 10_000, max_value: None }
    }
}

/// Connects `memory:` and `mem:`. Every connection is a new, empty store.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryFactory;

#[async_trait]
impl BackendFactory for MemoryFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["memory", "mem"]
    }

    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        if !config.location()?.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "the memory backend has no location: write `memory:`, with options after a `?`",
            ));
        }
        let memory = Memory::with_clock(config.typed()?, context.clock.clone());
        Ok(Arc::new(memory))
    }
}
