//! A call that waits for its own body lends its permit to others.
//!
//! The body may come from the same store: a copy by hand reads a stream that needs a permit for each item. A writer that kept its own
//! meanwhile would wait for itself.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt};
use storage_core::{BoxFuture, ByteStream, Bytes, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::storage::permit;

/// A call's permit, for as long as the call lasts: dropping this ends it for its bodies too.
pub(crate) struct Lending(Shared);

impl Lending {
    pub(crate) fn new(permit: OwnedSemaphorePermit, permits: Arc<Semaphore>) -> Self {
        let state = State { permit: Some(permit), waiting: 0, ended: false };
        Self(Shared { state: Arc::new(Mutex::new(state)), permits })
    }

    pub(crate) fn share(&self) -> Shared {
        self.0.clone()
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.permit = None;
    }
}

/// The call holds its permit while none of its bodies is waited for.
struct State {
    permit: Option<OwnedSemaphorePermit>,
    /// How many bodies are waited for.
    waiting: usize,
    ended: bool,
}

/// What the bodies of a call know of its permit.
#[derive(Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
    permits: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn body(&self, body: ByteStream) -> ByteStream {
        LendingBody { body, shared: self.clone(), waits: false, ready: None, queued: None }.boxed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend(&self) {
        let mut state = self.lock();
        state.waiting += 1;
        state.permit = None;
    }

    /// A body is no longer waited for. If others are, or the call has ended, the permit is let go again.
    fn resume(&self, permit: Option<OwnedSemaphorePermit>) {
        let mut state = self.lock();
        state.waiting -= 1;
        if state.waiting == 0 && !state.ended && permit.is_some() {
            state.permit = permit;
        }
    }
}

struct LendingBody {
    body: ByteStream,
    shared: Shared,
    /// Whether this body is counted as waited for.
    waits: bool,
    /// What it yields once the call has its permit again.
    ready: Option<Option<Result<Bytes>>>,
    queued: Option<BoxFuture<'static, Result<OwnedSemaphorePermit>>>,
}

impl Stream for LendingBody {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let this = &mut *self;
        if this.ready.is_none() {
            let Poll::Ready(piece) = this.body.poll_next_unpin(cx) else {
                if !this.waits {
                    this.waits = true;
                    this.shared.lend();
                }
                return Poll::Pending;
            };
            if !this.waits {
                return Poll::Ready(piece);
            }
            this.ready = Some(piece);
        }
        let queued = this.queued.get_or_insert_with(|| Box::pin(permit(this.shared.permits.clone())));
        let permit = ready!(queued.as_mut().poll(cx));
        this.queued = None;
        this.waits = false;
        let piece = this.ready.take().flatten();
        match permit {
            Ok(permit) => {
                this.shared.resume(Some(permit));
                Poll::Ready(piece)
            }
            Err(e) => {
                this.shared.resume(None);
                Poll::Ready(Some(Err(e)))
            }
        }
    }
}

impl Drop for LendingBody {
    fn drop(&mut self) {
        if self.waits {
            self.shared.resume(None);
        }
    }
}
