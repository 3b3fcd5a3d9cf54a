//! A backend that fails on purpose, by a seed: for testing what is above it.

mod plan;

use std::sync::Arc;

use storage_core::{BackendInfo, Error, Result, StorageBackend, Transaction, async_trait};

use plan::Injure;
pub(crate) use plan::{Plan, Settings};

/// Plants faults into the calls of the wrapped backend, its transactions included.
///
/// Every probability is 0 at first. The same seed and the same sequence of calls give the same faults.
///
/// ```
/// use storage_conformance::Faults;
/// use storage_core::{ErrorKind, Storage};
/// # let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # rt.block_on(async {
/// let faults = Faults::new(storage_memory::Memory::new(), 7).after(1.0).only(["put"]);
/// let storage = Storage::new(faults);
/// let error = storage.put("key", "value").await.unwrap_err();
/// assert!(error.kind() == ErrorKind::Timeout && error.is_ambiguous());
/// assert!(storage.has("key").await.unwrap());
/// # });
/// ```
#[derive(Debug)]
pub struct Faults<B: ?Sized = dyn StorageBackend> {
    plan: Arc<Plan>,
    inner: Arc<B>,
}

impl<B: StorageBackend> Faults<B> {
    /// No faults yet, around this backend.
    pub fn new(inner: B, seed: u64) -> Self {
        Self { plan: Arc::new(Plan::new(seed)), inner: Arc::new(inner) }
    }

    /// Fails so often before the call: `Unavailable`, definite, nothing was done.
    #[must_use]
    pub fn before(self, probability: f64) -> Self {
        self.planned(|plan| plan.before = probability)
    }

    /// Fails so often after the call: what was done stays done. A write, or a commit, is `Timeout` and ambiguous; a read is
    /// `Unavailable`.
    #[must_use]
    pub fn after(self, probability: f64) -> Self {
        self.planned(|plan| plan.after = probability)
    }

    /// Lets the body of a read end early so often, without an error: only its length tells.
    #[must_use]
    pub fn short_body(self, probability: f64) -> Self {
        self.planned(|plan| plan.short_body = probability)
    }

    /// Breaks the body of a read, a listing or an answer off so often, with `Unavailable`.
    #[must_use]
    pub fn reset(self, probability: f64) -> Self {
        self.planned(|plan| plan.reset = probability)
    }

    /// Never answers a call so often; nothing was done.
    #[must_use]
    pub fn stall(self, probability: f64) -> Self {
        self.planned(|plan| plan.stall = probability)
    }

    /// Lets the body of a read, a listing or an answer hang so often after some of it has come.
    #[must_use]
    pub fn stall_streams(self, probability: f64) -> Self {
        self.planned(|plan| plan.stall_streams = probability)
    }

    /// Yields up to so many times before and after each call, so that others come in between. There is no clock in it.
    #[must_use]
    pub fn latency(self, yields: u32) -> Self {
        self.planned(|plan| plan.latency = yields)
    }

    /// Plants faults into these methods only, by their names in the trait, `commit` and `rollback` included.
    #[must_use]
    pub fn only<const N: usize>(self, methods: [&'static str; N]) -> Self {
        self.planned(|plan| plan.only = Some(methods.into()))
    }

    /// Fails before the call with this error instead of `Unavailable`.
    #[must_use]
    pub fn error(self, error: fn() -> Error) -> Self {
        self.planned(|plan| plan.error = error)
    }

    pub(crate) fn with_plan(inner: B, plan: Arc<Plan>) -> Self {
        Self { plan, inner: Arc::new(inner) }
    }

    fn planned(self, change: impl FnOnce(&mut Settings)) -> Self {
        self.plan.change(change);
        self
    }
}

impl<B: ?Sized> Faults<B> {
    /// How many faults were planted up to now.
    #[must_use]
    pub fn planted(&self) -> u64 {
        self.plan.planted()
    }

    /// The wrapped backend, which has no faults.
    #[must_use]
    pub fn inner(&self) -> &Arc<B> {
        &self.inner
    }
}

macro_rules! injure {
    ($($name:ident [$($parameter:tt)*] [$($argument:tt)*] -> $result:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: StorageBackend + ?Sized> StorageBackend for Faults<B> {
            fn info(&self) -> &BackendInfo {
                self.inner.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                <$result>::injure(&self.plan, stringify!($name), self.inner.$name($($argument)*)).await
            })*
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl StorageBackend for FaultyTransaction {
            fn info(&self) -> &BackendInfo {
                self.inner.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                <$result>::injure(&self.plan, stringify!($name), self.inner.$name($($argument)*)).await
            })*
        }
    };
}
storage_core::each_method!(injure);

#[derive(Debug)]
struct FaultyTransaction {
    plan: Arc<Plan>,
    inner: Arc<dyn Transaction>,
}

#[async_trait]
impl Transaction for FaultyTransaction {
    async fn commit(&self) -> Result<()> {
        <Result<()>>::injure(&self.plan, "commit", self.inner.commit()).await
    }

    async fn rollback(&self) -> Result<()> {
        <Result<()>>::injure(&self.plan, "rollback", self.inner.rollback()).await
    }
}
