//! A measurement around every call, and around the stream that it returned.

use std::sync::{Arc, atomic::Ordering};

use futures_util::StreamExt;
use storage_core::{BoxFuture, BoxStream, Result};
use storage_layer::{Intercept, Intercepted, Operation, OperationName, Payload, Resume, Watch};

use crate::{Measurement, measure::Keys};

/// A backend with the metrics layer around it.
pub type Metrics<S> = Intercepted<S, MetricsIntercept>;

/// The metrics layer's hooks.
#[derive(Debug)]
pub struct MetricsIntercept {
    keys: Arc<[Keys]>,
}

impl MetricsIntercept {
    pub(crate) fn new(backend: &Arc<str>) -> Self {
        Self { keys: Keys::all(backend) }
    }
}

impl Intercept for MetricsIntercept {
    type Guard = Measurement;

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, Measurement)
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let mut measured = Measurement::begin(operation.name, self.keys.clone());
        let result = call().await;
        match &result {
            Ok(value) => {
                measured.wrote(match operation.name {
                    // Some of its items may have failed.
                    OperationName::PutBatch => value.written(),
                    // A streamed body may have been longer than was known beforehand.
                    _ => {
                        let taken = operation.progress.map(|bytes| bytes.load(Ordering::Relaxed));
                        taken.or(operation.bytes).unwrap_or(0)
                    }
                });
                measured.read(value.bytes());
                measured.succeeded();
            }
            Err(error) => measured.failed(error),
        }
        (result, measured)
    }

    fn stream<T: Payload + Send + 'static>(
        _: &Arc<Self>,
        mut measured: Measurement,
        stream: BoxStream<'static, Result<T>>,
        _: impl Resume<T>,
    ) -> BoxStream<'static, Result<T>> {
        measured.goes_on();
        let each = |measured: &mut Measurement, item: Option<&Result<T>>| match item {
            Some(Ok(item)) => measured.read(item.bytes()),
            Some(Err(error)) => measured.failed(error),
            None => measured.succeeded(),
        };
        Watch { stream, span: measured, each }.boxed()
    }
}
