//! Writes run in tasks of their own: a caller that drops one ends it, unless its request has been sent. Which of the two was first decides
//! [`storage_core::pending`].

use std::{sync::Arc, time::Duration};

use storage_core::{
    Error, ErrorKind, Key, Result,
    pending::{Caller, Commit, Keys, Settled, Writes},
};
use tokio::{task::AbortHandle, time};

/// The writes of one instance, or of one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    writes: Writes,
    /// How long a call waits for writes that were given up.
    patience: Duration,
}

/// The caller's side, with the task that does the work.
struct Call {
    caller: Caller,
    task: AbortHandle,
}

impl Tasks {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { writes: Writes::new(), patience }
    }

    pub(crate) async fn settled(&self, key: &Key) -> Result<()> {
        self.wait(self.writes.settled(key)).await
    }

    pub(crate) async fn settled_keys<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Result<()> {
        self.wait(self.writes.settled_keys(keys)).await
    }

    pub(crate) async fn settled_prefix(&self, prefix: &str) -> Result<()> {
        self.wait(self.writes.settled_prefix(prefix)).await
    }

    async fn wait(&self, settled: Settled) -> Result<()> {
        time::timeout(self.patience, settled).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "an earlier write to the same key was given up and has not ended yet"))
        })
    }

    /// Runs a write to its end, or until the caller drops the future before the request has been sent.
    pub(crate) async fn run<T, F>(&self, keys: impl Into<Keys>, job: impl FnOnce(Arc<Commit>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (caller, commit) = self.writes.begin(keys);
        let commit = Arc::new(commit);
        let work = job(commit.clone());
        let task = tokio::spawn(async move {
            let done = work.await;
            // Whoever waits for a write that was given up learns that nobody knows what became of it.
            if let (Err(e), Some(commit)) = (&done, Arc::into_inner(commit))
                && e.is_ambiguous()
            {
                commit.lose();
            }
            done
        });
        let _call = Call { caller, task: task.abort_handle() };
        task.await.unwrap_or_else(|e| {
            let message = "the runtime in which the call was made has ended; connect again";
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
