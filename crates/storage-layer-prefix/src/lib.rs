//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod names;
mod storage;

pub use layer::PrefixLayer;
pub use storage::Prefixed;
