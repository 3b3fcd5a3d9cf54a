//! A directory with versions: storage-fs below the versioned layer.

use std::sync::Arc;

use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{Result, StorageBackend, async_trait};
use storage_fs::FsFactory;
use storage_layer_versioned::{Versioned, VersionedLayer};

/// Connects `versioned-filesystem:` and `versioned-fs:`. The location is the root; options are those of storage-fs and of the
/// layer.
pub(crate) struct VersionedFsFactory;

#[async_trait]
impl BackendFactory for VersionedFsFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["versioned-filesystem", "versioned-fs"]
    }

    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let mut below = config.clone();
        let layer: VersionedLayer = below.take()?;
        Ok(Arc::new(Versioned::new(FsFactory.connect(&below, context).await?, layer)?))
    }
}
