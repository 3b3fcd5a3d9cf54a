//! Jobs run in tasks of their own. A caller that just does not poll its future for a while thus holds neither a connection nor
//! the write lock; one that drops it ends the job, unless the job is past the point of no return.
//!
//! A job past that point that nobody waits for any more is waited for by whatever comes next, so that a write whose future
//! was dropped has either happened or not, and does not happen later.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use storage_core::{Error, ErrorKind, Result};
use tokio::{runtime::Handle, sync::watch};

/// The states of a job. It is dropped while running, or sealed; it is orphaned if the caller goes after that.
const RUNNING: u8 = 0;
const DROPPED: u8 = 1;
const SEALED: u8 = 2;
const ORPHANED: u8 = 3;
const DONE: u8 = 4;

pub(crate) struct Tasks {
    pub(crate) runtime: Handle,
    /// How many jobs past the point of no return have nobody who waits for them.
    orphans: watch::Sender<usize>,
}

/// The job's side of what caller and job must agree on.
pub(crate) struct Fate {
    state: Arc<AtomicU8>,
    orphans: watch::Sender<usize>,
}

/// The caller's side; dropped early when the caller drops its future.
struct Caller {
    state: Arc<AtomicU8>,
    orphans: watch::Sender<usize>,
    abort: tokio::task::AbortHandle,
}

impl Tasks {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, orphans: watch::Sender::new(0) }
    }

    /// Waits for writes that nobody waits for any more.
    pub(crate) async fn settled(&self) {
        if *self.orphans.borrow() > 0 {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = self.orphans.subscribe().wait_for(|n| *n == 0).await;
        }
    }

    /// Runs a job to its end, or until the caller loses interest. One of a transaction does not wait for writes that nobody
    /// waits for, since they may be waiting for the transaction.
    pub(crate) async fn run<T, F>(&self, transaction: bool, job: impl FnOnce(Fate) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        if !transaction {
            self.settled().await;
        }
        let state = Arc::new(AtomicU8::new(RUNNING));
        let task = self.runtime.spawn(job(Fate { state: state.clone(), orphans: self.orphans.clone() }));
        let _caller = Caller { state, orphans: self.orphans.clone(), abort: task.abort_handle() };
        task.await.unwrap_or_else(|e| {
            Err(Error::new(
                ErrorKind::Closed,
                "the runtime in which the database was connected has ended; connect again",
            )
            .with_source(e))
        })
    }
}

impl Fate {
    /// From here on the job comes to its end, whatever the caller does.
    ///
    /// # Errors
    /// When the caller has lost interest before; nobody will see the error.
    pub(crate) fn seal(&self) -> Result<()> {
        match exchange(&self.state, RUNNING, SEALED) {
            Ok(()) | Err(SEALED | ORPHANED) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Other, "the call was dropped")),
        }
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        if self.state.swap(DONE, Ordering::AcqRel) == ORPHANED {
            self.orphans.send_modify(|n| *n -= 1);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if exchange(&self.state, RUNNING, DROPPED).is_ok() {
            self.abort.abort();
        } else if self.state.load(Ordering::Acquire) == SEALED {
            // Counted first, so that the job cannot take itself off the count before it is on it.
            self.orphans.send_modify(|n| *n += 1);
            if exchange(&self.state, SEALED, ORPHANED).is_err() {
                self.orphans.send_modify(|n| *n -= 1);
            }
        }
    }
}

fn exchange(state: &AtomicU8, from: u8, to: u8) -> Result<(), u8> {
    state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).map(drop)
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}
