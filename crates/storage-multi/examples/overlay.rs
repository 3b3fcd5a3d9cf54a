//! A strategy of one's own: writes go to the first store, reads to the first that has the key, such as a scratch directory over a store
//! that nobody may change. It forwards what it can do and declares nothing else.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{TryStreamExt, stream};
use storage_config::StorageContext;
use storage_core::{
    BackendInfo, Body, Capabilities, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions, ListStream,
    Object, PutOptions, Result, StatOptions, StorageBackend, async_trait, defaults,
};
use storage_multi::{Config, MultiFactory, Store, Strategy};
use storage_registry::Registry;

/// Makes an [`Overlay`] of two stores.
#[derive(Debug)]
struct Overlaying;

#[async_trait]
impl Strategy for Overlaying {
    fn name(&self) -> &'static str {
        "overlay"
    }

    async fn open(&self, stores: Vec<Store>, _: &Config, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let [upper, lower] = stores.as_slice() else {
            return Err(Error::new(ErrorKind::Config, "an overlay has two stores"));
        };
        let (upper, lower) = (upper.backend().await?.clone(), lower.backend().await?.clone());
        let mut info = BackendInfo::new("overlay", Capabilities::new());
        info.limits = upper.info().limits;
        Ok(Arc::new(Overlay { info, upper, lower }))
    }
}

#[derive(Debug)]
struct Overlay {
    info: BackendInfo,
    upper: Arc<dyn StorageBackend>,
    lower: Arc<dyn StorageBackend>,
}

#[async_trait]
impl StorageBackend for Overlay {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        match self.upper.get(key, options.clone()).await? {
            None => self.lower.get(key, options).await,
            found => Ok(found),
        }
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.upper.put(key, body, options).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        if self.lower.stat(key, StatOptions::new()).await?.is_some() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "the value is in the lower store, which stays as it is",
            ));
        }
        self.upper.delete(key, options).await
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        match self.upper.stat(key, options.clone()).await? {
            None => self.lower.stat(key, options).await,
            found => Ok(found),
        }
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        // Small as it is, it lists a copy: what is in the upper store replaces what is in the lower one.
        let all = ListOptions::new().prefix(options.prefix.as_str()).metadata(options.metadata);
        let mut entries = BTreeMap::new();
        for store in [&self.lower, &self.upper] {
            let mut listing = defaults::entries(store.list(all.clone()).await?);
            while let Some(entry) = listing.try_next().await? {
                entries.insert(entry.key.clone(), Ok(entry));
            }
        }
        Ok(defaults::listing(stream::iter(entries.into_values()), options))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let registry = Registry::new().register(MultiFactory::new().strategy(Overlaying));
    let storage = registry.open("multi:upper=memory:,lower=memory:?strategy=overlay").await?;
    storage.put("a", "in the upper one").await?;
    assert_eq!(storage.list("").await?.try_collect::<Vec<_>>().await?.len(), 1);
    assert_eq!(storage.get("a").await?.as_deref(), Some(b"in the upper one".as_slice()));
    Ok(())
}
