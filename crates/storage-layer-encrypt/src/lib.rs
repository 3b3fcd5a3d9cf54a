#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod format;
mod keys;
mod layer;
mod pieces;
mod storage;

pub use keys::StaticKeys;
pub use layer::{Algorithm, EncryptLayer};
pub use storage::{Encrypt, EncryptTransform};
