//! Transactions on the handle.

use std::{future::poll_fn, sync::Arc, task::Poll};

use super::{Closed, Storage};
use crate::{Error, ErrorKind, Result, StorageBackend, Transaction};

/// A transaction: the same everyday methods, and an end. Dropping the last clone rolls back.
///
/// A `Conflict` of any call but `commit` is definite, for nothing is there before the commit: roll back, and run the transaction again.
pub type Tx = Storage<dyn Transaction>;

/// How often a transaction that meets a conflict is run again.
const ATTEMPTS: usize = 1000;

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// Begins a transaction. See [`StorageBackend::begin`].
    ///
    /// # Errors
    /// As said at [`Storage`].
    pub async fn begin(&self) -> Result<Tx> {
        let call = self.call("begin");
        Ok(Storage {
            backend: call.run(None, Ok(()), || self.backend.begin()).await?,
            closed: Arc::new(Closed { above: Some(self.closed.clone()), ..Closed::default() }),
        })
    }

    /// Runs `work` in a transaction and commits it; on `Conflict` rolls back and runs it again, up to 1,000 times.
    ///
    /// ```
    /// # async fn example(storage: storage_core::Storage) -> storage_core::Result<()> {
    /// storage
    ///     .transaction(|tx| async move {
    ///         let old = tx.get("counter").await?.map_or(0, |value| value.len());
    ///         tx.put("counter", vec![b'i'; old + 1]).await
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As said at [`Storage`]; what `work` fails with, after rolling back; `Conflict` when every run met one.
    pub async fn transaction<T, F>(&self, work: impl Fn(Tx) -> F + Send + Sync) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        for _ in 0..ATTEMPTS {
            let tx = self.begin().await?;
            let failure = match work(tx.clone()).await {
                Ok(value) => match tx.commit().await {
                    Ok(()) => return Ok(value),
                    Err(e) => e,
                },
                Err(e) => {
                    // What went wrong says more than a failing rollback; dropping the transaction ends it in any case.
                    let _ = tx.rollback().await;
                    e
                }
            };
            if failure.kind() != ErrorKind::Conflict || failure.is_ambiguous() {
                return Err(failure);
            }
            yield_once().await;
        }
        let e = Error::new(ErrorKind::Conflict, format!("the transaction met a conflict {ATTEMPTS} times in a row"));
        Err(self.call("transaction").explain(e))
    }
}

impl Tx {
    /// Makes all writes visible at once. See [`Transaction::commit`].
    ///
    /// # Errors
    /// `Conflict` when another writer was faster; those of the store.
    pub async fn commit(self) -> Result<()> {
        let call = self.call("commit");
        call.run(None, Ok(()), || self.backend.commit()).await
    }

    /// Forgets all writes. See [`Transaction::rollback`].
    ///
    /// # Errors
    /// Those of the store; the writes are forgotten all the same.
    pub async fn rollback(self) -> Result<()> {
        let call = self.call("rollback");
        call.run(None, Ok(()), || self.backend.rollback()).await
    }
}

/// Lets other tasks of the same thread run, so that the faster writer can finish.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
