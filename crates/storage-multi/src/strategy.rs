//! How several stores become one: the trait for strategies, ours and others'.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use storage_config::StorageContext;
use storage_core::{Result, StorageBackend};

use crate::{Config, Store};

/// A way to make one store of several. [`MultiFactory::strategy`](crate::MultiFactory::strategy) makes it known by its name.
///
/// It is given the stores and answers with a backend, which keeps the whole contract and declares only what the stores together can
/// honour: the conformance suite proves it as it does any backend. `examples/overlay.rs` is one of sixty lines.
#[async_trait]
pub trait Strategy: Debug + Send + Sync + 'static {
    /// The name by which a configuration asks for it: letters, digits and `-`, lowercase.
    fn name(&self) -> &'static str;

    /// Makes one store of these, whose names differ and which are at least one. They need not be open: a strategy that can do without one of
    /// them asks for it again later. Of the configuration it need look at no more than options that it has a use for; the stores in it are these.
    ///
    /// # Errors
    /// `Config` for stores that do not fit together; those of the stores.
    async fn open(
        &self,
        stores: Vec<Store>,
        config: &Config,
        context: &StorageContext,
    ) -> Result<Arc<dyn StorageBackend>>;
}
