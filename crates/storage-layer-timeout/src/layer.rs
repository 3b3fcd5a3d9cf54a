//! The settings, and how the layer is put around a backend.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};

use crate::{Timeout, TimeoutIntercept};

/// Ends calls and streams that are stuck. The defaults are 30 s for a call and between the items of a stream, 300 s for a call
/// whose work grows with the store and between the entries of a query, and a second more for each 256 KiB of a value that goes in as a whole.
///
/// In a configuration: `timeout_ms`, `bulk_timeout_ms`, `min_bytes_per_second`. Zero is refused in all three.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Settings")]
pub struct TimeoutLayer {
    pub(crate) timeout: Duration,
    pub(crate) bulk: Duration,
    pub(crate) min_rate: NonZeroU64,
}

impl Default for TimeoutLayer {
    fn default() -> Self {
        Self { timeout: Self::DEFAULT_TIMEOUT, bulk: Self::DEFAULT_BULK_TIMEOUT, min_rate: Self::DEFAULT_MIN_RATE }
    }
}

impl TimeoutLayer {
    /// The time for a call, and between the items of a stream that is not a query's.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    /// The time for a batch, a query and between its entries, `clear`, `copy`, `rename` and `commit`.
    pub const DEFAULT_BULK_TIMEOUT: Duration = Duration::from_secs(300);
    /// Bytes per second below which a value that goes in as a whole counts as stuck.
    pub const DEFAULT_MIN_RATE: NonZeroU64 = NonZeroU64::new(256 * 1024).unwrap();

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The time for a call, and between the items of a stream that is not a query's. At least a millisecond.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time.max(Duration::from_millis(1));
        self
    }

    /// The time for a call whose work grows with what it is given or finds: a batch, a query, `clear`, `copy`, `rename`,
    /// `commit`. Between the entries of a query, too: a scan may find none for long. At least a millisecond.
    #[must_use]
    pub fn bulk_timeout(mut self, time: Duration) -> Self {
        self.bulk = time.max(Duration::from_millis(1));
        self
    }

    /// How fast a value must go in, at least, when it goes in as a whole, so that nobody sees it move. It is given its size
    /// divided by this in addition to the time of the call.
    #[must_use]
    pub fn min_bytes_per_second(mut self, rate: NonZeroU64) -> Self {
        self.min_rate = rate;
        self
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for TimeoutLayer {
    type Backend = Timeout<S>;

    fn layer(self, inner: Arc<S>) -> Timeout<S> {
        Timeout::new(inner, TimeoutIntercept::new(self))
    }
}

/// The layer as a configuration file writes it.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    timeout_ms: u64,
    bulk_timeout_ms: u64,
    min_bytes_per_second: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout_ms: TimeoutLayer::DEFAULT_TIMEOUT.as_millis() as u64,
            bulk_timeout_ms: TimeoutLayer::DEFAULT_BULK_TIMEOUT.as_millis() as u64,
            min_bytes_per_second: TimeoutLayer::DEFAULT_MIN_RATE.get(),
        }
    }
}

impl TryFrom<Settings> for TimeoutLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        let positive = |name: &str, value: u64| {
            let zero = || format!("timeout: `{name}` must not be 0; leave the layer out to wait for ever");
            NonZeroU64::new(value).ok_or_else(|| Error::new(ErrorKind::Config, zero()))
        };
        Ok(Self {
            timeout: Duration::from_millis(positive("timeout_ms", settings.timeout_ms)?.get()),
            bulk: Duration::from_millis(positive("bulk_timeout_ms", settings.bulk_timeout_ms)?.get()),
            min_rate: positive("min_bytes_per_second", settings.min_bytes_per_second)?,
        })
    }
}
