//! How the stores have fared.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::Redundant;

/// How one of the stores has fared since it was connected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Its name.
    pub name: Arc<str>,
    /// It has lost its marker: it was emptied, or another was put in its place. It is not read and counts for no quorum until
    /// [`Redundant::repair`] has rebuilt it.
    pub fenced: bool,
    /// How long its answers take, smoothed; zero before the first.
    pub latency: Duration,
    /// Calls that failed because of the store.
    pub failures: u64,
    /// How many of them since it last answered.
    pub failing: u64,
    /// Values that were not those that had been written, by their digest.
    pub wrong_values: u64,
    /// Writes that others have and that it missed, as far as this instance noticed, and until a repair has brought them to it.
    pub missed: u64,
    /// It failed so often in a row that nothing is written to it for up to ten seconds, and it is read only if the others do not suffice.
    pub breaker_open: bool,
}

impl Redundant {
    /// How each of the stores has fared, in the order of their names.
    #[must_use]
    pub fn status(&self) -> Vec<StoreStatus> {
        let status = self.0.children.iter().map(|child| StoreStatus {
            name: child.store.name().clone(),
            fenced: child.is_fenced(),
            latency: Duration::from_micros(child.latency.load(Ordering::Relaxed)),
            failures: child.failures.load(Ordering::Relaxed),
            failing: child.failing.load(Ordering::Relaxed),
            wrong_values: child.wrong_values.load(Ordering::Relaxed),
            missed: child.missed.load(Ordering::Relaxed),
            breaker_open: child.is_open(),
        });
        status.collect()
    }
}
