//! From the scheme of a URI to the backend that answers to it, and from names to layers.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;
use storage_config::{BackendFactory, ConnectionConfig, LayerFactory, OpenStore, StorageContext, StoreConfig};
use storage_core::{Error, ErrorKind, Result, Storage, StorageBackend, async_trait};

use crate::{LayerConfig, StorageConfig, layers, nearest::hint, order};

/// Schemes and names of layers, and who answers to them.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<&'static str, Arc<dyn BackendFactory>>,
    layers: BTreeMap<&'static str, Arc<dyn LayerFactory>>,
    context: StorageContext,
}

impl Registry {
    /// With every backend and layer that the enabled features bring.
    #[must_use]
    pub fn new() -> Self {
        let registry = layers::all().into_iter().fold(Self::empty(), Self::register_layer);
        #[cfg(feature = "memory")]
        let registry = registry.register(storage_memory::MemoryFactory);
        #[cfg(feature = "fs")]
        let registry = registry.register(storage_fs::FsFactory);
        #[cfg(feature = "versioned-filesystem")]
        let registry = registry.register(crate::versioned::VersionedFsFactory);
        #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
        let registry = registry.register(storage_sql::SqlFactory);
        #[cfg(feature = "mongodb")]
        let registry = registry.register(storage_mongodb::MongoFactory);
        #[cfg(feature = "rest")]
        let registry = registry.register(storage_rest::RestFactory);
        #[cfg(feature = "ipfs")]
        let registry = registry.register(storage_ipfs::IpfsFactory);
        #[cfg(feature = "multi")]
        let registry = registry.register(storage_multi::MultiFactory::new());
        #[cfg(feature = "object-store")]
        let registry = registry.register(storage_object_store::ObjectStoreFactory);
        #[cfg(feature = "gcs")]
        let registry = registry.register(storage_gcs::GcsFactory);
        #[cfg(feature = "s3")]
        let registry = registry.register(storage_s3::S3Factory);
        #[cfg(feature = "azure")]
        let registry = registry.register(storage_azure::AzureFactory);
        registry
    }

    /// With none.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a backend, your own or a third party's. A scheme that is taken goes to the new one.
    #[must_use]
    pub fn register(mut self, factory: impl BackendFactory) -> Self {
        let factory: Arc<dyn BackendFactory> = Arc::new(factory);
        for scheme in factory.schemes() {
            self.factories.insert(scheme, factory.clone());
        }
        self
    }

    /// Adds a layer, your own or a third party's. A name that is taken goes to the new one.
    #[must_use]
    pub fn register_layer(mut self, factory: impl LayerFactory) -> Self {
        self.layers.insert(factory.name(), Arc::new(factory));
        self
    }

    /// What backends and layers are given from outside: keys, credentials, the clock.
    #[must_use]
    pub fn context(mut self, context: StorageContext) -> Self {
        self.context = context;
        self
    }

    /// The schemes it knows, in order.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.factories.keys().copied()
    }

    /// The names of the layers it knows, in order.
    pub fn layers(&self) -> impl Iterator<Item = &'static str> {
        self.layers.keys().copied()
    }

    /// Opens a store: `memory:`, `fs:./storage`, `sqlite:./data.db?table=docs`. An empty URI is `memory:`.
    ///
    /// # Errors
    /// `Config` for a scheme or option nobody knows (the message lists the known ones); the backend's own when the store
    /// cannot be reached or used.
    pub async fn open(&self, uri: &str) -> Result<Storage> {
        self.connect(&ConnectionConfig::new(uri)).await
    }

    /// Opens a store, with options that the URI need not hold.
    ///
    /// # Errors
    /// As [`open`](Registry::open).
    pub async fn connect(&self, config: &ConnectionConfig) -> Result<Storage> {
        let scheme = config.scheme()?.to_ascii_lowercase();
        let factory = self.factories.get(scheme.as_str()).ok_or_else(|| self.unknown(&scheme))?;
        let backend = factory.connect(config, &self.given()).await;
        let backend = backend.map_err(|e| e.with_operation("connect").with_backend(&scheme.into()));
        backend.map(Storage::from_arc)
    }

    /// Opens a store with the layers that a configuration puts around it.
    ///
    /// # Errors
    /// As [`open`](Registry::open); `Config` for a layer nobody knows (the message lists the known ones), for layers in an
    /// order that makes no sense (the message says why), and for options of a layer; all before anything is opened, as far as
    /// that can be known without the store.
    pub async fn build(&self, config: &StorageConfig) -> Result<Storage> {
        let layers = order::arrange(config)?;
        let factories = layers.iter().map(|layer| self.layer_named(layer)).collect::<Result<Vec<_>>>()?;
        for (layer, factory) in layers.iter().zip(&factories) {
            factory.check(&layer.options).map_err(|e| e.with_operation("connect"))?;
        }
        let connection = config.connection(&self.context).await?;
        let context = self.given();
        let mut backend = self.connect(&connection).await?.backend().clone();
        for (layer, factory) in layers.iter().zip(factories).rev() {
            let put = factory.layer(&layer.options, &context, backend).await;
            backend = put.map_err(|e| e.with_operation("connect"))?;
        }
        Ok(Storage::from_arc(backend))
    }

    /// The context, through which this registry opens the stores that others name.
    fn given(&self) -> StorageContext {
        let mut context = self.context.clone();
        context.stores.get_or_insert_with(|| Arc::new(self.clone()));
        context
    }

    fn layer_named(&self, layer: &LayerConfig) -> Result<&Arc<dyn LayerFactory>> {
        let name = layer.name();
        self.layers.get(name).ok_or_else(|| {
            let known: Vec<_> = self.layers().collect();
            let known = known.join("`, `");
            Error::new(
                ErrorKind::Config,
                format!(
                    "layers: there is no such layer{}; known are `{known}`; others are enabled by cargo features of \
                     storage-registry or added with `register_layer`",
                    hint(name, self.layers())
                ),
            )
        })
    }

    fn unknown(&self, scheme: &str) -> Error {
        let known: Vec<_> = self.schemes().collect();
        Error::new(
            ErrorKind::Config,
            format!(
                "no backend answers to this scheme{}; known are `{}`; others are enabled by cargo features of \
                 storage-registry or added with `register`",
                hint(scheme, self.schemes()),
                known.join("`, `")
            ),
        )
    }
}

#[async_trait]
impl OpenStore for Registry {
    async fn open(&self, config: &StoreConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let config = match config.as_json() {
            Value::String(uri) => StorageConfig::new(uri),
            table => StorageConfig::try_from(table.clone())?,
        };
        let registry = self.clone().context(context.clone());
        Ok(registry.build(&config).await?.backend().clone())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("schemes", &self.factories.keys())
            .field("layers", &self.layers.keys())
            .field("context", &self.context)
            .finish()
    }
}
