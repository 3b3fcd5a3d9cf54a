//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod codec;
mod format;
mod note;
mod pieces;

mod decode;
mod encode;
mod range;

mod plain;
mod storage;

pub use layer::{Algorithm, CompressLayer, Foreign};
pub use storage::Compressed;
