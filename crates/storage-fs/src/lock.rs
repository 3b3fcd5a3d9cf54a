//! Locks that every process on the same root sees: one of 256 files per key, locked while a key changes.

use std::{
    fs::{File, TryLockError},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};
use storage_core::{Error, ErrorKind, Key, Result};

use crate::{
    error,
    name::{LOCKS, stripe},
    tree::Tree,
};

/// How long to wait for another process.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Locks {
    /// Threads of one process queue here, so that at most one of them contends with other processes.
    stripes: Vec<Mutex<()>>,
}

/// Holds the lock of a key. The file is released first.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    _file: File,
    _stripe: MutexGuard<'a, ()>,
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self { stripes: (0..=u8::MAX).map(|_| Mutex::new(())).collect() }
    }

    /// Waits for the locks of two keys, in the order in which everybody does.
    pub(crate) fn lock_both(&self, tree: &Tree, keys: [&Key; 2]) -> Result<(Guard<'_>, Option<Guard<'_>>)> {
        let mut keys = keys.map(|key| (stripe(key.as_str()), key));
        keys.sort_unstable();
        let [(low, first), (high, second)] = keys;
        let first = self.lock(tree, first)?;
        let second = if low == high { None } else { Some(self.lock(tree, second)?) };
        Ok((first, second))
    }

    /// Waits for the lock of a key. While one is held, no other may be taken but by `lock_both`.
    pub(crate) fn lock(&self, tree: &Tree, key: &Key) -> Result<Guard<'_>> {
        let begun = Instant::now();
        let stripe = stripe(key.as_str());
        let mutex = &self.stripes[usize::from(stripe)];
        let held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o666);
        // By its path, so that all meet at the same file even if somebody has moved or replaced the directory.
        let file = tree.open_or_create(&format!("{LOCKS}/{stripe:02x}"), flags, mode);
        let file = File::from(file.map_err(error::os)?);
        let mut pause = Duration::from_micros(50);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        "another process holds the lock of the key: see whether one of them hangs",
                    ));
                }
                Err(TryLockError::Error(e)) => return Err(error::os(e)),
            }
        }
        Ok(Guard { _file: file, _stripe: held })
    }
}
