//! The settings, and how the layer is put around a backend.

use std::sync::Arc;

use ring::aead;
use serde::Deserialize;
use storage_config::KeyProvider;
use storage_core::{Layer, StorageBackend};

use crate::{Encrypt, EncryptTransform};

/// How values are encrypted. Both take 256-bit keys and are equally strong; values written with either can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum Algorithm {
    /// AES-256-GCM: fastest where the processor has AES instructions.
    #[default]
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305: fastest where it has none.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Algorithm {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Aes256Gcm, Self::ChaCha20Poly1305].into_iter().find(|algorithm| algorithm.code() == code)
    }

    pub(crate) fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// Encrypts every value under a fresh key, which the [`KeyProvider`] wraps.
#[derive(Clone, Debug)]
pub struct EncryptLayer {
    pub(crate) keys: Arc<dyn KeyProvider>,
    pub(crate) algorithm: Algorithm,
    pub(crate) encrypt_metadata: bool,
    pub(crate) allow_plain_metadata: bool,
}

impl EncryptLayer {
    /// With AES-256-GCM and these keys; metadata stays in the clear.
    pub fn new(keys: impl KeyProvider + 'static) -> Self {
        Self::from_arc(Arc::new(keys))
    }

    /// As [`new`](EncryptLayer::new).
    #[must_use]
    pub fn from_arc(keys: Arc<dyn KeyProvider>) -> Self {
        Self { keys, algorithm: Algorithm::default(), encrypt_metadata: false, allow_plain_metadata: false }
    }

    /// Writes with this algorithm; reading takes either.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Encrypts the metadata of what is written too. Metadata in the clear is then `Corrupt`, for whoever can write to the store
    /// can write it; see [`allow_plain_metadata`](Self::allow_plain_metadata). The store sees only its size, and takes
    /// about three quarters of the metadata that it otherwise would. Key id and wrapped key of the provider may have 82
    /// bytes together, which leaves 22 for an id of [`StaticKeys`](crate::StaticKeys).
    #[must_use]
    pub fn encrypt_metadata(mut self, encrypt: bool) -> Self {
        self.encrypt_metadata = encrypt;
        self
    }

    /// With [`encrypt_metadata`](Self::encrypt_metadata), also reads values that were written before, with their metadata in the
    /// clear. Set it only until each is written again (`docs/encryption.md`, *Migrating to encrypted metadata*): an old value
    /// with its old metadata, brought back, is then taken for the present one. It costs a read of 256 bytes for each such entry in a
    /// `stat`, a listing or a query, by which its metadata is authenticated. A warning is logged when the layer is put
    /// around a store. Without `encrypt_metadata` it changes nothing.
    #[must_use]
    pub fn allow_plain_metadata(mut self, allow: bool) -> Self {
        self.allow_plain_metadata = allow;
        self
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for EncryptLayer {
    type Backend = Encrypt<S>;

    fn layer(self, inner: Arc<S>) -> Encrypt<S> {
        if self.encrypt_metadata && self.allow_plain_metadata {
            tracing::warn!(
                backend = &*inner.info().id,
                "values whose metadata is in the clear are read: write them again, then take `allow_plain_metadata` away"
            );
        }
        Encrypt::new(inner, EncryptTransform::new(self))
    }
}
