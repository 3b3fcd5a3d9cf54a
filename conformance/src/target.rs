//! What the checks run on: a named way to open a store, and the namespaces they open it for.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use futures_util::{FutureExt, future::BoxFuture};
use storage_core::{Capabilities, Result, StorageBackend};
use tempfile::TempDir;

type Open = dyn Fn(Namespace) -> BoxFuture<'static, Result<Arc<dyn StorageBackend>>> + Send + Sync;

/// A store under test.
#[derive(Clone)]
pub struct Target {
    name: String,
    open: Arc<Open>,
    required: Capabilities,
    volatile: bool,
    basic: bool,
    needs_env: Option<String>,
    runs_on: String,
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
        let open = move |namespace| {
            let opening = factory(namespace);
            async move { Ok(Arc::new(opening.await?) as Arc<dyn StorageBackend>) }.boxed()
        };
        Self {
            name: name.into(),
            open: Arc::new(open),
            required: Capabilities::new(),
            volatile: false,
            basic: false,
            needs_env: None,
            runs_on: "embedded".into(),
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

    pub(crate) fn kind(&self) -> &str {
        &self.runs_on
    }

    pub(crate) fn required(&self) -> Capabilities {
        self.required
    }

    pub(crate) fn is_volatile(&self) -> bool {
        self.volatile
    }

    pub(crate) fn is_basic(&self) -> bool {
        self.basic
    }

    pub(crate) async fn open(&self, namespace: &Namespace) -> Result<Arc<dyn StorageBackend>> {
        (self.open)(namespace.clone()).await
    }
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

/// The place of one store, which no other check uses.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Place>);

#[derive(Debug)]
struct Place {
    name: String,
    dir: OnceLock<(TempDir, PathBuf)>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        // Not from the seed: on a shared server two runs with the same seed must not meet.
        let name = format!("c{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..));
        Self(Arc::new(Place { name, dir: OnceLock::new() }))
    }

    /// A unique name of 25 characters, `a` to `z` and `0` to `9`, the first a letter: for a table, a prefix, a bucket.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// An empty directory, made at the first call and removed when the check is over.
    ///
    /// # Panics
    /// When no temporary directory can be made; the check then fails with that message.
    #[must_use]
    pub fn dir(&self) -> &Path {
        let (_, root) = self.0.dir.get_or_init(|| {
            let outer = tempfile::Builder::new()
                .prefix("storage-conformance-")
                .tempdir()
                .expect("a temporary directory can be made");
            // One level down, so that a check can see what escapes from it.
            let root = outer.path().join("root");
            fs::create_dir(&root).expect("a temporary directory can be made");
            (outer, root)
        });
        root
    }
}
