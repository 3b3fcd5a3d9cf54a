//! What can be configured, and the factory that connects.

use std::{collections::BTreeMap, sync::Arc};

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage_config::{BackendFactory, ConnectionConfig, StorageContext, StoreConfig};
use storage_core::{Result, StorageBackend, async_trait};

use crate::{Store, Strategy, error::wrong, redundant::Redundancy, sharded::Sharding, store::is_name};

/// Which stores become one, and how.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// How the stores become one, by the name of a [`Strategy`]; it must be set.
    pub strategy: Option<String>,
    /// The stores, in place of those in the URI.
    pub stores: Vec<StoreEntry>,
    /// Of `redundant`: how many stores must have a write before it is acknowledged; more than half of them unless set.
    pub write_quorum: Option<usize>,
    /// Of `redundant`: seconds that what stands for a deleted value is kept at least; a week unless set.
    pub tombstone_lifetime: Option<u64>,
    /// Of `sharded`: whether the stores and weights may be others than the set was made with, until
    /// [`Sharded::rebalance`](crate::Sharded::rebalance) moves the values.
    pub rebalance: bool,
}

/// One of the stores in a configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StoreEntry {
    /// Its name, which stays with it for good.
    pub name: String,
    /// The store, with layers of its own: a URI or a table.
    pub store: StoreConfig,
    /// Its share beside the others'; 1 unless set, 0 for a store that `rebalance` empties.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl Config {
    /// Reads a URI and its options, as in `multi:a=sqlite:./a.db,b=sqlite:./b.db?strategy=sharded`.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        let mut config: Self = connection.typed()?;
        let location = connection.encoded_location();
        if location.is_empty() {
            return Ok(config);
        }
        if !config.stores.is_empty() {
            return Err(wrong("stores are named in the URI and in the option `stores`; name them in one place"));
        }
        for part in location.split(',') {
            let (name, uri) = part.split_once('=').filter(|(name, _)| is_name(name)).ok_or_else(|| {
                wrong(
                    "a URI names stores as in `multi:a=fs:./a,b=fs:./b?strategy=sharded`; a comma within one is `%2C`",
                )
            })?;
            let uri = percent_decode_str(uri).decode_utf8();
            let uri = uri.map_err(|_| wrong("the percent-escapes of the storage URI are not UTF-8"))?;
            config.stores.push(StoreEntry { name: name.into(), store: StoreConfig::uri(uri), weight: 1 });
        }
        Ok(config)
    }

    fn stores(&self, context: &StorageContext) -> Result<Vec<Store>> {
        if self.stores.is_empty() {
            return Err(wrong("no stores are given; name them in the URI or in the option `stores`"));
        }
        for (at, entry) in self.stores.iter().enumerate() {
            if self.stores[..at].iter().any(|other| other.name == entry.name) {
                return Err(wrong("two stores have the same name; give each its own"));
            }
        }
        let stores = self
            .stores
            .iter()
            .map(|entry| Store::configured(&entry.name, entry.store.clone(), context)?.with_weight(entry.weight));
        stores.collect()
    }
}

/// Connects `multi:`, and opens its stores through the context.
#[derive(Clone, Debug)]
pub struct MultiFactory {
    strategies: BTreeMap<&'static str, Arc<dyn Strategy>>,
}

impl Default for MultiFactory {
    fn default() -> Self {
        Self::new()
    }
}

impl MultiFactory {
    /// With the strategies of this crate.
    #[must_use]
    pub fn new() -> Self {
        Self { strategies: BTreeMap::new() }.strategy(Sharding).strategy(Redundancy)
    }

    /// Adds a strategy, your own or a third party's. A name that is taken goes to the new one.
    #[must_use]
    pub fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.strategies.insert(strategy.name(), Arc::new(strategy));
        self
    }
}

#[async_trait]
impl BackendFactory for MultiFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["multi"]
    }

    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let config = Config::from_connection(config)?;
        let strategy = config.strategy.as_deref().and_then(|name| self.strategies.get(name)).ok_or_else(|| {
            let known = self.strategies.keys().copied().collect::<Vec<_>>().join("`, `");
            wrong(format!("the option `strategy` must name how the stores become one; known are `{known}`"))
        })?;
        let of_redundant = [
            ("write_quorum", config.write_quorum.is_some()),
            ("tombstone_lifetime", config.tombstone_lifetime.is_some()),
        ];
        if let Some((name, _)) = of_redundant.iter().find(|(_, set)| *set && strategy.name() != "redundant") {
            return Err(wrong(format!("the option `{name}` is of the strategy `redundant` alone")));
        }
        if config.rebalance && strategy.name() != "sharded" {
            return Err(wrong("the option `rebalance` is of the strategy `sharded` alone"));
        }
        strategy.open(config.stores(context)?, &config, context).await
    }
}
