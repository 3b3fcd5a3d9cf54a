//! The settings, and how the layer is put around a backend.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};

use crate::{Retry, RetryIntercept};

/// Repeats what failed for a passing reason. The defaults are 3 retries, the first after at most 100 ms, each later one
/// after at most twice as long, none after more than 10 s, and no new try once 30 s have passed since the first failure.
///
/// In a configuration the times are milliseconds: `retries`, `initial_ms`, `max_ms`, `budget_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Settings")]
pub struct RetryLayer {
    pub(crate) retries: u32,
    pub(crate) initial: Duration,
    pub(crate) max: Duration,
    pub(crate) budget: Duration,
    pub(crate) seed: Option<u64>,
}

impl Default for RetryLayer {
    fn default() -> Self {
        Self {
            retries: 3,
            initial: Duration::from_millis(100),
            max: Duration::from_secs(10),
            budget: Duration::from_secs(30),
            seed: None,
        }
    }
}

impl RetryLayer {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often a failed call is made again. 0 turns the layer off.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The longest wait before the first retry; it doubles with each further one.
    #[must_use]
    pub fn initial(mut self, wait: Duration) -> Self {
        self.initial = wait;
        self
    }

    /// The longest wait before any retry. A store that asks for a longer one (retry-after) is given it.
    #[must_use]
    pub fn max(mut self, wait: Duration) -> Self {
        self.max = wait;
        self
    }

    /// The time since the first failure after which no new try is begun; a wait that would end later is not begun either.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Makes the jitter repeatable, for tests.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for RetryLayer {
    type Backend = Retry<S>;

    fn layer(self, inner: Arc<S>) -> Retry<S> {
        Retry::new(inner, RetryIntercept::new(self))
    }
}

/// The layer as a configuration file writes it.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    retries: u32,
    initial_ms: u64,
    max_ms: u64,
    budget_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let layer = RetryLayer::default();
        Self {
            retries: layer.retries,
            initial_ms: layer.initial.as_millis() as u64,
            max_ms: layer.max.as_millis() as u64,
            budget_ms: layer.budget.as_millis() as u64,
        }
    }
}

impl TryFrom<Settings> for RetryLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        if settings.initial_ms > settings.max_ms {
            return Err(Error::new(
                ErrorKind::Config,
                "retry: `initial_ms` is larger than `max_ms`; the first wait cannot be longer than the longest",
            ));
        }
        Ok(Self {
            retries: settings.retries,
            initial: Duration::from_millis(settings.initial_ms),
            max: Duration::from_millis(settings.max_ms),
            budget: Duration::from_millis(settings.budget_ms),
            seed: None,
        })
    }
}
