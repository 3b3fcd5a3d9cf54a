//! When to fail, and how each kind of result is injured.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt, stream, stream::BoxStream};
use storage_core::{Body, Bytes, Entry, Error, ErrorKind, Object, Result, Transaction, async_trait};

use super::FaultyTransaction;

/// Methods whose failure after the call leaves a change behind.
const WRITES: [&str; 8] = ["put", "delete", "put_batch", "delete_batch", "clear", "copy", "rename", "commit"];

/// How often each fault is planted, and the randomness that decides.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) before: f64,
    pub(super) after: f64,
    pub(super) short_body: f64,
    pub(super) reset: f64,
    pub(super) stall: f64,
    pub(super) stall_streams: f64,
    pub(super) latency: u32,
    pub(super) only: Option<BTreeSet<&'static str>>,
    rng: Mutex<fastrand::Rng>,
    planted: AtomicU64,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            before: 0.0,
            after: 0.0,
            short_body: 0.0,
            reset: 0.0,
            stall: 0.0,
            stall_streams: 0.0,
            latency: 0,
            only: None,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            planted: AtomicU64::new(0),
        }
    }

    pub(super) fn planted(&self) -> u64 {
        self.planted.load(Ordering::Relaxed)
    }

    fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a fault of this probability is planted now.
    fn strikes(&self, probability: f64) -> bool {
        // Nothing is drawn for a fault that is not asked for, so that adding a kind does not change the others.
        let strikes = probability > 0.0 && self.random(|rng| rng.f64()) < probability;
        self.planted.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }

    fn concerns(&self, method: &'static str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(method))
    }

    async fn wait(&self) {
        if self.latency > 0 {
            for _ in 0..self.random(|rng| rng.u32(0..=self.latency)) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The call with the faults before and after it.
    async fn call<T: Send>(&self, method: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if !self.concerns(method) {
            return call.await;
        }
        self.wait().await;
        if self.strikes(self.stall) {
            return pending().await;
        }
        if self.strikes(self.before) {
            return Err(Error::new(ErrorKind::Unavailable, "a planted fault before the call; try again"));
        }
        let result = call.await?;
        self.wait().await;
        if self.strikes(self.after) {
            return Err(if WRITES.contains(&method) {
                Error::new(ErrorKind::Timeout, "a planted fault after the call; see whether it was done").ambiguous()
            } else {
                Error::new(ErrorKind::Unavailable, "a planted fault after the call; try again")
            });
        }
        Ok(result)
    }
}

/// A result of a method, and what can go wrong with it.
#[async_trait]
pub(super) trait Injure: Sized + Send {
    async fn injure(plan: &Arc<Plan>, method: &'static str, call: impl Future<Output = Self> + Send) -> Self;
}

#[async_trait]
impl Injure for bool {
    async fn injure(plan: &Arc<Plan>, method: &'static str, call: impl Future<Output = Self> + Send) -> Self {
        if plan.concerns(method) && plan.strikes(plan.stall) {
            return pending().await;
        }
        call.await
    }
}

#[async_trait]
impl<T: Injured> Injure for Result<T> {
    async fn injure(plan: &Arc<Plan>, method: &'static str, call: impl Future<Output = Self> + Send) -> Self {
        let result = plan.call(method, call).await;
        result.map(|result| if plan.concerns(method) { result.injured(plan) } else { result.followed(plan) })
    }
}

/// What a method returned, and what can go wrong with it afterwards.
pub(super) trait Injured: Sized + Send {
    /// With faults planted.
    fn injured(self, plan: &Arc<Plan>) -> Self {
        self.followed(plan)
    }

    /// Without, but so that the plan reaches further calls.
    fn followed(self, _: &Arc<Plan>) -> Self {
        self
    }
}

impl Injured for () {}
impl Injured for Entry {}
impl Injured for Option<Entry> {}

impl<T: Injured> Injured for Vec<Result<T>> {
    fn injured(self, plan: &Arc<Plan>) -> Self {
        self.into_iter().map(|item| item.map(|item| item.injured(plan))).collect()
    }
}

impl Injured for Arc<dyn Transaction> {
    fn followed(self, plan: &Arc<Plan>) -> Self {
        Arc::new(FaultyTransaction { plan: plan.clone(), inner: self })
    }
}

impl<T: Send + 'static> Injured for BoxStream<'static, Result<T>> {
    fn injured(self, plan: &Arc<Plan>) -> Self {
        if plan.strikes(plan.reset) {
            let until = plan.random(|rng| rng.usize(0..8));
            return self.take(until).chain(stream::iter([Err(broken_off())])).boxed();
        }
        if plan.strikes(plan.stall_streams) {
            let until = plan.random(|rng| rng.usize(0..8));
            return self.take(until).chain(stream::pending()).boxed();
        }
        self
    }
}

impl Injured for Option<Object> {
    fn injured(self, plan: &Arc<Plan>) -> Self {
        let mut object = self?;
        if plan.strikes(plan.stall_streams) {
            let left = plan.random(|rng| rng.u64(0..=object.entry.size / 2));
            object.body = Body::stream(first(object.body, left).chain(stream::pending()));
            return Some(object);
        }
        let short = plan.strikes(plan.short_body);
        if short || plan.strikes(plan.reset) {
            let left = plan.random(|rng| rng.u64(0..=object.entry.size / 2));
            let end = (!short).then(|| Err(broken_off()));
            object.body = Body::stream(first(object.body, left).chain(stream::iter(end)));
        }
        Some(object)
    }
}

/// The first bytes of a body, at most so many.
fn first(body: Body, left: u64) -> impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static {
    body.into_stream().scan(left, |left, piece| {
        let piece = piece.map(|mut bytes| bytes.split_to((*left).min(bytes.len() as u64) as usize));
        *left -= piece.as_ref().map_or(*left, |bytes| bytes.len() as u64);
        let more = !piece.as_ref().is_ok_and(Bytes::is_empty);
        std::future::ready(more.then_some(piece))
    })
}

fn broken_off() -> Error {
    Error::new(ErrorKind::Unavailable, "a planted fault broke the stream off; try again")
}
