//! From the scheme of a URI to the backend that answers to it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use storage_core::{BackendFactory, ConnectionConfig, Error, ErrorKind, Result, Storage, StorageContext};

/// Schemes and who answers to them.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<&'static str, Arc<dyn BackendFactory>>,
    context: StorageContext,
}

impl Registry {
    /// With every backend that the enabled features bring.
    #[must_use]
    pub fn new() -> Self {
        let registry = Self::empty();
        #[cfg(feature = "memory")]
        let registry = registry.register(storage_memory::MemoryFactory);
        #[cfg(feature = "fs")]
        let registry = registry.register(storage_fs::FsFactory);
        #[cfg(feature = "versioned-filesystem")]
        let registry = registry.register(crate::versioned::VersionedFsFactory);
        #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
        let registry = registry.register(storage_sql::SqlFactory);
        #[cfg(feature = "object-store")]
        let registry = registry.register(storage_object_store::ObjectStoreFactory);
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

    /// What backends are given from outside: keys, credentials, the clock.
    #[must_use]
    pub fn context(mut self, context: StorageContext) -> Self {
        self.context = context;
        self
    }

    /// The schemes it knows, in order.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.factories.keys().copied()
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
        let backend = factory.connect(config, &self.context).await;
        backend.map(Storage::from_arc).map_err(|e| e.with_operation("connect").with_backend(&scheme.into()))
    }

    fn unknown(&self, scheme: &str) -> Error {
        let known: Vec<_> = self.schemes().collect();
        let near = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(scheme, name), name))
            .filter(|(distance, _)| *distance <= 2)
            .min();
        let hint = near.map_or(String::new(), |(_, name)| format!(" (did you mean `{name}:`?)"));
        Error::new(
            ErrorKind::Config,
            format!(
                "no backend answers to `{scheme}:`{hint}; known are `{}`; others are enabled by cargo features of \
                 storage-registry or added with `register`",
                known.join("`, `")
            ),
        )
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("schemes", &self.factories.keys()).field("context", &self.context).finish()
    }
}
