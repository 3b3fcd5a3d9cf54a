//! A stream that holds a permit while an item is waited for, and none while its reader is at work.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt};
use storage_core::{BoxFuture, BoxStream, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::storage::permit;

pub(crate) struct Items<T> {
    stream: BoxStream<'static, Result<T>>,
    permits: Arc<Semaphore>,
    queued: Option<BoxFuture<'static, Result<OwnedSemaphorePermit>>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<T> Items<T> {
    pub(crate) fn new(stream: BoxStream<'static, Result<T>>, permits: Arc<Semaphore>) -> Self {
        Self { stream, permits, queued: None, permit: None }
    }
}

impl<T> Stream for Items<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = &mut *self;
        if this.permit.is_none() {
            let queued = this.queued.get_or_insert_with(|| Box::pin(permit(this.permits.clone())));
            let permit = ready!(queued.as_mut().poll(cx));
            this.queued = None;
            match permit {
                Ok(permit) => this.permit = Some(permit),
                Err(e) => return Poll::Ready(Some(Err(e))),
            }
        }
        let item = ready!(this.stream.poll_next_unpin(cx));
        this.permit = None;
        Poll::Ready(item)
    }
}
