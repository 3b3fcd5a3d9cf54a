//! What marks a write: when it was, and a token that no other write has.

use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use storage_config::Clock;

/// A clock that never goes backwards, shared by a store and its snapshots.
pub(super) struct Ticker {
    clock: Arc<dyn Clock>,
    last: Mutex<SystemTime>,
}

impl Ticker {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: Mutex::new(SystemTime::UNIX_EPOCH) }
    }

    pub(super) fn now(&self) -> SystemTime {
        let now = self.clock.now();
        // A time is whole at every moment, so one that a panic left behind is as good as any.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = now.max(*last);
        *last
    }
}

/// A token that no other write in this process gets.
///
/// The sequence begins at the time of the first write in nanoseconds, so that a client does not find the etag it
/// remembers on another value after a restart either.
pub(super) fn unique_token() -> Arc<str> {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        AtomicU64::new(since.map_or(0, |since| since.as_nanos() as u64))
    });
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Every put asks for one, so it is written in place rather than by the formatting of strings.
    let digits: [u8; 16] = std::array::from_fn(|i| b"0123456789abcdef"[(number >> (60 - 4 * i) & 15) as usize]);
    str::from_utf8(&digits).unwrap_or_default().into()
}
