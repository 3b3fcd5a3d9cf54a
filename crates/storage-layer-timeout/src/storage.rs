//! When a call or a stream counts as stuck.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use storage_core::{BoxFuture, BoxStream, Error, ErrorKind, Result};
use storage_layer::{Intercept, Intercepted, Operation, OperationName, Payload, Resume};
use tokio::time::{Instant, Sleep, sleep};

use crate::TimeoutLayer;

/// A backend with the timeout layer around it.
pub type Timeout<S> = Intercepted<S, TimeoutIntercept>;

/// The timeout layer's hooks.
#[derive(Debug)]
pub struct TimeoutIntercept {
    settings: TimeoutLayer,
}

impl TimeoutIntercept {
    pub(crate) fn new(settings: TimeoutLayer) -> Self {
        Self { settings }
    }

    /// How long an operation may take without the time for its bytes. An item of its stream may take as long: a query in the
    /// order of keys is answered while the store is scanned, and the scan can go on for long without a match.
    fn base(&self, name: OperationName) -> Duration {
        if is_bulk(name) { self.settings.bulk } else { self.settings.timeout }
    }

    /// How long a call may take, or stand still if its progress can be seen.
    fn limit(&self, operation: &Operation<'_>) -> Duration {
        let limit = self.base(operation.name);
        if operation.progress.is_some() {
            return limit;
        }
        let bytes = operation.bytes.unwrap_or(0) as f64;
        limit.saturating_add(
            Duration::try_from_secs_f64(bytes / self.settings.min_rate.get() as f64).unwrap_or(Duration::MAX),
        )
    }
}

/// Whether the work of an operation grows with the store or with the number of items.
fn is_bulk(name: OperationName) -> bool {
    matches!(
        name,
        OperationName::GetBatch
            | OperationName::PutBatch
            | OperationName::DeleteBatch
            | OperationName::Query
            | OperationName::Clear
            | OperationName::Copy
            | OperationName::Rename
            | OperationName::Commit
    )
}

impl Intercept for TimeoutIntercept {
    /// How long the operation's stream may stand still.
    type Guard = Duration;

    /// The bytes of a large value must be seen to arrive.
    const WHOLE: bool = false;

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, Duration)
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let limit = self.limit(&operation);
        let moved = || operation.progress.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let (mut call, mut timer, mut seen) = (call(), None, 0);
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            // The timer is made when the first answer is not there at once: what never waits costs no clock.
            let timer = timer.get_or_insert_with(|| Box::pin(sleep(limit)));
            let now = moved();
            if now != seen {
                seen = now;
                timer.as_mut().reset(later(limit));
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        let result = result.await.unwrap_or_else(|| Err(stuck(operation.name, limit)));
        (result, self.base(operation.name))
    }

    fn health<'a>(&'a self, ask: BoxFuture<'a, Result<()>>) -> BoxFuture<'a, Result<()>> {
        let limit = self.settings.timeout;
        Box::pin(async move { tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| Err(unanswered(limit))) })
    }

    fn stream<T: Payload + Send + 'static>(
        _: &Arc<Self>,
        limit: Duration,
        stream: BoxStream<'static, Result<T>>,
        _: impl Resume<T>,
    ) -> BoxStream<'static, Result<T>> {
        Timed { stream: Some(stream), limit, timer: None }.boxed()
    }
}

fn later(limit: Duration) -> Instant {
    let now = Instant::now();
    // As far away as `sleep` itself takes a time that cannot be added.
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30))
}

fn stuck(name: OperationName, limit: Duration) -> Error {
    let time = shown(limit);
    if name.writes() {
        let message = format!(
            "no progress within {time}; the write may have happened or still happen, read before you repeat it"
        );
        return Error::new(ErrorKind::Timeout, message).ambiguous();
    }
    unanswered(limit)
}

fn unanswered(limit: Duration) -> Error {
    let time = shown(limit);
    Error::new(ErrorKind::Timeout, format!("no answer within {time}; try again, or allow more time"))
}

fn shown(limit: Duration) -> String {
    format!("{:?}", Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
}

/// A stream whose items must come in time. The time counts only while an item is waited for.
struct Timed<T> {
    /// `None` after the end.
    stream: Option<BoxStream<'static, Result<T>>>,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Stream for Timed<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(item) = stream.poll_next_unpin(cx) {
            this.timer = None;
            return Poll::Ready(item);
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.limit)));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // What hangs is let go, with the connection it holds.
        this.stream = None;
        let time = shown(this.limit);
        let message = format!("the stream stood still for {time}; read on from where it broke off, or allow more time");
        Poll::Ready(Some(Err(Error::new(ErrorKind::Timeout, message))))
    }
}
