//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;
mod stats;

mod value;
mod table;
mod load;
mod storage;
mod transaction;

pub use layer::CacheLayer;
pub use stats::Stats;
pub use storage::Cache;
