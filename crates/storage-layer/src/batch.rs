//! A batch as one call to the hook, with the memory of which items are done.

use std::sync::{Mutex, PoisonError};

use storage_core::{BoxFuture, Error, Result, StorageBackend};

use crate::{Intercept, Intercepted, Operation, Payload, Retryability};

/// What a batch moved.
struct Moved {
    bytes: u64,
    written: u64,
}

impl Payload for Moved {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn written(&self) -> u64 {
        self.written
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
        let slots: Mutex<Slots<T>> = Mutex::new((0..batch.len).map(|_| Slot { result: None, doubt: false }).collect());
        let lock = || slots.lock().unwrap_or_else(PoisonError::into_inner);
        // A conditional item whose answer was lost would meet its own first try.
        let is_last = |e: &Error| operation.replay == Retryability::IfDefinite && e.is_ambiguous();
        let call = || -> BoxFuture<'_, Result<Moved>> {
            Box::pin(async {
                let open = take_open(&mut lock(), batch.together, is_last);
                let results = (batch.send)(&open).await;
                let mut slots = lock();
                let results = results.inspect_err(|e| {
                    open.iter().for_each(|index| slots[*index].doubt |= e.is_ambiguous());
                })?;
                for (index, result) in open.into_iter().zip(results) {
                    slots[index].result = Some(result);
                }
                let results = || slots.iter().filter_map(|slot| slot.result.as_ref());
                let failed = || results().filter_map(retryable);
                let (again, last) = (failed().find(|e| !is_last(e)), failed().find(|e| is_last(e)));
                match if batch.together { last.or(again) } else { again.or(last) } {
                    Some(failed) => Err(failed.clone()),
                    None => Ok(Moved {
                        bytes: results().map(Payload::bytes).sum(),
                        written: results().map(Payload::written).sum(),
                    }),
                }
            })
        };
        let outcome = self.intercept().call(operation.clone(), call).await.0;
        let slots = slots.into_inner().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            // The call as a whole failed: no item has an answer of its own.
            Err(e) if slots.iter().all(|slot| slot.result.is_none()) && batch.len > 0 => Err(e),
            Err(e) => {
                // It may name the key of another item.
                let nameless = e.map_key(|_| None);
                Ok(slots.into_iter().map(|slot| slot.answer().unwrap_or_else(|| Err(nameless.clone()))).collect())
            }
            Ok(_) => Ok(slots.into_iter().filter_map(Slot::answer).collect()),
        }
    }
}

/// What is known of an item.
struct Slot<T> {
    result: Option<Result<T>>,
    /// Whether an earlier try may have done it although it failed.
    doubt: bool,
}

type Slots<T> = Vec<Slot<T>>;

impl<T> Slot<T> {
    fn answer(self) -> Option<Result<T>> {
        let result = self.result?;
        Some(if self.doubt { result.map_err(Error::ambiguous) } else { result })
    }
}

/// The items to send: those without a final answer. Their slots are emptied, for what they held is no longer true.
fn take_open<T>(slots: &mut [Slot<T>], together: bool, is_last: impl Fn(&Error) -> bool) -> Vec<usize> {
    let mut open = Vec::new();
    for (index, slot) in slots.iter_mut().enumerate() {
        let is_open = match &slot.result {
            Some(result) => together || retryable(result).is_some_and(|e| !is_last(e)),
            None => true,
        };
        if is_open {
            let before = slot.result.take();
            slot.doubt |= before.is_some_and(|result| result.is_err_and(|e| e.is_ambiguous()));
            open.push(index);
        }
    }
    open
}

fn retryable<T>(result: &Result<T>) -> Option<&Error> {
    result.as_ref().err().filter(|e| e.is_retryable())
}
