//! Jobs run in tasks of their own: a caller that does not poll its future for a while holds nothing up, and one that drops it
//! ends the job, unless the job has begun to write. Which of the two was first decides [`storage_core::pending`].

use std::fmt;

use storage_core::{
    Error, ErrorKind, Result,
    pending::{Caller, Commit, Keys, Writes},
};
use tokio::{runtime::Handle, task::AbortHandle, time};

use crate::session::Touches;

pub(crate) struct Tasks {
    pub(crate) runtime: Handle,
    writes: Writes,
    /// How long a call waits for writes that were given up.
    patience: time::Duration,
}

/// The caller's side, with the task that does the work.
struct Call {
    caller: Caller,
    task: AbortHandle,
}

impl Tasks {
    pub(crate) fn new(runtime: Handle, patience: time::Duration) -> Self {
        Self { runtime, writes: Writes::new(), patience }
    }

    /// Runs a job to its end, or until the caller drops the future. One of a transaction does not wait for writes that were given
    /// up, since they may be waiting for the transaction.
    pub(crate) async fn run<T, F>(
        &self,
        touches: Option<Touches<'_>>,
        keys: Keys,
        job: impl FnOnce(Commit) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let settled = match touches {
            None | Some(Touches::Nothing) => None,
            Some(Touches::Keys(keys)) => Some(self.writes.settled_keys(keys)),
            Some(Touches::Prefix(prefix)) => Some(self.writes.settled_prefix(prefix)),
        };
        if let Some(settled) = settled {
            let waited = time::timeout(self.patience, settled).await;
            waited.unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    "an earlier write to the same key was given up and has not ended yet",
                ))
            })?;
        }
        let (caller, commit) = self.writes.begin(keys);
        let task = self.runtime.spawn(job(commit));
        let _call = Call { caller, task: task.abort_handle() };
        task.await.unwrap_or_else(|e| {
            let message = "the runtime in which the database was connected has ended; connect again";
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
