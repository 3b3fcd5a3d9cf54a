//! What all handles and transactions of one cache share: the values, and who is loading or writing which key.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use moka::{notification::RemovalCause, sync::Cache};
use storage_core::Key;

use crate::{CacheLayer, CacheStats, counts::Counts, held::Held, load::Load};

/// The rules that make a hit as good as a read of the backend:
/// - while a key is being written, it is neither answered from memory, nor is a load of it joined or kept;
/// - a load that began before a write ended is not kept, nor joined by a read that began after;
/// - a key whose last write may still happen is not kept.
pub(crate) struct Shared {
    pub(crate) settings: CacheLayer,
    pub(crate) counts: Arc<Counts>,
    pub(crate) values: Cache<Key, Arc<Held>>,
    /// Keys whose last write may still happen.
    pub(crate) uncertain: Cache<Key, ()>,
    under_way: Mutex<UnderWay>,
    /// How many writes are under way, so that a hit need not look at the lock while there is none.
    pub(crate) writes: AtomicUsize,
    pub(crate) closed: AtomicBool,
}

#[derive(Default)]
pub(crate) struct UnderWay {
    pub(crate) keys: HashMap<Key, KeyState>,
    /// Writes of everything with a prefix. While there is one, nothing is kept.
    pub(crate) prefixes: usize,
    /// Prefixes of which some keys may still be deleted, and until when.
    pub(crate) uncertain: Vec<(String, Instant)>,
    pub(crate) loads: u64,
}

/// A key that is being written or loaded.
#[derive(Default)]
pub(crate) struct KeyState {
    pub(crate) writers: usize,
    /// Whether more than one write has been under way at once: then nobody knows which was the last.
    pub(crate) contended: bool,
    pub(crate) load: Option<Load>,
}

impl Shared {
    pub(crate) fn new(settings: CacheLayer, backend: &str) -> Self {
        let counts = Arc::new(Counts::new(backend));
        let evictions = counts.clone();
        let values = Cache::builder()
            .max_capacity(settings.max_bytes)
            .weigher(|key: &Key, held: &Arc<Held>| held.weight(key))
            .time_to_live(settings.ttl)
            .eviction_listener(move |_, _, cause: RemovalCause| {
                if cause.was_evicted() {
                    evictions.evictions.add();
                }
            })
            .build();
        let uncertain = Cache::builder().time_to_live(settings.uncertain).build();
        Self {
            settings,
            counts,
            values,
            uncertain,
            under_way: Mutex::default(),
            writes: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, if there is one in memory that may answer.
    pub(crate) fn hit(&self, key: &Key) -> Option<Arc<Held>> {
        // In this order: a write that began after the look at the writes may be answered as if it came later.
        if self.closed.load(Ordering::SeqCst) {
            return None;
        }
        if self.writes.load(Ordering::SeqCst) > 0 && self.lock().is_written(key) {
            return None;
        }
        self.values.get(key)
    }

    /// Whether a value of so many bytes is kept.
    pub(crate) fn keeps(&self, len: usize) -> bool {
        len as u64 <= self.settings.max_value_bytes
    }

    /// Forgets a value that the backend does not confirm, unless it is another already.
    pub(crate) fn forget(&self, key: &Key, held: &Arc<Held>) {
        let _still = self.lock();
        if self.values.get(key).is_some_and(|now| Arc::ptr_eq(&now, held)) {
            self.values.invalidate(key);
        }
    }

    /// Whether nothing may be kept of a key now.
    pub(crate) fn is_barred(&self, under_way: &UnderWay, key: &Key) -> bool {
        self.closed.load(Ordering::SeqCst)
            || under_way.is_written(key)
            || self.uncertain.contains_key(key)
            || under_way.is_uncertain(key)
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.values.run_pending_tasks();
        CacheStats {
            hits: self.counts.hits.get(),
            misses: self.counts.misses.get(),
            evictions: self.counts.evictions.get(),
            values: self.values.entry_count(),
            bytes: self.values.weighted_size(),
        }
    }
}

impl UnderWay {
    fn is_written(&self, key: &Key) -> bool {
        self.prefixes > 0 || self.keys.get(key).is_some_and(|state| state.writers > 0)
    }

    fn is_uncertain(&self, key: &Key) -> bool {
        let now = Instant::now();
        self.uncertain.iter().any(|(prefix, until)| now < *until && key.as_str().starts_with(prefix))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).field("counts", &self.counts).finish_non_exhaustive()
    }
}
