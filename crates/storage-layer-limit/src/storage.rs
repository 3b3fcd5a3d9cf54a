//! Which calls need a permit, and how long they hold it.

use std::sync::Arc;

use futures_util::StreamExt;
use storage_core::{BoxFuture, BoxStream, Error, Result};
use storage_layer::{Intercept, Intercepted, Operation, OperationName, Payload, Resume};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{LimitLayer, body::Lending, items::Items};

/// A backend with the limit layer around it.
pub type Limit<S> = Intercepted<S, LimitIntercept>;

/// The limit layer's hooks.
#[derive(Debug)]
pub struct LimitIntercept {
    permits: Arc<Semaphore>,
}

impl LimitIntercept {
    pub(crate) fn new(settings: LimitLayer) -> Self {
        Self { permits: Arc::new(Semaphore::new(settings.concurrency.get())) }
    }

    /// How many more calls could begin at this moment.
    #[must_use]
    pub fn available(&self) -> usize {
        self.permits.available_permits()
    }
}

/// Whether the items of the operation's stream are counted too.
#[derive(Clone, Copy, Debug)]
pub struct Counted(bool);

/// A permit, after those who asked before.
pub(crate) async fn permit(permits: Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    // The semaphore is never closed; if it were, nothing could pass any more.
    permits.acquire_owned().await.map_err(|_| Error::closed())
}

/// A transaction may hold what others wait for, who have the permits; and giving up must not wait for anybody.
fn passes(operation: &Operation<'_>) -> bool {
    operation.in_transaction || operation.name == OperationName::Disconnect
}

impl Intercept for LimitIntercept {
    type Guard = Counted;

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, Counted)
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        if passes(&operation) {
            return (call().await, Counted(false));
        }
        let permit = match permit(self.permits.clone()).await {
            Ok(permit) => permit,
            Err(e) => return (Err(e), Counted(true)),
        };
        let result = match operation.bodies {
            None => {
                let result = call().await;
                drop(permit);
                result
            }
            Some(bodies) => {
                let lending = Lending::new(permit, self.permits.clone());
                bodies.around({
                    let lending = lending.share();
                    move |body| lending.body(body)
                });
                call().await
            }
        };
        (result, Counted(true))
    }

    fn stream<T: Payload + Send + 'static>(
        this: &Arc<Self>,
        counted: Counted,
        stream: BoxStream<'static, Result<T>>,
        _: impl Resume<T>,
    ) -> BoxStream<'static, Result<T>> {
        if counted.0 { Items::new(stream, this.permits.clone()).boxed() } else { stream }
    }
}
