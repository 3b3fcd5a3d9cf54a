//! Hits, misses and evictions, for the program and for the facade `metrics`.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use metrics::{Counter, counter, describe_counter};

/// The names of the metrics.
pub mod names {
    /// Counter: reads answered from memory.
    pub const HITS: &str = "storage_cache_hits_total";
    /// Counter: reads that went to the backend.
    pub const MISSES: &str = "storage_cache_misses_total";
    /// Counter: values dropped because their time was over or others needed the room.
    pub const EVICTIONS: &str = "storage_cache_evictions_total";
}

/// How a cache has been doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads that went to the backend.
    pub misses: u64,
    /// Values dropped because their time was over or others needed the room.
    pub evictions: u64,
    /// Values kept at the moment.
    pub values: u64,
    /// Bytes that they take, with keys and metadata.
    pub bytes: u64,
}

pub(crate) struct Count {
    here: AtomicU64,
    metric: Counter,
}

impl Count {
    pub(crate) fn add(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.metric.increment(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.here.fmt(f)
    }
}

#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) evictions: Count,
}

impl Counts {
    /// The metrics go to the recorder that is installed at this moment.
    pub(crate) fn new(backend: &str) -> Self {
        describe_counter!(names::HITS, "Reads that a storage cache answered from memory.");
        describe_counter!(names::MISSES, "Reads that a storage cache passed to the backend.");
        describe_counter!(names::EVICTIONS, "Values that a storage cache dropped for time or room.");
        let count = |name| Count { here: AtomicU64::new(0), metric: counter!(name, "backend" => backend.to_owned()) };
        Self { hits: count(names::HITS), misses: count(names::MISSES), evictions: count(names::EVICTIONS) }
    }
}
