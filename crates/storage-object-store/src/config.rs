//! Settings, and the factory for object_store's own stores.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory};
use serde::Deserialize;
use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend};

use crate::{ObjectStoreBackend, Profile, error};

/// How to use a store, whichever it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Everything lies below this name, which ends at a `/`: `user1` never reaches `user10`. Empty by default.
    pub prefix: String,
    /// Values up to this many bytes are written in one request, larger ones in parts of this size; default 5 MiB.
    pub part_size: NonZeroUsize,
    /// How many parts are under way at once; default 4.
    pub parts_in_flight: NonZeroUsize,
    /// A conditional write is one request, so a streamed value under a condition is collected in memory. At most so many
    /// bytes, default 256 MiB; more is `TooLarge`.
    pub conditional_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            prefix: String::new(),
            part_size: NonZeroUsize::MIN.saturating_add(5 * MIB - 1),
            parts_in_flight: NonZeroUsize::MIN.saturating_add(3),
            conditional_limit: 256 * MIB,
        }
    }
}

impl Config {
    /// How all names begin: with the prefix and a `/`, if there is a prefix.
    #[must_use]
    pub fn root(&self) -> String {
        match self.prefix.strip_suffix('/').unwrap_or(&self.prefix) {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    /// Takes from the location of a URI, `bucket/prefix`, what its options leave open. `option` is what the option for the bucket is
    /// called, and `bucket` what it says.
    ///
    /// # Errors
    /// `Config` where both say something.
    pub fn locate(&mut self, connection: &ConnectionConfig, option: &str, bucket: &mut String) -> Result<()> {
        let location = connection.location()?;
        let (name, prefix) = location.split_once('/').unwrap_or((&location, ""));
        for (option, there, here) in [(option, name, bucket), ("prefix", prefix, &mut self.prefix)] {
            if !there.is_empty() && !here.is_empty() {
                let message =
                    format!("the {option} stands in the URI and in the option `{option}`; leave one of them out");
                return Err(Error::new(ErrorKind::Config, message));
            }
            if here.is_empty() {
                there.clone_into(here);
            }
        }
        Ok(())
    }
}

/// Connects the stores that `object_store` brings along, for tests and for trying out.
///
/// - `object-store+memory:` is a fresh, empty store in memory.
/// - `object-store+file:DIRECTORY` is a directory (`./storage` by default), created if need be. Writes are flushed to the disk.
///
/// The options are the fields of [`Config`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectStoreFactory;

#[async_trait]
impl BackendFactory for ObjectStoreFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["object-store+memory", "object-store+file"]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let settings: Config = config.typed()?;
        let (store, profile): (Arc<dyn ObjectStore>, _) = match config.scheme()?.to_ascii_lowercase().as_str() {
            "object-store+file" => (local(config.location()?).await?, Profile::local()),
            "object-store+memory" if !config.location()?.is_empty() => {
                let message =
                    "a store in memory has no location: write `object-store+memory:`, with options after a `?`";
                return Err(Error::new(ErrorKind::Config, message));
            }
            "object-store+memory" => (Arc::new(InMemory::new()), Profile::memory()),
            _ => {
                let message = "the scheme is not one of object_store's own stores; write `object-store+file:` and a directory, or \
                               `object-store+memory:`";
                return Err(Error::new(ErrorKind::Config, message));
            }
        };
        let backend = ObjectStoreBackend::connect(store, profile, settings).await?;
        Ok(Arc::new(backend))
    }
}

async fn local(location: String) -> Result<Arc<LocalFileSystem>> {
    let directory = match location.as_str() {
        "" => PathBuf::from("./storage"),
        path => PathBuf::from(path),
    };
    let open = move || {
        std::fs::create_dir_all(&directory).map_err(error::directory)?;
        let store = LocalFileSystem::new_with_prefix(&directory).map_err(error::read)?;
        Ok(Arc::new(store.with_fsync(true)))
    };
    tokio::task::spawn_blocking(open).await.map_err(error::task)?
}
