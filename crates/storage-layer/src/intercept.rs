//! The trait of layers that do not look inside a value: retry, timeout, limit, metrics, trace.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt};
use storage_core::{BackendInfo, BoxFuture, BoxStream, Result};

use crate::{Operation, Payload, Resume};

/// A layer with two hooks: around a call, and around a stream that the call returned.
///
/// [`Intercepted`](crate::Intercepted) applies them to every method of the backend, inside transactions too, so no
/// operation can go around the layer.
pub trait Intercept: Debug + Send + Sync + 'static {
    /// Lives as long as the operation, its stream included: a permit, a clock, a tracing span. That it is dropped is the
    /// end, whether the operation succeeded, failed, was cancelled or its stream abandoned.
    type Guard: Send + 'static;

    /// Whether a single read may hand on that its caller collects the body. A layer that must see a large value arrive says
    /// no; then it comes as a stream, where the backend has streams.
    const WHOLE: bool = true;

    /// What the backend looks like through this layer.
    fn info(&self, inner: &BackendInfo) -> BackendInfo {
        inner.clone()
    }

    /// Around a call. `call` makes it and, as far as [`Operation::replay`] allows, may be called again.
    ///
    /// A batch whose items fail one by one with a retryable error looks like a failed call; when it is made again, only the
    /// items still open are sent.
    fn call<'a, T, F>(
        &'a self,
        operation: Operation<'a>,
        call: F,
    ) -> impl Future<Output = (Result<T>, Self::Guard)> + Send + 'a
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a;

    /// Around the question whether the store can be reached, which is not an operation. The default only asks it.
    fn health<'a>(&'a self, ask: BoxFuture<'a, Result<()>>) -> BoxFuture<'a, Result<()>> {
        ask
    }

    /// Around the body or listing that a call returned. The default only keeps the span until the stream is dropped.
    fn stream<T: Payload + Send + 'static>(
        this: &Arc<Self>,
        span: Self::Guard,
        stream: BoxStream<'static, Result<T>>,
        resume: impl Resume<T>,
    ) -> BoxStream<'static, Result<T>> {
        let _ = (this, resume);
        if size_of::<Self::Guard>() == 0 {
            return stream;
        }
        Held { stream, _span: span }.boxed()
    }
}

struct Held<T, S> {
    stream: BoxStream<'static, T>,
    _span: S,
}

impl<T, S> Unpin for Held<T, S> {}

impl<T, S> Stream for Held<T, S> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.stream.poll_next_unpin(cx)
    }
}
