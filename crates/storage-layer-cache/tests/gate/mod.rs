//! A layer that holds calls up, before or after they reach the backend, until it is told to let them go.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use storage_core::{BoxFuture, Layer, Result, StorageBackend};
use storage_layer::{Intercept, Intercepted, Operation, OperationName, Payload};
use tokio::sync::Semaphore;

/// Where calls of one method are held up.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    name: OperationName,
    before: bool,
    open: Arc<Semaphore>,
    arrived: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
}

impl Gate {
    /// Holds calls up before they reach the backend.
    pub(crate) fn before(name: OperationName) -> Self {
        Self {
            name,
            before: true,
            open: Arc::new(Semaphore::new(0)),
            arrived: Arc::new(Semaphore::new(0)),
            calls: Arc::default(),
        }
    }

    /// Holds calls up when the backend has answered.
    pub(crate) fn after(name: OperationName) -> Self {
        Self { before: false, ..Self::before(name) }
    }

    /// Waits until a call is held up.
    pub(crate) async fn arrival(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// Lets so many calls pass.
    pub(crate) fn open(&self, calls: usize) {
        self.open.add_permits(calls);
    }

    /// How many calls have come.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn wait(&self, here: bool) {
        if here {
            self.arrived.add_permits(1);
            self.open.acquire().await.unwrap().forget();
        }
    }
}

impl Intercept for Gate {
    type Span = ();

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, ())
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let here = operation.name == self.name;
        self.calls.fetch_add(usize::from(here), Ordering::SeqCst);
        self.wait(here && self.before).await;
        let result = call().await;
        self.wait(here && !self.before).await;
        (result, ())
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Gate {
    type Backend = Intercepted<S, Self>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Intercepted::new(inner, self)
    }
}
