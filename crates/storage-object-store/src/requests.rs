//! Requests that take effect by themselves once they are sent: they are finished in the background when their caller drops the future.
//!
//! Nobody can call such a request back, be it on its way to a server or in the hands of a thread that blocks. So later calls of this
//! instance that touch its keys wait for its answer. Everything else stops where it is.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use object_store::Error as NativeError;
use storage_core::{
    Error, Result,
    pending::{Caller, Commit, Keys, Settled, Writes},
};
use tokio::{runtime::Handle, task::JoinSet, time::timeout};

/// The requests of one connected instance.
pub(crate) struct Requests {
    writes: Writes,
    /// How long the answer is waited for in the background.
    patience: Duration,
    /// It ends what it holds when it is dropped.
    background: Mutex<JoinSet<()>>,
}

impl Requests {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { writes: Writes::new(), patience, background: Mutex::default() }
    }

    /// What waits for the requests that were given up.
    pub(crate) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Sends a request that changes these keys.
    pub(crate) async fn send<T: Answer>(
        &self,
        keys: impl Into<Keys>,
        request: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.send_more(keys, |_| request).await
    }

    /// The same for a request of several, of which those that are not sent when the caller has gone are not to be sent.
    pub(crate) async fn send_more<T: Answer, F: Future<Output = T> + Send + 'static>(
        &self,
        keys: impl Into<Keys>,
        request: impl FnOnce(GivenUp) -> F,
    ) -> T {
        let (caller, commit) = self.writes.begin(keys);
        let given_up = GivenUp::default();
        let request = request(given_up.clone());
        let mut sent = Sent { requests: self, given_up, left: None };
        if commit.begin().is_ok() {
            sent.left = Some(Left { request: Box::pin(request), caller, commit, runtime: Handle::try_current().ok() });
        }
        sent.await
    }

    /// Stops waiting for answers.
    pub(crate) fn close(&self) {
        self.background().abort_all();
    }

    fn background(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish<T: Answer>(&self, left: Left<T>) {
        let Left { request, caller, commit, runtime } = left;
        // From here on, later calls wait for it.
        drop(caller);
        let Some(runtime) = runtime else {
            return commit.lose();
        };
        let mut background = self.background();
        while background.try_join_next().is_some() {}
        let patience = self.patience;
        let finish = async move {
            match timeout(patience, request).await {
                Ok(answer) if answer.is_definite() => drop(commit),
                _ => commit.lose(),
            }
        };
        background.spawn_on(finish, &runtime);
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// Waits before a read.
pub(crate) async fn before_read(settled: Settled) -> Result<()> {
    settled.await
}

/// Waits before a write. One that could not wait long enough leaves open what will be there.
pub(crate) async fn before_write(settled: Settled) -> Result<()> {
    settled.await.map_err(Error::ambiguous)
}

/// Whether the caller has gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// The stream up to the moment at which the caller goes.
    pub(crate) fn cuts<S: Stream + Unpin + Send>(self, stream: S) -> impl Stream<Item = S::Item> + Send + use<S> {
        stream::unfold((stream, self), |(mut stream, given_up)| async move {
            let item = if given_up.0.load(Ordering::Acquire) { None } else { stream.next().await };
            item.map(|item| (item, (stream, given_up)))
        })
    }
}

/// A request that was sent, as a future. Dropped before it has ended, it goes on in the background.
struct Sent<'r, T: Answer> {
    requests: &'r Requests,
    given_up: GivenUp,
    left: Option<Left<T>>,
}

struct Left<T> {
    request: BoxFuture<'static, T>,
    caller: Caller,
    commit: Commit,
    runtime: Option<Handle>,
}

impl<T: Answer> Future for Sent<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<T> {
        let Some(left) = &mut self.left else {
            return std::task::Poll::Pending;
        };
        let answer = left.request.as_mut().poll(cx);
        if answer.is_ready() {
            self.left = None;
        }
        answer
    }
}

impl<T: Answer> Drop for Sent<'_, T> {
    fn drop(&mut self) {
        if let Some(left) = self.left.take() {
            self.given_up.0.store(true, Ordering::Release);
            self.requests.finish(left);
        }
    }
}

/// What a request is answered with.
pub(crate) trait Answer: Send + 'static {
    /// Whether it says what the request has done.
    fn is_definite(&self) -> bool;
}

impl<T: Send + 'static> Answer for Result<T> {
    fn is_definite(&self) -> bool {
        self.as_ref().err().is_none_or(|e| !e.is_ambiguous())
    }
}

impl<T: Send + 'static> Answer for object_store::Result<T> {
    fn is_definite(&self) -> bool {
        let unknown = |e: &NativeError| matches!(e, NativeError::Generic { .. } | NativeError::JoinError { .. });
        self.as_ref().err().is_none_or(|e| !unknown(e))
    }
}

impl Answer for Vec<Result<()>> {
    fn is_definite(&self) -> bool {
        self.iter().all(Answer::is_definite)
    }
}
