#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod registry;
mod config;
mod order;
mod nearest;
mod layers;
#[cfg(feature = "encrypt")]
mod encrypt;
#[cfg(feature = "versioned-filesystem")]
mod versioned;

pub use config::{Connection, LayerConfig, Options, StorageConfig};
pub use registry::Registry;

use storage_core::{Result, Storage};

/// Opens a store with every backend that the enabled features bring. See [`Registry::open`].
///
/// # Errors
/// As [`Registry::open`].
pub async fn open(uri: &str) -> Result<Storage> {
    Registry::new().open(uri).await
}

/// Opens a store and its layers with everything that the enabled features bring. See [`Registry::build`].
///
/// # Errors
/// As [`Registry::build`].
pub async fn build(config: &StorageConfig) -> Result<Storage> {
    Registry::new().build(config).await
}

/// The examples of the workspace's README are compiled and run with this crate's.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
