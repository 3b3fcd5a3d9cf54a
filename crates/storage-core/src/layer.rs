//! How middleware is put around a backend.

use std::sync::Arc;

use crate::StorageBackend;

/// Builds a middleware around a backend: settings on the one side, the wrapped backend on the other.
///
/// Only the shape lives here, so that [`Storage::layer`](crate::Storage::layer) can take any layer. The crate
/// `storage-layer` has what helps to write one.
pub trait Layer<S: ?Sized> {
    /// The backend with the middleware around it.
    type Backend: StorageBackend;

    /// Puts the middleware around `inner`.
    fn layer(self, inner: Arc<S>) -> Self::Backend;
}
