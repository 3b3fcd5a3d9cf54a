//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;

/// What a cache did, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads answered from memory, or by a load that another reader had begun.
    pub hits: u64,
    /// Reads for which the value was read below.
    pub misses: u64,
    /// Values that had to make room for others, or for which there was none.
    pub evictions: u64,
    /// Values that are kept at the moment.
    pub entries: u64,
    /// Bytes that they take, of `max_bytes`.
    pub bytes: u64,
}

/// A number here and in the facade `metrics`.
pub(crate) struct Count {
    here: AtomicU64,
    facade: Counter,
}

impl Count {
    fn new(facade: Counter) -> Self {
        Self { here: AtomicU64::new(0), facade }
    }

    pub(crate) fn one(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.facade.increment(1);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

pub(crate) struct Counts {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) evictions: Count,
}

impl Counts {
    pub(crate) fn new(backend: &str) -> Self {
        let label = || backend.to_owned();
        Self {
            hits: Count::new(metrics::counter!("storage_cache_hits_total", "backend" => label())),
            misses: Count::new(metrics::counter!("storage_cache_misses_total", "backend" => label())),
            evictions: Count::new(metrics::counter!("storage_cache_evictions_total", "backend" => label())),
        }
    }

    /// A read that was answered without reading the value below, or not.
    pub(crate) fn read(&self, hit: bool) {
        if hit { self.hits.one() } else { self.misses.one() }
    }
}
