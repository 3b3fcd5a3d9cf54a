//! What the checks run on: a named way to open a store, and the namespaces they open it for.

use std::{collections::BTreeSet, env, fmt, path::Path, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use storage_core::{Bytes, Capabilities, Key, Result, StorageBackend};

pub(crate) use crate::namespace::Place;
use crate::{Namespace, cleanup::Cleanup, secrets::Secrets};

type Open = dyn Fn(Namespace) -> BoxFuture<'static, Result<Arc<dyn StorageBackend>>> + Send + Sync;
type Damage = dyn Fn(Namespace, Key) -> BoxFuture<'static, Result<()>> + Send + Sync;
type Store = dyn Fn(Namespace, Key, Bytes) -> BoxFuture<'static, Result<()>> + Send + Sync;
type Plant = dyn Fn(Namespace) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// A store under test.
#[derive(Clone)]
pub struct Target {
    name: String,
    open: Arc<Open>,
    required: Capabilities,
    volatile: bool,
    one_process: bool,
    basic: bool,
    needs_env: Option<String>,
    runs_on: String,
    secrets: Secrets,
    patience: Duration,
    foreign: Option<Arc<Plant>>,
    damage: Option<Arc<Damage>>,
    others: Option<Arc<Store>>,
    read_only: Option<Arc<Open>>,
    leftovers: Option<fn(&Path) -> usize>,
    cleanup: Option<Cleanup>,
    group: Option<String>,
    slow: bool,
    unsteady: BTreeSet<String>,
}

impl Target {
    /// A target. The factory is called for every check, and several times with the same [`Namespace`]: then it opens the
    /// same store again. For another namespace it opens another store, which is empty.
    pub fn new<F, Fut, B>(name: impl Into<String>, factory: F) -> Self
    where
        F: Fn(Namespace) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B>> + Send + 'static,
        B: StorageBackend,
    {
        Self {
            name: name.into(),
            open: opening(factory),
            required: Capabilities::new(),
            volatile: false,
            one_process: false,
            basic: false,
            needs_env: None,
            runs_on: "embedded".into(),
            secrets: Secrets::default(),
            patience: Duration::ZERO,
            foreign: None,
            damage: None,
            others: None,
            read_only: None,
            leftovers: None,
            cleanup: None,
            group: None,
            slow: false,
            unsteady: BTreeSet::new(),
        }
    }

    /// Pins capabilities: an instance that does not declare one of them fails the check `info/required_capabilities`.
    #[must_use]
    pub fn requires(mut self, capabilities: Capabilities) -> Self {
        self.required = capabilities;
        self
    }

    /// Says that a store lives only as long as the instance, so that opening it again gives an empty one.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Says that a store lives only as long as the process, so that another process sees another store.
    #[must_use]
    pub fn one_process(mut self) -> Self {
        self.one_process = true;
        self
    }

    /// Names a secret that the factory uses, a password or a key, which no error, `Debug` or log line may contain, in
    /// whatever notation.
    #[must_use]
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        // An empty one, as of a server that is not named, would be found everywhere.
        if !secret.as_ref().is_empty() {
            self.secrets.add(secret.as_ref());
        }
        self
    }

    /// Says how others leave things in the store under names that the backend would not use. It is called for a namespace
    /// that has been opened.
    #[must_use]
    pub fn foreign<F, Fut>(mut self, plant: F) -> Self
    where
        F: Fn(Namespace) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.foreign = Some(Arc::new(move |namespace| plant(namespace).boxed()));
        self
    }

    /// Says how others damage the value of a key, which exists: its record, its framing or its metadata is there afterwards,
    /// and cannot be read. For a layer that is often a `put` into [`Namespace::stored_below`].
    #[must_use]
    pub fn damage<F, Fut>(mut self, damage: F) -> Self
    where
        F: Fn(Namespace, Key) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.damage = Some(Arc::new(move |namespace, key| damage(namespace, key).boxed()));
        self
    }

    /// Says how others store a value under a key: a plain file, an object, without whatever record the backend keeps beside. It
    /// is left out where there is no such thing, or where it is refused: by a layer that authenticates what it reads.
    #[must_use]
    pub fn stored_by_others<F, Fut>(mut self, store: F) -> Self
    where
        F: Fn(Namespace, Key, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.others = Some(Arc::new(move |namespace, key, value| store(namespace, key, value).boxed()));
        self
    }

    /// Says how the store of a namespace, which is there, is opened to read only: by an option of the backend, or as somebody who
    /// may not write.
    #[must_use]
    pub fn read_only<F, Fut, B>(mut self, factory: F) -> Self
    where
        F: Fn(Namespace) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B>> + Send + 'static,
        B: StorageBackend,
    {
        self.read_only = Some(opening(factory));
        self
    }

    /// Counts what unfinished writes of processes that have ended left in [`Namespace::dir`]. When the store has been
    /// opened again it must be 0.
    #[must_use]
    pub fn leftovers(mut self, count: fn(&Path) -> usize) -> Self {
        self.leftovers = Some(count);
        self
    }

    /// Says how to remove a namespace from a server when a check is over. It is called for each namespace of a check that has
    /// not failed, even if nothing was stored there, when all that the check began has ended: one after the other, in a runtime
    /// that is no check's and lasts until the end of the run, and [`Namespace::address`] gives it the server itself. It has ten
    /// seconds, or as long as a call of a slow store; after one that takes longer no more are tried. What cannot be removed is told on stderr, once, and fails
    /// no check. After a failed check everything stays, and the failure names it.
    #[must_use]
    pub fn cleanup<F, Fut>(mut self, remove: F) -> Self
    where
        F: Fn(Namespace) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.cleanup = Some(Cleanup::new(remove));
        self
    }

    /// Chooses the profile `basic`: values under keys, without metadata, etags and dates. See the README.
    #[must_use]
    pub fn basic(mut self) -> Self {
        self.basic = true;
        self
    }

    /// Names the environment variable that says where the server is. While it is not set, no check runs, and the report
    /// says so; with `STORAGE_TEST_REQUIRE=1` all fail.
    #[must_use]
    pub fn needs_env(mut self, variable: impl Into<String>) -> Self {
        self.needs_env = Some(variable.into());
        self
    }

    /// Says what kind of store it runs on, for the reports: `server`, `vendor emulator`, `third-party emulator`. Without it,
    /// `embedded`.
    #[must_use]
    pub fn runs_on(mut self, kind: impl Into<String>) -> Self {
        self.runs_on = kind.into();
        self
    }

    /// Gives each call at least this long, a check five times as long, and a namespace as long to be removed: for a store that is
    /// slow, as emulators are.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Puts the target into a group of targets that share most of their code. A run that is short of time
    /// (`STORAGE_CONFORMANCE_SAMPLE=1`) runs each check on one of them only, and reports that the others left it out.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// The target needs much longer than others of its [group](Self::group), as files do beside memory: a sample gives it a quarter of
    /// what it gives another.
    #[must_use]
    pub fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.slow
    }

    /// Checks (`group/name`) that this server is known to fail now and then, for a reason that its documentation gives: a
    /// [sample](crate::Selection::sample) runs them on another target of the [group](Self::group). A run of everything runs them here too, and
    /// they fail like any other.
    #[must_use]
    pub fn unsteady<'a>(mut self, checks: impl IntoIterator<Item = &'a str>) -> Self {
        self.unsteady.extend(checks.into_iter().map(str::to_owned));
        self
    }

    pub(crate) fn is_unsteady(&self, check: &str) -> bool {
        self.unsteady.contains(check)
    }

    /// The name, as it is in trial names and reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why no check can run here, if so.
    #[must_use]
    pub fn unavailable(&self) -> Option<String> {
        let variable = self.needs_env.as_ref()?;
        match env::var_os(variable) {
            Some(value) if !value.is_empty() => None,
            _ => Some(format!("{variable} is not set, it must name the server")),
        }
    }

    pub(crate) fn is_on_server(&self) -> bool {
        self.needs_env.is_some()
    }

    pub(crate) fn knows_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    pub(crate) fn of_group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// The environment variable that says where its server is.
    pub(crate) fn variable(&self) -> Option<&str> {
        self.needs_env.as_deref()
    }

    pub(crate) fn kind(&self) -> &str {
        &self.runs_on
    }

    pub(crate) fn time_limit(&self, usual: Duration) -> Duration {
        usual.max(self.patience)
    }

    pub(crate) fn required(&self) -> Capabilities {
        self.required
    }

    pub(crate) fn is_volatile(&self) -> bool {
        self.volatile
    }

    pub(crate) fn is_one_process(&self) -> bool {
        self.one_process || self.volatile
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Plants what others leave in a store; `None` when nobody has said how.
    pub(crate) fn plant(&self, namespace: &Namespace) -> Option<BoxFuture<'static, Result<()>>> {
        self.foreign.as_ref().map(|plant| plant(namespace.clone()))
    }

    /// Damages the value of a key; `None` when nobody has said how.
    pub(crate) fn damaging(&self, namespace: &Namespace, key: Key) -> Option<BoxFuture<'static, Result<()>>> {
        self.damage.as_ref().map(|damage| damage(namespace.clone(), key))
    }

    /// Stores a value as others do; `None` when nobody has said how.
    pub(crate) fn storing(
        &self,
        namespace: &Namespace,
        key: Key,
        value: Bytes,
    ) -> Option<BoxFuture<'static, Result<()>>> {
        self.others.as_ref().map(|store| store(namespace.clone(), key, value))
    }

    /// What unfinished writes left; 0 when nobody has said how to count.
    pub(crate) fn left(&self, namespace: &Namespace) -> usize {
        self.leftovers.map_or(0, |count| count(namespace.dir()))
    }

    /// How namespaces are removed from a server; `None` when nobody has said how.
    pub(crate) fn removal(&self) -> Option<&Cleanup> {
        self.cleanup.as_ref()
    }

    /// Waits until the namespaces are removed of all checks that are over.
    pub(crate) fn finish(&self) {
        if let Some(cleanup) = &self.cleanup {
            cleanup.finish();
        }
    }

    pub(crate) fn is_basic(&self) -> bool {
        self.basic
    }

    pub(crate) async fn open(&self, namespace: &Namespace) -> Result<Arc<dyn StorageBackend>> {
        (self.open)(namespace.clone()).await
    }

    /// Opens it to read only; `None` when nobody has said how.
    pub(crate) async fn open_to_read(&self, namespace: &Namespace) -> Option<Result<Arc<dyn StorageBackend>>> {
        let open = self.read_only.as_ref()?;
        Some(open(namespace.clone()).await)
    }
}

fn opening<F, Fut, B>(factory: F) -> Arc<Open>
where
    F: Fn(Namespace) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<B>> + Send + 'static,
    B: StorageBackend,
{
    Arc::new(move |namespace| {
        let opening = factory(namespace);
        async move { Ok(Arc::new(opening.await?) as Arc<dyn StorageBackend>) }.boxed()
    })
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("required", &self.required)
            .field("volatile", &self.volatile)
            .field("basic", &self.basic)
            .field("needs_env", &self.needs_env)
            .finish_non_exhaustive()
    }
}

/// What [`main!`](crate::main) takes: a [`Target`], or a factory that becomes one with the package's name.
pub trait IntoTarget {
    /// The target.
    fn into_target(self, name: &str) -> Target;
}

impl IntoTarget for Target {
    fn into_target(self, _: &str) -> Target {
        self
    }
}

impl<F, Fut, B> IntoTarget for F
where
    F: Fn(Namespace) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<B>> + Send + 'static,
    B: StorageBackend,
{
    fn into_target(self, name: &str) -> Target {
        Target::new(name, self)
    }
}
