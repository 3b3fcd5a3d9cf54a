//! The settings, and how the layer is put around a backend.

use std::{num::NonZeroUsize, sync::Arc};

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};
use tokio::sync::Semaphore;

use crate::{Limit, LimitIntercept};

/// Lets at most 64 calls be at work in the backend at once, or as many as it is told. The others wait in a queue, first come,
/// first served.
///
/// In a configuration: `concurrency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Settings")]
pub struct LimitLayer {
    pub(crate) concurrency: NonZeroUsize,
}

impl Default for LimitLayer {
    fn default() -> Self {
        Self { concurrency: Self::DEFAULT_CONCURRENCY }
    }
}

impl LimitLayer {
    /// How many calls may be at work at once unless set otherwise.
    pub const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(64).unwrap();

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls may be at work at once.
    ///
    /// # Errors
    /// `Config` for 0, which would let nothing pass, and for more than [`Semaphore::MAX_PERMITS`].
    pub fn concurrency(mut self, concurrency: usize) -> Result<Self> {
        let allowed = NonZeroUsize::new(concurrency).filter(|n| n.get() <= Semaphore::MAX_PERMITS);
        self.concurrency = allowed.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!(
                    "limit: `concurrency` must be 1 to {}; leave the layer out for no limit",
                    Semaphore::MAX_PERMITS
                ),
            )
        })?;
        Ok(self)
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for LimitLayer {
    type Backend = Limit<S>;

    fn layer(self, inner: Arc<S>) -> Limit<S> {
        Limit::new(inner, LimitIntercept::new(self))
    }
}

/// The layer as a configuration file writes it.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    concurrency: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { concurrency: LimitLayer::DEFAULT_CONCURRENCY.get() }
    }
}

impl TryFrom<Settings> for LimitLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        Self::new().concurrency(settings.concurrency)
    }
}
