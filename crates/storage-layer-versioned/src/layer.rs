//! The settings, and how the layer is put around a backend.

use std::{num::NonZeroUsize, sync::Arc};

use serde::Deserialize;
use storage_core::{Layer, StorageBackend};

use crate::Versioned;

/// Keeps the newest 10 versions of every value, or as many as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VersionedLayer {
    pub(crate) max_versions: NonZeroUsize,
}

impl Default for VersionedLayer {
    fn default() -> Self {
        Self { max_versions: Self::DEFAULT_MAX_VERSIONS }
    }
}

impl VersionedLayer {
    /// How many versions of a key are kept unless set otherwise.
    pub const DEFAULT_MAX_VERSIONS: NonZeroUsize = NonZeroUsize::new(10).unwrap();

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many versions of a key are kept, the value itself included. The newest always is, so 0 means the same as 1.
    #[must_use]
    pub fn max_versions(mut self, max: usize) -> Self {
        self.max_versions = NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN);
        self
    }
}

/// Over a backend that leaves too little for keys or metadata, the limits say so. [`Versioned::new`] refuses it.
impl<S: StorageBackend + ?Sized> Layer<S> for VersionedLayer {
    type Backend = Versioned<S>;

    fn layer(self, inner: Arc<S>) -> Versioned<S> {
        Versioned::wrap(inner, self)
    }
}
