//! A span around every call, and around the stream that it returned.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt};
use storage_core::{BoxFuture, BoxStream, Result};
use storage_layer::{Intercept, Intercepted, Operation, Payload, Resume};
use tracing::Instrument;

use crate::{OperationSpan, TraceLayer};

/// A backend with the trace layer around it.
pub type Trace<S> = Intercepted<S, TraceIntercept>;

/// The trace layer's hooks.
#[derive(Debug)]
pub struct TraceIntercept {
    settings: TraceLayer,
    backend: Arc<str>,
}

impl TraceIntercept {
    pub(crate) fn new(settings: TraceLayer, backend: Arc<str>) -> Self {
        Self { settings, backend }
    }
}

impl Intercept for TraceIntercept {
    type Guard = OperationSpan;

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, OperationSpan)
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let mut span = OperationSpan::begin(self.settings, &self.backend, &operation);
        let result = call().instrument(span.span()).await;
        // A streamed body may have declared more than was taken of it.
        let taken = operation.progress.map(|bytes| bytes.load(Ordering::Relaxed));
        span.moved(taken.or(operation.bytes).unwrap_or(0));
        match &result {
            Ok(value) => {
                span.moved(value.bytes());
                span.succeeded();
            }
            Err(error) => span.failed(error),
        }
        (result, span)
    }

    fn stream<T: Payload + Send + 'static>(
        _: &Arc<Self>,
        mut span: OperationSpan,
        stream: BoxStream<'static, Result<T>>,
        _: impl Resume<T>,
    ) -> BoxStream<'static, Result<T>> {
        span.goes_on();
        Traced { stream, span }.boxed()
    }
}

struct Traced<T> {
    // Dropped before its span, which it may still write into.
    stream: BoxStream<'static, Result<T>>,
    span: OperationSpan,
}

impl<T: Payload> Stream for Traced<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = &mut *self;
        let item = ready!(this.span.span().in_scope(|| this.stream.poll_next_unpin(cx)));
        match &item {
            Some(Ok(item)) => this.span.yielded(item.bytes()),
            Some(Err(error)) => this.span.failed(error),
            None => this.span.succeeded(),
        }
        Poll::Ready(item)
    }
}
