//! The settings, and how the layer is put around a backend.

use std::sync::Arc;

use serde::Deserialize;
use storage_core::{Layer, StorageBackend};

use crate::{Trace, TraceIntercept};

/// Opens a span of `tracing` for each operation, with its key unless told otherwise.
///
/// In a configuration: `keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceLayer {
    pub(crate) keys: bool,
}

impl Default for TraceLayer {
    fn default() -> Self {
        Self { keys: true }
    }
}

impl TraceLayer {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the spans name keys. Off where keys say what logs must not, such as names of people.
    #[must_use]
    pub fn keys(mut self, keys: bool) -> Self {
        self.keys = keys;
        self
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for TraceLayer {
    type Backend = Trace<S>;

    fn layer(self, inner: Arc<S>) -> Trace<S> {
        let backend = inner.info().id.clone();
        Trace::new(inner, TraceIntercept::new(self, backend))
    }
}
