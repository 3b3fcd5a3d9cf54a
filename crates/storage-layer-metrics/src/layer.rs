//! The settings, and how the layer is put around a backend.

use std::sync::Arc;

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};

use crate::{Metrics, MetricsIntercept, names};

/// Measures every operation through the facade `metrics`, labelled with the backend's id unless told otherwise.
///
/// In a configuration: `backend`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Settings")]
pub struct MetricsLayer {
    pub(crate) backend: Option<Arc<str>>,
}

impl MetricsLayer {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The label `backend`, where the id does not tell two stores of a program apart.
    ///
    /// # Errors
    /// `Config` when it is empty: a metric with an empty label is one without.
    pub fn backend(mut self, label: impl Into<Arc<str>>) -> Result<Self> {
        let label = label.into();
        if label.is_empty() {
            let message = "metrics: the label `backend` must not be empty; leave it out for the backend's id";
            return Err(Error::new(ErrorKind::Config, message));
        }
        self.backend = Some(label);
        Ok(self)
    }
}

/// The metrics are described to the recorder that is installed at this moment.
impl<S: StorageBackend + ?Sized> Layer<S> for MetricsLayer {
    type Backend = Metrics<S>;

    fn layer(self, inner: Arc<S>) -> Metrics<S> {
        names::describe();
        let backend = self.backend.unwrap_or_else(|| inner.info().id.clone());
        Metrics::new(inner, MetricsIntercept::new(&backend))
    }
}

/// The layer as a configuration file writes it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    backend: Option<String>,
}

impl TryFrom<Settings> for MetricsLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        settings.backend.map_or(Ok(Self::new()), |label| Self::new().backend(label))
    }
}
