//! Writes of the index run in tasks of their own: a caller that does not poll its future for a while holds nothing up, and one that
//! drops it ends the write, unless the commit has begun. Which of the two was first decides [`storage_core::pending`].

use std::{fmt, time::Duration};

use storage_core::{
    Error, ErrorKind, Result,
    pending::{Caller, Commit, Keys, Settled, Writes},
};
use tokio::{runtime::Handle, task::AbortHandle, time::timeout};

pub(crate) struct Tasks {
    pub(crate) runtime: Handle,
    pub(crate) writes: Writes,
    /// How long a call waits for writes that were given up.
    patience: Duration,
}

/// The caller's side, with the task that does the work.
struct Call {
    caller: Caller,
    task: AbortHandle,
}

impl Tasks {
    pub(crate) fn new(runtime: Handle, patience: Duration) -> Self {
        Self { runtime, writes: Writes::new(), patience }
    }

    /// Waits for writes that were given up.
    pub(crate) async fn wait(&self, settled: Settled) -> Result<()> {
        timeout(self.patience, settled).await.unwrap_or_else(|_| {
            let what = "an earlier write to the same key was given up and has not ended yet; try again";
            Err(Error::new(ErrorKind::Timeout, what))
        })
    }

    /// Runs a write to its end, or until the caller drops the future.
    pub(crate) async fn run<T, F>(&self, keys: Keys, job: impl FnOnce(Commit) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (caller, commit) = self.writes.begin(keys);
        let task = self.runtime.spawn(job(commit));
        let _call = Call { caller, task: task.abort_handle() };
        task.await.unwrap_or_else(|e| {
            let message = "the runtime in which the store was connected has ended; connect again";
            Err(Error::new(ErrorKind::Closed, message).with_source(e))
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.caller.cancel() {
            self.task.abort();
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}
