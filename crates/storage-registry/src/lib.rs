#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod registry;
#[cfg(feature = "versioned-filesystem")]
mod versioned;

pub use registry::Registry;

use storage_core::{Result, Storage};

/// Opens a store with every backend that the enabled features bring. See [`Registry::open`].
///
/// # Errors
/// As [`Registry::open`].
pub async fn open(uri: &str) -> Result<Storage> {
    Registry::new().open(uri).await
}

/// The examples of the workspace's README are compiled and run with this crate's.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
