//! What a check gets.

use std::sync::{Arc, Mutex};

use fastrand::Rng;
use storage_core::{BackendInfo, Capabilities, Consistency, Storage, StorageBackend};

use crate::{
    Failure, Namespace, Outcome, Target,
    calls::{Calls, Traced},
    faults::Plan,
    process::Process,
    support::locked,
};

/// An empty store of the target, and more handles to it or to others.
#[derive(Debug)]
pub struct Context {
    /// A handle to the check's own empty store.
    pub storage: Storage,
    /// The same store below the log of calls.
    raw: Storage,
    target: Target,
    namespace: Namespace,
    used: Used,
    calls: Calls,
    seed: u64,
}

/// The namespaces of a check. They outlive its runtime, so that nothing still writes into a directory that is removed.
pub(crate) type Used = Arc<Mutex<Vec<Namespace>>>;

impl Context {
    pub(crate) async fn open(target: &Target, used: Used, calls: Calls, seed: u64) -> Outcome<Self> {
        let namespace = fresh(&used);
        let Opened { storage, raw } = open(target, &namespace, &calls).await?;
        Ok(Self { storage, raw, target: target.clone(), namespace, used, calls, seed })
    }

    /// What the store says about itself.
    #[must_use]
    pub fn info(&self) -> &BackendInfo {
        self.storage.info()
    }

    /// The capabilities that the target pins.
    #[must_use]
    pub fn required(&self) -> Capabilities {
        self.target.required()
    }

    /// Randomness of this check, the same for the same seed.
    #[must_use]
    pub fn rng(&self) -> Rng {
        Rng::with_seed(self.seed)
    }

    /// The place of the check's own store.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Opens the same store again, as another process would after this one.
    ///
    /// # Errors
    /// Not run where the target is volatile; failed where it cannot be opened.
    pub async fn open_again(&self) -> Outcome<Storage> {
        Ok(self.opened_again().await?.storage)
    }

    async fn opened_again(&self) -> Outcome<Opened> {
        if self.target.is_volatile() {
            return Err(Failure::NotRun("the target is volatile: opening it again gives an empty store".into()));
        }
        open(&self.target, &self.namespace, &self.calls).await
    }

    /// Another handle that sees the same values: another instance where the declared consistency promises that it sees
    /// them, otherwise the same one.
    ///
    /// # Errors
    /// Failed where it cannot be opened.
    pub async fn second_handle(&self) -> Outcome<Storage> {
        Ok(self.second().await?.storage)
    }

    async fn second(&self) -> Outcome<Opened> {
        if self.target.is_volatile() || self.info().consistency == Consistency::ProcessLocal {
            let same = |s: &Storage| Storage::from_arc(s.backend().clone());
            return Ok(Opened { storage: same(&self.storage), raw: same(&self.raw) });
        }
        self.opened_again().await
    }

    /// [`storage`](Self::storage) and a second handle, and both below the log of calls: to note a call takes about as long as a
    /// call to a store in memory, so that two which are noted hardly ever meet.
    pub(crate) async fn raw_handles(&self) -> Outcome<([Storage; 2], [Storage; 2])> {
        let other = self.second().await?;
        Ok(([self.storage.clone(), other.storage], [self.raw.clone(), other.raw]))
    }

    /// The log of the check's calls.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// What the target says about itself.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Another process with a task on the check's own store.
    ///
    /// # Errors
    /// Not run where another process cannot see that store; failed where none can be started.
    pub(crate) fn process(&self, task: &str, argument: u64) -> Outcome<Process> {
        if self.target.is_one_process() {
            return Err(Failure::NotRun("another process cannot see the store".into()));
        }
        Process::noted(&self.target, self.namespace.place(), task, argument, self.seed, self.calls.clone())
    }

    /// Another process with a task on a store of its own, which is behind a proxy.
    pub(crate) fn process_elsewhere(&self, task: &str, argument: u64) -> Outcome<Process> {
        let namespace = Namespace::proxied();
        self.keep(&namespace);
        Process::noted(&self.target, namespace.place(), task, argument, self.seed, self.calls.clone())
    }

    /// Opens another, empty store in this namespace, and keeps the namespace until the check is over.
    pub(crate) async fn open_in(&self, namespace: &Namespace) -> Outcome<Storage> {
        self.keep(namespace);
        Ok(open(&self.target, namespace, &self.calls).await?.storage)
    }

    /// The check's own store, opened to read only; `None` where the target does not say how.
    ///
    /// # Errors
    /// Failed where it cannot be opened.
    pub(crate) async fn open_to_read(&self) -> Outcome<Option<Storage>> {
        match self.target.open_to_read(&self.namespace).await {
            Some(backend) => Ok(Some(opened(backend, &self.calls)?.storage)),
            None => Ok(None),
        }
    }

    fn keep(&self, namespace: &Namespace) {
        locked(&self.used).push(namespace.clone());
    }

    /// The plan of faults in the store below a layer.
    ///
    /// # Errors
    /// Not run where the factory has not said which that is.
    pub(crate) fn faults(&self) -> Outcome<&Plan> {
        let plan = self.namespace.plan();
        plan.map(|plan| &**plan).ok_or_else(|| Failure::NotRun("no store below it that the suite can let fail".into()))
    }

    /// Another, empty store of the target.
    ///
    /// # Errors
    /// Failed where it cannot be opened.
    pub async fn other_namespace(&self) -> Outcome<Storage> {
        Ok(open(&self.target, &fresh(&self.used), &self.calls).await?.storage)
    }

    /// Whether the profile is `basic`.
    pub(crate) fn is_basic(&self) -> bool {
        self.target.is_basic()
    }

    /// `wanted` bytes, or as many as a value can have.
    #[must_use]
    pub fn size(&self, wanted: usize) -> usize {
        usize::try_from(self.info().limits.value).map_or(wanted, |limit| limit.min(wanted))
    }
}

fn fresh(used: &Used) -> Namespace {
    let namespace = Namespace::new();
    locked(used).push(namespace.clone());
    namespace
}

/// A store whose calls are noted, and itself.
struct Opened {
    storage: Storage,
    raw: Storage,
}

async fn open(target: &Target, namespace: &Namespace, calls: &Calls) -> Outcome<Opened> {
    opened(target.open(namespace).await, calls)
}

fn opened(opened: storage_core::Result<Arc<dyn StorageBackend>>, calls: &Calls) -> Outcome<Opened> {
    match opened {
        Ok(backend) => {
            let traced: Arc<dyn StorageBackend> = Arc::new(Traced::new(backend.clone(), calls));
            Ok(Opened { storage: Storage::from_arc(traced), raw: Storage::from_arc(backend) })
        }
        Err(e) => Err(format!("expected the target's factory to open a store, saw {e:?}").into()),
    }
}
