//! When to fail, and how each kind of result is injured.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt, stream, stream::BoxStream};
use storage_core::{Body, Bytes, Entry, Error, ErrorKind, Object, PresignedRequest, Result, Transaction, async_trait};

use super::FaultyTransaction;
use crate::support::locked;

/// Methods whose failure after the call leaves a change behind.
const WRITES: [&str; 8] = ["put", "delete", "put_batch", "delete_batch", "clear", "copy", "rename", "commit"];

/// What faults are planted, and the randomness that decides when.
#[derive(Debug)]
pub(crate) struct Plan {
    settings: RwLock<Settings>,
    rng: Mutex<fastrand::Rng>,
    planted: AtomicU64,
}

/// How often each fault is planted.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) before: f64,
    pub(crate) after: f64,
    pub(crate) short_body: f64,
    pub(crate) reset: f64,
    /// After how many items or bytes a stream is broken off by `reset`; drawn where nobody says.
    pub(crate) reset_at: Option<usize>,
    pub(crate) stall: f64,
    pub(crate) stall_streams: f64,
    pub(crate) latency: u32,
    pub(crate) only: Option<BTreeSet<&'static str>>,
    /// The error before the call.
    pub(crate) error: fn() -> Error,
    /// So many calls stay without a fault; then one may have one, and those after it have none.
    pub(crate) once_after: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            before: 0.0,
            after: 0.0,
            short_body: 0.0,
            reset: 0.0,
            reset_at: None,
            stall: 0.0,
            stall_streams: 0.0,
            latency: 0,
            only: None,
            error: || Error::new(ErrorKind::Unavailable, "a planted fault before the call; try again"),
            once_after: None,
        }
    }
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            settings: RwLock::default(),
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            planted: AtomicU64::new(0),
        }
    }

    pub(crate) fn planted(&self) -> u64 {
        self.planted.load(Ordering::Relaxed)
    }

    /// Plants nothing more; says whether anything was planted since the last time.
    pub(crate) fn forget(&self) -> bool {
        self.change(|settings| *settings = Settings::default());
        self.planted.swap(0, Ordering::Relaxed) > 0
    }

    /// Whether the call was made that `once_after` waits for, whatever became of it.
    pub(crate) fn met(&self) -> bool {
        self.read(|settings| settings.once_after.is_some_and(|left| left > usize::MAX / 2))
    }

    /// Changes what is planted from now on.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        change(&mut self.settings.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn read<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        read(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut locked(&self.rng))
    }

    /// Whether a fault of this probability is planted now.
    fn strikes(&self, probability: impl Fn(&Settings) -> f64) -> bool {
        let probability = self.read(probability);
        // Nothing is drawn for a fault that is not asked for, so that adding a kind does not change the others.
        let strikes = probability > 0.0 && self.random(|rng| rng.f64()) < probability;
        self.planted.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }

    /// Whether this call may have faults at all.
    fn concerns(&self, method: &'static str) -> bool {
        if !self.read(|s| s.only.as_ref().is_none_or(|only| only.contains(method))) {
            return false;
        }
        // Only the sweeps of the suite count calls, so that nobody else waits for the lock.
        if self.read(|s| s.once_after.is_none()) {
            return true;
        }
        self.change(|s| {
            let now = s.once_after == Some(0);
            s.once_after = s.once_after.map(|left| left.checked_sub(1).unwrap_or(usize::MAX));
            now
        })
    }

    async fn wait(&self) {
        let latency = self.read(|s| s.latency);
        if latency > 0 {
            for _ in 0..self.random(|rng| rng.u32(0..=latency)) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The call with the faults before and after it.
    async fn call<T: Send>(&self, method: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.wait().await;
        if self.strikes(|s| s.stall) {
            return pending().await;
        }
        if self.strikes(|s| s.before) {
            return Err(self.read(|s| s.error)());
        }
        let result = call.await?;
        self.wait().await;
        if self.strikes(|s| s.after) {
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
        if plan.concerns(method) && plan.strikes(|s| s.stall) {
            return pending().await;
        }
        call.await
    }
}

#[async_trait]
impl<T: Injured> Injure for Result<T> {
    async fn injure(plan: &Arc<Plan>, method: &'static str, call: impl Future<Output = Self> + Send) -> Self {
        if plan.concerns(method) {
            plan.call(method, call).await.map(|result| result.injured(plan))
        } else {
            call.await.map(|result| result.followed(plan))
        }
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
impl Injured for PresignedRequest {}
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
        if plan.strikes(|s| s.reset) {
            let until = plan.read(|s| s.reset_at).unwrap_or_else(|| plan.random(|rng| rng.usize(0..8)));
            return self.take(until).chain(stream::iter([Err(broken_off())])).boxed();
        }
        if plan.strikes(|s| s.stall_streams) {
            let until = plan.random(|rng| rng.usize(0..8));
            return self.take(until).chain(stream::pending()).boxed();
        }
        self
    }
}

impl Injured for Option<Object> {
    fn injured(self, plan: &Arc<Plan>) -> Self {
        let mut object = self?;
        if plan.strikes(|s| s.stall_streams) {
            let left = plan.random(|rng| rng.u64(0..=object.entry.size / 2));
            object.body = Body::stream(first(object.body, left).chain(stream::pending()));
            return Some(object);
        }
        let short = plan.strikes(|s| s.short_body);
        if short || plan.strikes(|s| s.reset) {
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
