//! The settings, and how the layer is put around a backend.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};

use crate::Cached;

/// Keeps values in memory. The defaults are 100 MiB, an hour, and no value of more than an eighth of all.
///
/// In a configuration: `max_bytes`, `ttl_ms`, `max_value_bytes`, `validate`, `uncertain_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Settings")]
pub struct CacheLayer {
    pub(crate) max_bytes: u64,
    pub(crate) ttl: Duration,
    pub(crate) max_value_bytes: u64,
    pub(crate) validate: bool,
    pub(crate) uncertain: Duration,
}

/// The longest time that the cache counts with.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl CacheLayer {
    /// The bytes of all that is kept.
    pub const DEFAULT_MAX_BYTES: u64 = 100 * 1024 * 1024;
    /// How long a value is kept.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);
    /// How long a key is left alone after a write whose outcome is not known.
    pub const DEFAULT_UNCERTAIN: Duration = Duration::from_secs(60);

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of all that is kept, with keys and metadata; and an eighth of it for one value.
    ///
    /// # Errors
    /// `Config` for 0.
    pub fn max_bytes(mut self, bytes: u64) -> Result<Self> {
        if bytes == 0 {
            return Err(config("`max_bytes` must not be 0; leave the layer out to keep nothing"));
        }
        self.max_bytes = bytes;
        self.max_value_bytes = (bytes / 8).max(1);
        Ok(self)
    }

    /// The largest value that is kept. Larger ones pass as they come.
    ///
    /// # Errors
    /// `Config` for more than is kept of all, or more than 2 GiB.
    pub fn max_value_bytes(mut self, bytes: u64) -> Result<Self> {
        if bytes > self.max_bytes || bytes > 1 << 31 {
            return Err(config("`max_value_bytes` must not be more than `max_bytes`, nor than 2147483648"));
        }
        self.max_value_bytes = bytes;
        Ok(self)
    }

    /// How long a value is kept, and so the longest time for which what others write past this instance is not seen.
    ///
    /// # Errors
    /// `Config` for zero and for more than a year.
    pub fn ttl(mut self, time: Duration) -> Result<Self> {
        self.ttl = checked("ttl_ms", time)?;
        Ok(self)
    }

    /// Whether the backend is asked, at each hit, if the etag is still the same.
    #[must_use]
    pub fn validate(mut self, validate: bool) -> Self {
        self.validate = validate;
        self
    }

    /// How long a key is not kept after a write of it that was cancelled, or failed without a known outcome: it could still
    /// happen. This should be longer than a request can be on its way.
    ///
    /// # Errors
    /// `Config` for zero and for more than a year.
    pub fn uncertain(mut self, time: Duration) -> Result<Self> {
        self.uncertain = checked("uncertain_ms", time)?;
        Ok(self)
    }
}

impl Default for CacheLayer {
    fn default() -> Self {
        Self {
            max_bytes: Self::DEFAULT_MAX_BYTES,
            ttl: Self::DEFAULT_TTL,
            max_value_bytes: Self::DEFAULT_MAX_BYTES / 8,
            validate: false,
            uncertain: Self::DEFAULT_UNCERTAIN,
        }
    }
}

fn checked(name: &str, time: Duration) -> Result<Duration> {
    if time.is_zero() || time > LONGEST {
        return Err(config(&format!("`{name}` must not be 0, nor more than a year")));
    }
    Ok(time)
}

fn config(what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("cache: {what}"))
}

impl<S: StorageBackend + ?Sized> Layer<S> for CacheLayer {
    type Backend = Cached<S>;

    fn layer(self, inner: Arc<S>) -> Cached<S> {
        Cached::new(inner, self)
    }
}

/// The layer as a configuration file writes it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    max_bytes: Option<u64>,
    ttl_ms: Option<u64>,
    max_value_bytes: Option<u64>,
    validate: bool,
    uncertain_ms: Option<u64>,
}

impl TryFrom<Settings> for CacheLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        let mut layer = Self::new().validate(settings.validate);
        if let Some(bytes) = settings.max_bytes {
            layer = layer.max_bytes(bytes)?;
        }
        if let Some(bytes) = settings.max_value_bytes {
            layer = layer.max_value_bytes(bytes)?;
        }
        if let Some(ms) = settings.ttl_ms {
            layer = layer.ttl(Duration::from_millis(ms))?;
        }
        if let Some(ms) = settings.uncertain_ms {
            layer = layer.uncertain(Duration::from_millis(ms))?;
        }
        Ok(layer)
    }
}
