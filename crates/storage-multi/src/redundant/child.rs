//! One of the stores: whether it counts, what it holds under a key, and how it has fared.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use storage_core::{
    Body, Condition, Entry, Error, ErrorKind, Etag, Key, Metadata, PutOptions, Result, StatOptions, StorageBackend,
};
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::record::{Record, WriteId, time};
use crate::{Store, error, marker::Marker, names};

/// How long a store that could not be opened is left alone.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// After so many failures in a row it is not written to.
const FAILURES: u64 = 5;
/// For how long at most.
const LONGEST: Duration = Duration::from_secs(10);
/// How often a write that meets others is tried again.
const TRIES: usize = 8;

/// A store, which may not be open yet.
pub(super) struct Child {
    pub(super) store: Store,
    /// The set that it must be of.
    pub(super) set: String,
    /// Not read and not counted, until a repair has rebuilt it.
    pub(super) fenced: AtomicBool,
    checked: tokio::sync::Mutex<bool>,
    failed_open: Mutex<Option<(Instant, Error)>>,
    locks: Locks,
    /// Microseconds that its answers take, smoothed; 0 before the first.
    pub(super) latency: AtomicU64,
    pub(super) failures: AtomicU64,
    /// Failures since it last answered.
    pub(super) failing: AtomicU64,
    pub(super) wrong_values: AtomicU64,
    /// Writes that others have and it has not, as far as this instance knows.
    pub(super) missed: AtomicU64,
    breaker: Mutex<Breaker>,
}

/// Opens after some failures in a row: then nothing is written to the store for a while, and it is read only if the others do not suffice.
#[derive(Debug, Default)]
struct Breaker {
    until: Option<Instant>,
    wait: Duration,
}

/// What a store holds under a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The store's own etag.
    pub(super) etag: Option<Etag>,
    /// The user's entry, also of a deletion; `None` where nothing is stored.
    pub(super) entry: Option<Entry>,
    /// `None` where nothing is stored, and for what others stored.
    pub(super) record: Option<Record>,
    /// There is something that cannot be read.
    pub(super) damaged: Option<Error>,
}

impl Seen {
    /// The write it is of; `None` where nothing is stored.
    pub(super) fn id(&self) -> Option<WriteId> {
        self.entry.as_ref().map(|_| self.record.as_ref().map_or(WriteId::FOREIGN, |record| record.id))
    }

    /// The value's entry, unless there is none or it was deleted.
    pub(super) fn value(&self) -> Option<&Entry> {
        self.entry.as_ref().filter(|_| self.record.as_ref().is_none_or(|record| !record.deleted))
    }

    /// From the store's entry, whose key is the user's.
    pub(super) fn of(mut stored: Entry) -> Result<Self> {
        let etag = stored.etag.take();
        if let Some(damaged) = stored.damaged.take() {
            return Ok(Self { damaged: Some(damaged), ..Self::default() });
        }
        let (metadata, record) = match Record::detach(&stored.metadata.take().unwrap_or_default()) {
            Ok(read) => read,
            Err(e) => return Ok(Self { etag, damaged: Some(e), ..Self::default() }),
        };
        let mut entry = Entry::new(stored.key, stored.size);
        entry.metadata = Some(metadata);
        if let Some(record) = &record {
            entry.etag = Some(record.id.etag());
            entry.modified = Some(time(record.id.micros));
            entry.created = Some(time(record.created));
        }
        Ok(Self { etag, entry: Some(entry), record, damaged: None })
    }
}

impl Child {
    pub(super) fn new(store: Store, set: String, fenced: bool, checked: bool) -> Self {
        Self {
            store,
            set,
            fenced: AtomicBool::new(fenced),
            checked: tokio::sync::Mutex::new(checked),
            failed_open: Mutex::default(),
            locks: Locks::default(),
            latency: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            wrong_values: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            breaker: Mutex::default(),
        }
    }

    /// Whether it failed so often in a row that it is left alone for now.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.breaker).until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes that no answer came for so long.
    pub(super) fn is_late(&self, begun: Instant) {
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.latency.fetch_max(took, Ordering::Relaxed);
    }

    pub(super) fn name(&self) -> &str {
        self.store.name()
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    pub(super) fn error(&self, e: Error) -> Error {
        error::above(self.name(), e)
    }

    /// The store, opened if it is not, and with the marker that it must have.
    pub(super) async fn backend(&self) -> Result<&Arc<dyn StorageBackend>> {
        if let Some((when, e)) = &*lock(&self.failed_open)
            && when.elapsed() < OPEN_AGAIN
        {
            return Err(e.clone());
        }
        let opened = self.opened().await;
        if let Err(e) = &opened {
            *lock(&self.failed_open) = Some((Instant::now(), e.clone()));
        }
        opened
    }

    /// The same, however short ago it could not be opened.
    pub(super) async fn opened(&self) -> Result<&Arc<dyn StorageBackend>> {
        let backend = self.store.backend().await?;
        let mut checked = self.checked.lock().await;
        if !*checked {
            match Marker::read(backend).await.map_err(|e| self.error(e))? {
                None => self.fenced.store(true, Ordering::Release),
                Some(marker) if marker.set == self.set && marker.store == self.name() => {}
                Some(_) => {
                    let what = format!("the store `{}` belongs to another set of stores", self.name());
                    return Err(error::wrong(what));
                }
            }
            *checked = true;
        }
        *lock(&self.failed_open) = None;
        Ok(backend)
    }

    /// Notes a failure.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.failing.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            let mut breaker = lock(&self.breaker);
            if breaker.until.is_none_or(|until| Instant::now() >= until) {
                breaker.wait = (breaker.wait * 2).clamp(OPEN_AGAIN, LONGEST);
                breaker.until = Some(Instant::now() + breaker.wait);
            }
        }
    }

    /// Notes how a call went.
    pub(super) fn note<T>(&self, begun: Instant, result: &Result<T>) {
        match result {
            Err(e) if e.is_retryable() || matches!(e.kind(), ErrorKind::Other | ErrorKind::Closed) => {
                self.failed();
            }
            _ => {
                self.failing.store(0, Ordering::Relaxed);
                *lock(&self.breaker) = Breaker::default();
                let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
                let old = self.latency.load(Ordering::Relaxed);
                let new = if old == 0 { took } else { (old * 7 + took) / 8 };
                self.latency.store(new.max(1), Ordering::Relaxed);
            }
        }
    }

    /// What it holds under the user's key.
    pub(super) async fn look(&self, key: &Key) -> Result<Seen> {
        let begun = Instant::now();
        let below = names::key_below(key)?;
        let stored = match self.backend().await {
            Ok(backend) => backend.stat(&below, StatOptions::new()).await.map_err(|e| self.error(e)),
            Err(e) => Err(e),
        };
        self.note(begun, &stored);
        match stored {
            Ok(None) => Ok(Seen::default()),
            Ok(Some(mut stored)) => {
                stored.key = key.clone();
                Seen::of(stored)
            }
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Seen { damaged: Some(e), ..Seen::default() }),
            Err(e) => Err(e),
        }
    }

    /// Stores this write, unless the store has it already or a newer one. `body` is asked for the value at each try, and answers `None`
    /// where it cannot give it again.
    ///
    /// # Errors
    /// Those of the store and of the body; `Conflict` when others write all the while.
    pub(super) async fn write<F>(
        &self,
        key: &Key,
        id: WriteId,
        metadata: &Arc<Metadata>,
        hint: Option<Seen>,
        mut body: impl FnMut() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<Option<Body>>>,
    {
        let below = names::key_below(key)?;
        // A write of this instance to this store that is still under way ends first.
        let (_turn, waited) = self.locks.lock(key).await;
        let mut hint = hint.filter(|_| !waited);
        for _ in 0..TRIES {
            let seen = match hint.take() {
                Some(seen) => seen,
                None => self.look(key).await?,
            };
            if seen.id() >= Some(id) {
                return Ok(());
            }
            let mut options = PutOptions::new().metadata(metadata.clone());
            options.condition = match (&seen.damaged, seen.etag) {
                (Some(_), _) => None,
                (None, Some(etag)) => Some(Condition::IfMatch(etag)),
                (None, None) => Some(Condition::IfAbsent),
            };
            let Some(body) = body().await? else { break };
            let begun = Instant::now();
            let put = self.backend().await?.put(&below, body, options).await.map_err(|e| self.error(e));
            self.note(begun, &put);
            match put {
                Ok(_) => return Ok(()),
                Err(e) if e.is_ambiguous() => return Err(e),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::PreconditionFailed | ErrorKind::AlreadyExists | ErrorKind::Conflict
                    ) => {}
                Err(e) => return Err(e),
            }
        }
        // One that gives its value once may have been overtaken by a newer one.
        if self.look(key).await?.id() >= Some(id) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, format!("the store `{}` is written by others all the while", self.name())))
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A lock for each key, which is there while somebody has it or waits for it.
#[derive(Default)]
pub(super) struct Locks(Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// The lock of a key, and whether it had to be waited for.
    pub(super) async fn lock(&self, key: &Key) -> (OwnedMutexGuard<()>, bool) {
        let own = {
            let mut all = lock(&self.0);
            if all.len() > 1024 {
                all.retain(|_, held| held.strong_count() > 0);
            }
            match all.get(key).and_then(Weak::upgrade) {
                Some(there) => there,
                None => {
                    let new = Arc::new(tokio::sync::Mutex::new(()));
                    all.insert(key.clone(), Arc::downgrade(&new));
                    new
                }
            }
        };
        match own.clone().try_lock_owned() {
            Ok(held) => (held, false),
            Err(_) => (own.lock_owned().await, true),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
