//! A layer below the cache that holds the calls or the answers of one method until it is told to let them go.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use storage_core::{BoxFuture, Layer, Result, StorageBackend};
use storage_layer::{Intercept, Intercepted, Operation, Payload};
use tokio::sync::Semaphore;

/// Holds each call before it reaches the backend, or each answer after the backend gave it. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    method: &'static str,
    before: bool,
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    /// Holds the answers.
    pub(crate) fn new(method: &'static str) -> Self {
        Self { method, before: false, arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// Holds the calls.
    pub(crate) fn before(method: &'static str) -> Self {
        Self { before: true, ..Self::new(method) }
    }

    /// Waits until one more is held.
    pub(crate) async fn arrived(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    /// Lets so many go.
    pub(crate) fn release(&self, more: usize) {
        self.open.add_permits(more);
    }
}

impl Intercept for Gate {
    type Guard = ();

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, ())
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let concerned = operation.name.as_str() == self.method;
        if concerned && self.before {
            self.pass().await;
        }
        let result = call().await;
        if concerned && !self.before {
            self.pass().await;
        }
        (result, ())
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Gate {
    type Backend = Intercepted<S, Self>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Intercepted::new(inner, self)
    }
}
