//! When a call is made again, and how a broken stream goes on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use storage_core::{BoxFuture, BoxStream, Error, ErrorKind, Result};
use storage_layer::{Intercept, Intercepted, Operation, Payload, Resume, Retryability};
use tokio::time::{Instant, sleep};

use crate::RetryLayer;

/// A backend with the retry layer around it.
pub type Retry<S> = Intercepted<S, RetryIntercept>;

/// The retry layer's two hooks.
#[derive(Debug)]
pub struct RetryIntercept {
    settings: RetryLayer,
    jitter: Mutex<fastrand::Rng>,
}

impl RetryIntercept {
    pub(crate) fn new(settings: RetryLayer) -> Self {
        let jitter = settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self { settings, jitter: Mutex::new(jitter) }
    }

    /// How long to wait before trying again after this error; `None` when it is the last word.
    fn wait(&self, error: &Error, tries: &Tries) -> Option<Duration> {
        let settings = &self.settings;
        if !error.is_retryable() || tries.failed > settings.retries {
            return None;
        }
        let doublings = (tries.failed - 1).min(31);
        let longest = settings.initial.saturating_mul(1 << doublings).min(settings.max);
        // Full jitter: anything up to the longest wait, so that callers that failed together do not come back together.
        let share = self.jitter.lock().unwrap_or_else(PoisonError::into_inner).f64();
        let wait = longest.mul_f64(share).max(error.retry_after().unwrap_or_default());
        (tries.begun.elapsed().saturating_add(wait) <= settings.budget).then_some(wait)
    }
}

/// What was tried so far.
struct Tries {
    begun: Instant,
    failed: u32,
    /// Whether one of them may have been done all the same.
    doubt: bool,
}

impl Tries {
    fn begin() -> Self {
        Self { begun: Instant::now(), failed: 0, doubt: false }
    }
}

fn may_replay(replay: Retryability, error: &Error) -> bool {
    match replay {
        Retryability::Always => true,
        Retryability::IfDefinite => !error.is_ambiguous(),
        Retryability::Never => false,
    }
}

impl Intercept for RetryIntercept {
    type Guard = ();

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, ())
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let mut tries = None;
        loop {
            let error = match call().await {
                Ok(value) => return (Ok(value), ()),
                Err(error) => error,
            };
            // The clock is first read when something failed: the idle layer costs no system call.
            let tries = tries.get_or_insert_with(Tries::begin);
            tries.failed += 1;
            tries.doubt |= error.is_ambiguous();
            // What an earlier try may have done, the last one cannot deny.
            let error = if tries.doubt { error.ambiguous() } else { error };
            if !may_replay(operation.replay, &error) {
                return (Err(error), ());
            }
            match self.wait(&error, tries) {
                Some(wait) => sleep(wait).await,
                None => return (Err(error), ()),
            }
        }
    }

    fn stream<T: Payload + Send + 'static>(
        this: &Arc<Self>,
        _: (),
        stream: BoxStream<'static, Result<T>>,
        resume: impl Resume<T>,
    ) -> BoxStream<'static, Result<T>> {
        let reading = Reading { retry: this.clone(), stream: Some(stream), resume, tries: None };
        stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.next().await? {
                Ok(item) => Some((Ok(item), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

/// A stream under way. Each item delivered begins the count of tries anew.
struct Reading<T, R> {
    retry: Arc<RetryIntercept>,
    stream: Option<BoxStream<'static, Result<T>>>,
    resume: R,
    tries: Option<Tries>,
}

impl<T, R: Resume<T>> Reading<T, R> {
    async fn next(&mut self) -> Option<Result<T>> {
        loop {
            let next = match &mut self.stream {
                Some(stream) => stream.next().await?,
                None => match self.resume.reopen().await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let error = match next {
                Ok(item) => {
                    self.resume.seen(&item);
                    self.tries = None;
                    return Some(Ok(item));
                }
                Err(error) => error,
            };
            let tries = self.tries.get_or_insert_with(Tries::begin);
            tries.failed += 1;
            // A value that changed while it was read stays changed: only the reader can begin again.
            if error.kind() == ErrorKind::Conflict {
                return Some(Err(error));
            }
            match self.retry.wait(&error, tries) {
                Some(wait) => sleep(wait).await,
                None => return Some(Err(error)),
            }
            self.stream = None;
        }
    }
}
