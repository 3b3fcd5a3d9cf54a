//! A directory with versions: storage-fs below the versioned layer.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use serde::Deserialize;
use storage_core::{
    BackendFactory, ConnectionConfig, Error, ErrorKind, Result, StorageBackend, StorageContext, async_trait,
};
use storage_fs::{Durability, Fs};
use storage_layer_versioned::{Versioned, VersionedLayer};

/// Connects `versioned-filesystem:` and `versioned-fs:`. The location is the root.
pub(crate) struct VersionedFsFactory;

/// The settings of storage-fs, and `max_versions`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    root: PathBuf,
    durability: Durability,
    create: bool,
    read_only: bool,
    max_versions: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        let storage_fs::Config { root, durability, create, read_only, .. } = storage_fs::Config::default();
        Self { root, durability, create, read_only, max_versions: VersionedLayer::DEFAULT_MAX_VERSIONS }
    }
}

#[async_trait]
impl BackendFactory for VersionedFsFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["versioned-filesystem", "versioned-fs"]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let mut typed: Config = config.typed()?;
        let location = config.location()?;
        if !location.is_empty() {
            if typed.root != Config::default().root {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the root is given twice: keep the location or the option `root`",
                ));
            }
            typed.root = location.into();
        }
        let mut fs = storage_fs::Config::default();
        fs.root = typed.root;
        fs.durability = typed.durability;
        fs.create = typed.create;
        fs.read_only = typed.read_only;
        let layer = VersionedLayer::new().max_versions(typed.max_versions.get());
        Ok(Arc::new(Versioned::new(Arc::new(Fs::connect(fs).await?), layer)?))
    }
}
