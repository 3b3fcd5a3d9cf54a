//! Writes whose work goes on when their caller drops the future: on a thread that blocks, in a task, on a server.
//!
//! The contract says that a dropped write takes effect before the answer to any later call of the same instance that touches its key, or
//! never. A backend whose futures do all the work themselves keeps that without this module. One that hands work over keeps a
//! [`Writes`] for each connected instance, and:
//!
//! 1. Every call, reads and listings too, waits for [`settled`](Writes::settled) before it does anything. That costs one atomic load when
//!    nothing is pending.
//! 2. A write calls [`begin`](Writes::begin), keeps the [`Caller`] in its future, and gives the [`Commit`] to the work.
//! 3. The work calls [`Commit::begin`] just before the write takes effect, where no other write of the key can come between: under the key's
//!    lock, or just before the one request that does it. On an error it leaves everything as it is.
//!
//! Caller and work decide by one compare-exchange. Either the future was dropped first, and nothing happens; or the work was first,
//! and a future that is dropped from then on makes later calls wait until the work has ended.
//!
//! ```
//! use std::{collections::BTreeMap, sync::{Arc, Mutex}};
//! use futures_util::FutureExt;
//! use storage_core::{Key, Result, pending::Writes};
//!
//! type Values = Arc<Mutex<BTreeMap<Key, String>>>;
//!
//! /// A put on a thread that may block.
//! async fn put(values: &Values, writes: &Writes, key: &Key, value: &str) -> Result<()> {
//!     writes.settled(key).await?;
//!     let (_caller, commit) = writes.begin(key);
//!     let (values, key, value) = (values.clone(), key.clone(), value.to_owned());
//!     let work = tokio::task::spawn_blocking(move || {
//!         let mut values = values.lock().unwrap();
//!         // No other write can come between this decision and what follows.
//!         commit.begin()?;
//!         values.insert(key, value);
//!         Ok(())
//!     });
//!     // Here the future can be dropped, and `_caller` with it. The work goes on.
//!     work.await.unwrap()
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let (values, writes, key) = (Values::default(), Writes::new(), Key::parse("k")?);
//! put(&values, &writes, &key, "given up").now_or_never();
//! put(&values, &writes, &key, "new").await?;
//! assert_eq!(values.lock().unwrap()[&key], "new"); // now and from now on
//! # Ok::<_, storage_core::Error>(())
//! # }).unwrap();
//! ```

use std::{
    fmt, mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::{Error, ErrorKind, Key, Result};

/// The work has not come to its commit.
const PENDING: u8 = 0;
/// The caller was first: nothing happens.
const CANCELLED: u8 = 1;
/// The work was first, and the caller waits for it.
const COMMITTING: u8 = 2;
/// The work was first, and the caller has gone.
const ORPHANED: u8 = 3;
/// The work has ended.
const ENDED: u8 = 4;
/// The work has ended without knowing what it did.
const LOST: u8 = 5;

/// The writes of one connected instance that were given up while they were taking effect. Clones share them.
#[derive(Clone, Default)]
pub struct Writes(Arc<Orphans>);

#[derive(Default)]
struct Orphans {
    /// How many there are, so that a call which meets none takes no lock.
    count: AtomicUsize,
    writes: Mutex<Vec<Arc<Write>>>,
}

struct Write {
    keys: Keys,
    state: AtomicU8,
    waiting: Mutex<Vec<Waker>>,
}

impl Writes {
    /// Those of an instance that was just connected: none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parts a write into the side that waits and the side that works. `keys` are those that it changes.
    pub fn begin(&self, keys: impl Into<Keys>) -> (Caller, Commit) {
        let write = Write { keys: keys.into(), state: AtomicU8::new(PENDING), waiting: Mutex::default() };
        let side = Side { write: Arc::new(write), orphans: self.0.clone() };
        (Caller(side.clone()), Commit { side, lost: false })
    }

    /// Waits for the writes to this key that were given up before this call, and are taking effect.
    pub fn settled(&self, key: &Key) -> Settled {
        self.wait(|keys| keys.include(key))
    }

    /// The same for several keys.
    pub fn settled_keys<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Settled {
        if self.is_settled() {
            return Settled::default();
        }
        let called: Vec<&Key> = keys.into_iter().collect();
        self.wait(|keys| called.iter().any(|key| keys.include(key)))
    }

    /// The same for all keys with a prefix, as `list`, `query` and `clear` have one.
    pub fn settled_prefix(&self, prefix: &str) -> Settled {
        self.wait(|keys| keys.meet(prefix))
    }

    fn is_settled(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    fn wait(&self, touched: impl Fn(&Keys) -> bool) -> Settled {
        if self.is_settled() {
            return Settled::default();
        }
        let writes = lock(&self.0.writes);
        Settled { writes: writes.iter().filter(|write| touched(&write.keys)).cloned().collect() }
    }
}

/// The keys that a write changes: from a [`Key`], several, or [all with a prefix](Keys::prefix).
#[derive(Clone, Debug)]
pub struct Keys(Which);

#[derive(Clone, Debug)]
enum Which {
    One(Key),
    Several(Vec<Key>),
    Prefix(String),
}

impl Keys {
    /// All that begin so; with an empty prefix all there are.
    #[must_use]
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self(Which::Prefix(prefix.into()))
    }

    fn include(&self, key: &Key) -> bool {
        match &self.0 {
            Which::One(own) => own == key,
            Which::Several(own) => own.contains(key),
            Which::Prefix(prefix) => key.as_str().starts_with(prefix),
        }
    }

    fn meet(&self, prefix: &str) -> bool {
        match &self.0 {
            Which::One(own) => own.as_str().starts_with(prefix),
            Which::Several(own) => own.iter().any(|own| own.as_str().starts_with(prefix)),
            Which::Prefix(own) => own.starts_with(prefix) || prefix.starts_with(own.as_str()),
        }
    }
}

impl From<&Key> for Keys {
    fn from(key: &Key) -> Self {
        Self(Which::One(key.clone()))
    }
}

impl From<Vec<Key>> for Keys {
    fn from(keys: Vec<Key>) -> Self {
        Self(Which::Several(keys))
    }
}

#[derive(Clone)]
struct Side {
    write: Arc<Write>,
    orphans: Arc<Orphans>,
}

impl Side {
    fn exchange(&self, from: u8, to: u8) -> Result<(), u8> {
        self.write.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    fn is(&self, state: u8) -> bool {
        self.write.state.load(Ordering::Acquire) == state
    }

    fn register(&self) {
        let mut writes = lock(&self.orphans.writes);
        writes.push(self.write.clone());
        self.orphans.count.store(writes.len(), Ordering::Release);
    }

    fn remove(&self) {
        let mut writes = lock(&self.orphans.writes);
        writes.retain(|write| !Arc::ptr_eq(write, &self.write));
        self.orphans.count.store(writes.len(), Ordering::Release);
    }
}

/// The side of a write that waits. It belongs into the write's future: dropped early, it gives the write up.
#[must_use = "dropping it gives the write up"]
pub struct Caller(Side);

impl Caller {
    /// Gives the write up now, and says whether that means that nothing happens: the work can be aborted then.
    pub fn cancel(&self) -> bool {
        self.0.exchange(PENDING, CANCELLED).is_ok()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.cancel() || !self.0.is(COMMITTING) {
            return;
        }
        // Registered first, so that no later call can miss it.
        self.0.register();
        if self.0.exchange(COMMITTING, ORPHANED).is_err() {
            // The work has ended in between.
            self.0.remove();
        }
    }
}

/// The side of a write that works. Dropping it says that the work has ended.
#[must_use = "dropping it says that the work has ended"]
pub struct Commit {
    side: Side,
    lost: bool,
}

impl Commit {
    /// The point of no return: from here on, the write takes effect. Work of several steps, such as a batch, calls it before each.
    ///
    /// # Errors
    /// When the caller has given the write up: what has not been done must not be done any more. Nobody will see the error.
    pub fn begin(&self) -> Result<()> {
        match self.side.exchange(PENDING, COMMITTING) {
            Ok(()) | Err(COMMITTING) => Ok(()),
            Err(_) => Err(given_up()),
        }
    }

    /// Work that takes long calls it now and then before its commit, and stops.
    ///
    /// # Errors
    /// When the caller has given the write up. Nobody will see the error.
    pub fn check(&self) -> Result<()> {
        if self.side.is(CANCELLED) || self.side.is(ORPHANED) { Err(given_up()) } else { Ok(()) }
    }

    /// Ends the work without knowing whether the write took effect, or still will. The calls that wait for it fail.
    pub fn lose(mut self) {
        self.lost = true;
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        let write = &self.side.write;
        let end = if self.lost { LOST } else { ENDED };
        if write.state.swap(end, Ordering::AcqRel) == ORPHANED {
            self.side.remove();
        }
        // Whoever looks at the state under this lock sees that it has ended, or is woken here.
        let waiting = mem::take(&mut *lock(&write.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Waits for writes that were given up.
///
/// # Errors
/// `Timeout` when one of them ended without knowing what it did. A write that waited marks it as
/// [`ambiguous`](Error::ambiguous).
#[derive(Default)]
#[must_use = "futures do nothing unless polled"]
pub struct Settled {
    writes: Vec<Arc<Write>>,
}

impl Future for Settled {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some(write) = self.writes.last() {
            let mut waiting = lock(&write.waiting);
            match write.state.load(Ordering::Acquire) {
                ENDED => {}
                LOST => {
                    let what =
                        "an earlier write to the same key was given up and not answered in time; look what is there";
                    return Poll::Ready(Err(Error::new(ErrorKind::Timeout, what)));
                }
                _ => {
                    if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                        waiting.push(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
            drop(waiting);
            self.writes.pop();
        }
        Poll::Ready(Ok(()))
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Other, "the write was given up")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

macro_rules! opaque {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
opaque! { Writes Caller Commit Settled }
