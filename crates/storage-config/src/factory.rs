//! What connects backends and builds layers from a configuration.

use std::{marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use storage_core::{Layer, Result, StorageBackend};

use crate::{ConnectionConfig, StorageContext};

/// Connects backends of one kind. Third parties register their own with the registry.
#[async_trait]
pub trait BackendFactory: Send + Sync + 'static {
    /// The URI schemes it answers to, lowercase.
    fn schemes(&self) -> &'static [&'static str];

    /// Opens the store and makes sure that it can be used.
    ///
    /// # Errors
    /// `Config` for options that make no sense; the store's own when it cannot be reached or used.
    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>>;
}

/// Puts layers of one kind around backends, by name. Third parties register their own with the registry.
#[async_trait]
pub trait LayerFactory: Send + Sync + 'static {
    /// The name by which a configuration asks for the layer: letters, digits and `-`, lowercase.
    fn name(&self) -> &'static str;

    /// Looks at the options before the store below is opened, as far as that is possible without it.
    ///
    /// # Errors
    /// `Config` for options that make no sense.
    fn check(&self, config: &ConnectionConfig) -> Result<()> {
        let _ = config;
        Ok(())
    }

    /// Puts the layer around `inner`. Its options are those of `config`, whose scheme is the name; none may be called `name`.
    ///
    /// # Errors
    /// `Config` for options that make no sense, and for a backend that leaves the layer too little.
    async fn layer(
        &self,
        config: &ConnectionConfig,
        context: &StorageContext,
        inner: Arc<dyn StorageBackend>,
    ) -> Result<Arc<dyn StorageBackend>>;
}

/// A [`LayerFactory`] from a function: `options` are of a type under `#[serde(deny_unknown_fields, default)]`, and are looked at
/// before the store below is opened.
///
/// ```
/// # use storage_layer_prefix_example::*;
/// # mod storage_layer_prefix_example {
/// #     use std::sync::Arc;
/// #     use storage_core::{Layer, StorageBackend};
/// #     #[derive(Default, serde::Deserialize)]
/// #     #[serde(deny_unknown_fields, default)]
/// #     pub struct Options { pub table: String }
/// #     pub struct Audit(pub String);
/// #     impl Layer<dyn StorageBackend> for Audit {
/// #         type Backend = Arc<dyn StorageBackend>;
/// #         fn layer(self, inner: Arc<dyn StorageBackend>) -> Self::Backend { inner }
/// #     }
/// # }
/// use storage_config::{LayerFactory, layer_factory};
///
/// let factory = layer_factory("audit", |options: Options, _context| Ok(Audit(options.table)));
/// assert_eq!(factory.name(), "audit");
/// ```
pub fn layer_factory<T, L>(
    name: &'static str,
    build: impl Fn(T, &StorageContext) -> Result<L> + Send + Sync + 'static,
) -> impl LayerFactory
where
    T: DeserializeOwned + Send + Sync + 'static,
    L: Layer<dyn StorageBackend> + Send,
{
    FromFn { name, build, options: PhantomData::<fn() -> T> }
}

struct FromFn<T, F> {
    name: &'static str,
    build: F,
    options: PhantomData<fn() -> T>,
}

#[async_trait]
impl<T, L, F> LayerFactory for FromFn<T, F>
where
    T: DeserializeOwned + Send + Sync + 'static,
    L: Layer<dyn StorageBackend> + Send,
    F: Fn(T, &StorageContext) -> Result<L> + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, config: &ConnectionConfig) -> Result<()> {
        config.typed::<T>().map(drop)
    }

    async fn layer(
        &self,
        config: &ConnectionConfig,
        context: &StorageContext,
        inner: Arc<dyn StorageBackend>,
    ) -> Result<Arc<dyn StorageBackend>> {
        let layer = (self.build)(config.typed()?, context)?;
        Ok(Arc::new(layer.layer(inner)))
    }
}
