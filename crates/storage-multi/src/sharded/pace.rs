//! How fast values are moved, and what was done.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Called with what was done until now.
type Progress = Arc<dyn Fn(&Rebalanced) + Send + Sync>;

/// How values are moved.
#[derive(Clone)]
#[non_exhaustive]
pub struct RebalanceOptions {
    /// How many values are moved at once; 4 unless set.
    pub at_once: usize,
    /// At most so many keys are moved in a second; without a limit unless set.
    pub keys_per_second: Option<u32>,
    /// At most so many bytes are moved in a second, over the time; without a limit unless set.
    pub bytes_per_second: Option<u64>,
    pub(super) progress: Option<Progress>,
}

impl Default for RebalanceOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl RebalanceOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self { at_once: 4, keys_per_second: None, bytes_per_second: None, progress: None }
    }

    /// So many values are moved at once, at least one.
    #[must_use]
    pub fn at_once(mut self, values: usize) -> Self {
        self.at_once = values.max(1);
        self
    }

    /// At most so many keys are moved in a second, at least one.
    #[must_use]
    pub fn keys_per_second(mut self, keys: u32) -> Self {
        self.keys_per_second = Some(keys.max(1));
        self
    }

    /// At most so many bytes are moved in a second, at least one.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Calls this after each key that was moved, with what was done until then.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(&Rebalanced) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }
}

impl fmt::Debug for RebalanceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RebalanceOptions")
            .field("at_once", &self.at_once)
            .field("keys_per_second", &self.keys_per_second)
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

/// What a rebalance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebalanced {
    /// Keys that were looked at, in all stores and passes.
    pub keys: u64,
    /// Values that were written to their new home.
    pub moved: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Values that others had put into a store where they were not found by their key, and would have been now.
    pub removed: u64,
    /// Values that could not be moved in a pass; another pass tried again.
    pub failed: u64,
}

/// The pace of a move, and what it did.
pub(super) struct Pace<'a> {
    pub(super) options: &'a RebalanceOptions,
    next: Mutex<Instant>,
    done: Mutex<Rebalanced>,
}

impl<'a> Pace<'a> {
    pub(super) fn new(options: &'a RebalanceOptions) -> Self {
        Self { options, next: Mutex::new(Instant::now()), done: Mutex::default() }
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Rebalanced)) -> Rebalanced {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut done);
        done.clone()
    }

    /// Waits for the turn of a key, whose value has so many bytes.
    pub(super) async fn turn(&self, bytes: u64) {
        let of_keys = self.options.keys_per_second.map_or(0.0, |keys| 1.0 / f64::from(keys.max(1)));
        // More digits than a rate needs.
        #[expect(clippy::cast_precision_loss, reason = "the time is about right")]
        let of_bytes = self.options.bytes_per_second.map_or(0.0, |rate| bytes as f64 / rate.max(1) as f64);
        let takes = Duration::from_secs_f64(of_keys.max(of_bytes).min(86_400.0));
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*next).max(Instant::now());
            *next = begin + takes;
            begin
        };
        if !takes.is_zero() {
            sleep_until(begin).await;
        }
    }
}
