//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod names;
mod stamp;

mod change;
mod history;
mod listing;
mod storage;

pub use layer::VersionedLayer;
pub use storage::Versioned;
