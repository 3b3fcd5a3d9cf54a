//! Transactions on the handle.

use std::{
    ops::Deref,
    sync::{Arc, atomic::Ordering},
};

use super::{Closed, Storage, backoff::Backoff};
use crate::{Error, ErrorKind, Result, StorageBackend, Transaction, TransactionOptions};

/// A transaction: a [`Storage`] handle, and an end. Dropping the last clone rolls back.
///
/// A `Conflict` of any call but `commit` is definite, for nothing is there before the commit: roll back, and run the transaction again.
#[derive(Clone, Debug)]
pub struct Tx {
    storage: Storage,
    transaction: Arc<dyn Transaction>,
}

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// Begins a transaction. See [`StorageBackend::begin`].
    ///
    /// # Errors
    /// `Unsupported` where there are no transactions; those of [every call](Storage#errors).
    pub async fn begin(&self) -> Result<Tx> {
        let call = self.call("begin");
        let transaction = call.run(None, Ok(()), || self.backend.begin()).await?;
        let closed = Arc::new(Closed { above: Some(self.closed.clone()), ..Closed::default() });
        Ok(Tx { storage: Storage { backend: transaction.clone(), closed }, transaction })
    }

    /// Runs `work` in a transaction and commits it. A transaction that meets a `Conflict` is rolled back and run again, as often and
    /// as long as the defaults of [`TransactionOptions`] say.
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
    /// As [`transaction_with`](Storage::transaction_with).
    pub async fn transaction<T, E, F>(&self, work: impl FnMut(Tx) -> F + Send) -> Result<T, E>
    where
        T: Send,
        E: From<Error> + Send,
        F: Future<Output = Result<T, E>> + Send,
    {
        self.transaction_with(TransactionOptions::new(), work).await
    }

    /// As [`transaction`](Storage::transaction), tried again as the options say.
    ///
    /// # Errors
    /// What `work` fails with, after rolling back, unless a call of the transaction met a `Conflict`, which is tried again;
    /// those of [`begin`](Storage::begin) and [`commit`](Tx::commit). A commit whose outcome is not known is not tried again.
    pub async fn transaction_with<T, E, F>(
        &self,
        options: TransactionOptions,
        mut work: impl FnMut(Tx) -> F + Send,
    ) -> Result<T, E>
    where
        T: Send,
        E: From<Error> + Send,
        F: Future<Output = Result<T, E>> + Send,
    {
        let mut backoff = Backoff::begin(&options);
        loop {
            let tx = self.begin().await?;
            let (failure, again) = match work(tx.clone()).await {
                Ok(value) => match tx.clone().commit().await {
                    Ok(()) => return Ok(value),
                    Err(e) => {
                        let again = e.kind() == ErrorKind::Conflict && !e.is_ambiguous();
                        (e.into(), again)
                    }
                },
                Err(e) => {
                    // What went wrong says more than a failing rollback; dropping the transaction ends it in any case.
                    let _ = tx.clone().rollback().await;
                    (e, tx.storage.closed.conflict.load(Ordering::Acquire))
                }
            };
            drop(tx);
            if !again || !backoff.again().await {
                return Err(failure);
            }
        }
    }
}

impl Tx {
    /// Makes all writes visible at once. See [`Transaction::commit`].
    ///
    /// # Errors
    /// `Conflict` when another transaction committed first; those of the store.
    pub async fn commit(self) -> Result<()> {
        let call = self.storage.call("commit");
        call.run(None, Ok(()), || self.transaction.commit()).await
    }

    /// Forgets all writes. See [`Transaction::rollback`].
    ///
    /// # Errors
    /// Those of the store; the writes are forgotten all the same.
    pub async fn rollback(self) -> Result<()> {
        let call = self.storage.call("rollback");
        call.run(None, Ok(()), || self.transaction.rollback()).await
    }
}

impl Deref for Tx {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        &self.storage
    }
}
