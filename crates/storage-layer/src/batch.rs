//! A batch as one call to the hook, with the memory of which items are done.

use std::sync::{Mutex, PoisonError};

use storage_core::{BoxFuture, Error, Result, StorageBackend};

use crate::{Intercept, Intercepted, Operation, Payload};

/// What a batch moved.
struct Moved(u64);

impl Payload for Moved {
    fn bytes(&self) -> u64 {
        self.0
    }
}

/// Sends the items with these indexes.
type SendItems<'s, 'f, T> = dyn Fn(&[usize]) -> BoxFuture<'s, Result<Vec<Result<T>>>> + Send + Sync + 'f;

/// How a batch of `len` items is sent again.
pub(crate) struct Batch<'s, 'f, T> {
    pub(crate) len: usize,
    /// All items again or none: an atomic batch, or one in which a key occurs twice (else an early item sent again would
    /// overwrite a later one).
    pub(crate) together: bool,
    pub(crate) send: &'f SendItems<'s, 'f, T>,
}

impl<S: StorageBackend + ?Sized, I: Intercept> Intercepted<S, I> {
    pub(crate) async fn batch<T: Payload + Send>(
        &self,
        operation: Operation<'_>,
        batch: Batch<'_, '_, T>,
    ) -> Result<Vec<Result<T>>> {
        let slots: Mutex<Vec<Option<Result<T>>>> = Mutex::new((0..batch.len).map(|_| None).collect());
        let lock = || slots.lock().unwrap_or_else(PoisonError::into_inner);
        let call = || -> BoxFuture<'_, Result<Moved>> {
            Box::pin(async {
                let open = take_open(&mut lock(), batch.together);
                let results = (batch.send)(&open).await?;
                let mut slots = lock();
                for (index, result) in open.into_iter().zip(results) {
                    slots[index] = Some(result);
                }
                match slots.iter().flatten().find_map(retryable) {
                    Some(failed) => Err(same(failed)),
                    None => Ok(Moved(slots.iter().flatten().map(Payload::bytes).sum())),
                }
            })
        };
        let outcome = self.intercept().call(operation, call).await.0;
        let slots = slots.into_inner().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            // The call as a whole failed: no item has an answer of its own.
            Err(e) if slots.iter().all(Option::is_none) && batch.len > 0 => Err(e),
            Err(e) => Ok(slots.into_iter().map(|slot| slot.unwrap_or_else(|| Err(same(&e)))).collect()),
            Ok(_) => Ok(slots.into_iter().flatten().collect()),
        }
    }
}

/// The items to send: those without a final answer. Their slots are emptied, for what they held is no longer true.
fn take_open<T>(slots: &mut [Option<Result<T>>], together: bool) -> Vec<usize> {
    let mut open = Vec::new();
    for (index, slot) in slots.iter_mut().enumerate() {
        let is_open = match slot {
            Some(result) => together || retryable(result).is_some(),
            None => true,
        };
        if is_open {
            *slot = None;
            open.push(index);
        }
    }
    open
}

fn retryable<T>(result: &Result<T>) -> Option<&Error> {
    result.as_ref().err().filter(|e| e.is_retryable())
}

/// An error cannot be cloned, because its source cannot; for several items the same is said again.
fn same(e: &Error) -> Error {
    let mut copy = Error::new(e.kind(), e.message());
    if e.is_ambiguous() {
        copy = copy.ambiguous();
    }
    if let Some(wait) = e.retry_after() {
        copy = copy.with_retry_after(wait);
    }
    copy
}
