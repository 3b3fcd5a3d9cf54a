//! The settings, and how the layer is put around a backend.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};

use crate::{Cache, value::OVERHEAD};

/// The least budget without a `max_value`: an eighth of it and what a value takes beside its bytes are not more than it.
const MIN_BYTES: u64 = OVERHEAD as u64 * 8 / 7;

/// Keeps up to 100 MiB of values for up to an hour, each of at most 1 MiB, and no key for a minute after a write of it that
/// may still happen.
///
/// In a configuration: `max_bytes`, `max_value`, `ttl_ms`, `ambiguous_write_hold_ms`, `validate`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Settings")]
pub struct CacheLayer {
    pub(crate) max_bytes: u64,
    max_value: Option<u64>,
    pub(crate) ttl: Duration,
    pub(crate) doubt: Duration,
    pub(crate) validate: bool,
}

impl Default for CacheLayer {
    fn default() -> Self {
        Self {
            max_bytes: Self::DEFAULT_MAX_BYTES,
            max_value: None,
            ttl: Self::DEFAULT_TTL,
            doubt: Self::DEFAULT_DOUBT,
            validate: false,
        }
    }
}

impl CacheLayer {
    /// How many bytes are kept unless set otherwise.
    pub const DEFAULT_MAX_BYTES: u64 = 100 << 20;
    /// How long a value is kept unless set otherwise.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(3600);
    /// How long a key is not kept after a write of it that may still happen, unless set otherwise.
    pub const DEFAULT_DOUBT: Duration = Duration::from_secs(60);
    /// The largest value that is kept unless set otherwise, where an eighth of `max_bytes` is not less.
    pub const DEFAULT_MAX_VALUE: u64 = 1 << 20;
    /// The largest value that can be kept at all: 1 GiB. What is kept is held in memory as one piece.
    pub const MAX_VALUE: u64 = 1 << 30;

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are kept at most, keys, metadata and what the cache itself needs for each value included.
    ///
    /// # Errors
    /// `Config` for 0, and for less than the largest value takes that is kept: 512 bytes more than it has.
    pub fn max_bytes(mut self, bytes: u64) -> Result<Self> {
        self.max_bytes = bytes;
        self.checked()
    }

    /// The largest value that is kept. Larger ones are streamed through.
    ///
    /// # Errors
    /// `Config` for 0, for more than `max_bytes` less 512 bytes, and for more than [`CacheLayer::MAX_VALUE`].
    pub fn max_value(mut self, bytes: u64) -> Result<Self> {
        self.max_value = Some(bytes);
        self.checked()
    }

    /// How long a value is kept, counted from before it was read.
    ///
    /// # Errors
    /// `Config` for less than a millisecond.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self> {
        self.ttl = ttl;
        self.checked()
    }

    /// How long a key is not kept after a write of it was cancelled, or failed with an unknown outcome: the backend may still
    /// be at it. Longer than the backend can go on by itself; zero where it stops at once.
    #[must_use]
    pub fn doubt(mut self, time: Duration) -> Self {
        self.doubt = time;
        self
    }

    /// Whether each value that is there is asked for below by `if_none_match`, so that what others wrote is seen.
    #[must_use]
    pub fn validate(mut self, validate: bool) -> Self {
        self.validate = validate;
        self
    }

    /// The largest value that is kept.
    pub(crate) fn largest(&self) -> u64 {
        self.max_value.unwrap_or_else(|| Self::DEFAULT_MAX_VALUE.min(self.max_bytes / 8))
    }

    fn checked(self) -> Result<Self> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Config, format!("cache: {what}")));
        if self.max_bytes == 0 {
            return wrong("`max_bytes` must not be 0; leave the layer out to cache nothing".into());
        }
        if self.max_value.is_some_and(|max| max == 0 || max > Self::MAX_VALUE) {
            return wrong(format!("`max_value` must be 1 to {}", Self::MAX_VALUE));
        }
        let least = self.max_value.map_or(MIN_BYTES, |max| max + OVERHEAD as u64);
        if self.max_bytes < least {
            return wrong(format!(
                "`max_bytes` must be at least {least}, for the largest value that is kept takes {OVERHEAD} bytes more than \
                 it has; allow more, or set a lower `max_value`"
            ));
        }
        if self.ttl < Duration::from_millis(1) {
            return wrong("`ttl_ms` must not be 0; leave the layer out to cache nothing".into());
        }
        Ok(self)
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for CacheLayer {
    type Backend = Cache<S>;

    fn layer(self, inner: Arc<S>) -> Cache<S> {
        Cache::new(inner, self)
    }
}

/// The layer as a configuration file writes it.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    max_bytes: u64,
    max_value: Option<u64>,
    ttl_ms: u64,
    ambiguous_write_hold_ms: u64,
    validate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let CacheLayer { max_bytes, max_value, ttl, doubt, validate } = CacheLayer::default();
        Self {
            max_bytes,
            max_value,
            ttl_ms: ttl.as_millis() as u64,
            ambiguous_write_hold_ms: doubt.as_millis() as u64,
            validate,
        }
    }
}

impl TryFrom<Settings> for CacheLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        let Settings { max_bytes, max_value, ttl_ms, ambiguous_write_hold_ms, validate } = settings;
        let (ttl, doubt) = (Duration::from_millis(ttl_ms), Duration::from_millis(ambiguous_write_hold_ms));
        CacheLayer { max_bytes, max_value, ttl, doubt, validate }.checked()
    }
}
