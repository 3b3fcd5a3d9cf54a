//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod counts;
mod held;
mod load;
mod shared;
mod write;

mod storage;

pub use counts::{CacheStats, names};
pub use layer::CacheLayer;
pub use storage::Cached;
