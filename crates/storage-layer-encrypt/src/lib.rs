#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod format;
mod keyring;
mod keys;
mod layer;
mod metadata;
mod pieces;
mod record;
mod seal;
mod storage;
#[cfg(test)]
mod vectors;
mod wrap;

pub use keyring::{Keyring, Rewrap};
pub use keys::StaticKeys;
pub use layer::{Algorithm, EncryptLayer};
pub use storage::{Encrypt, EncryptTransform};

/// The examples of the page about the format are compiled and run with this crate's.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/encryption.md")]
struct Page;
