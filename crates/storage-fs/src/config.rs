//! What can be configured, and the factory that connects.

use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;
use storage_config::{BackendFactory, ConnectionConfig, Durability, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend, async_trait};

use crate::Fs;

/// The settings of an [`Fs`]. Start from `Config::default()` and assign.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The directory that holds the store; `./storage` unless set. In a URI it is the location.
    pub root: PathBuf,
    /// What an acknowledged write survives; [`Durability::Full`] unless set, which syncs file and directories before it is
    /// acknowledged. [`Durability::Relaxed`] syncs nothing.
    pub durability: Durability,
    /// Whether a missing root is created; yes unless set. Say no where the root is a mount point that may be missing.
    pub create: bool,
    /// Whether to read only; no unless set. Then nothing is made or changed below the root, which needs no permission to write,
    /// and every write is refused as `PermissionDenied`.
    pub read_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { root: PathBuf::from("./storage"), durability: Durability::Full, create: true, read_only: false }
    }
}

/// Connects `fs:` and `file:`. The location is the root.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsFactory;

#[async_trait]
impl BackendFactory for FsFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["fs", "file"]
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
        Ok(Arc::new(Fs::connect(typed).await?))
    }
}
