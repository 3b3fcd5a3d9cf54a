//! A stream that shows each item, and its end, to a closure together with the span.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt};
use storage_core::{BoxStream, Result};

/// What metrics and tracing put around a stream: `each` sees every item, and `None` at the end. Dropping the stream
/// drops the span.
pub struct Watch<T, S, F> {
    /// The stream watched.
    pub stream: BoxStream<'static, Result<T>>,
    /// The operation's span.
    pub span: S,
    /// Sees each item.
    pub each: F,
}

impl<T, S, F> Unpin for Watch<T, S, F> {}

impl<T, S, F: FnMut(&mut S, Option<&Result<T>>)> Stream for Watch<T, S, F> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = &mut *self;
        let item = ready!(this.stream.poll_next_unpin(cx));
        (this.each)(&mut this.span, item.as_ref());
        Poll::Ready(item)
    }
}

impl<T, S: fmt::Debug, F> fmt::Debug for Watch<T, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("span", &self.span).finish_non_exhaustive()
    }
}
