//! Jobs run in tasks of their own. A caller that just does not poll its future for a while thus holds neither a connection nor
//! the write lock; one that drops it ends the job, unless the job has begun to commit.
//!
//! Dropped future and job decide by [`storage_core::pending`]. A commit is short, so every call outside of a transaction waits for all
//! that nobody waits for any more, whatever their keys.

use std::fmt;

use storage_core::{
    Error, ErrorKind, Result,
    pending::{Caller, Commit, Keys, Writes},
};
use tokio::{runtime::Handle, task::AbortHandle};

pub(crate) struct Tasks {
    pub(crate) runtime: Handle,
    writes: Writes,
}

/// The caller's side, with the task that does the work.
struct Call {
    caller: Caller,
    task: AbortHandle,
}

impl Tasks {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, writes: Writes::new() }
    }

    /// Runs a job to its end, or until the caller drops the future. One of a transaction does not wait for writes that were given
    /// up, since they may be waiting for the transaction.
    pub(crate) async fn run<T, F>(&self, transaction: bool, job: impl FnOnce(Commit) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        if !transaction {
            self.writes.settled_prefix("").await?;
        }
        let (caller, commit) = self.writes.begin(Keys::prefix(""));
        let task = self.runtime.spawn(job(commit));
        let _call = Call { caller, task: task.abort_handle() };
        task.await.unwrap_or_else(|e| {
            Err(Error::new(
                ErrorKind::Closed,
                "the runtime in which the database was connected has ended; connect again",
            )
            .with_source(e))
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
