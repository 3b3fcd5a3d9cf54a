//! The place of one store, and what lies between it and the backend.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, Weak},
};

use serde::{Deserialize, Serialize};
use storage_core::{Error, ErrorKind, Result, Storage, StorageBackend};
use tempfile::TempDir;

use crate::{Failure, Faults, Outcome, faults::Plan, proxy::Proxy, support::locked};

/// The place of one store, which no other check uses.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    place: Place,
    dir: OnceLock<Directory>,
    /// The faults in a store below a layer; none until a check plants some.
    plan: OnceLock<Arc<Plan>>,
    /// The store below a layer, while an instance of it lives.
    below: Mutex<Option<Weak<dyn StorageBackend>>>,
    proxy: OnceLock<Proxy>,
    http: OnceLock<()>,
    opened: OnceLock<()>,
}

/// What of a namespace another process has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    name: String,
    dir: Option<PathBuf>,
    proxied: bool,
}

#[derive(Debug)]
struct Directory {
    root: PathBuf,
    /// Removed with the namespace; `None` where another process owns it.
    _owned: Option<TempDir>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        // Not from the seed: on a shared server two runs with the same seed must not meet.
        let name = format!("c{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..));
        Self::at(Place { name, dir: None, proxied: false })
    }

    /// The same namespace as another process has, or one in a given directory.
    pub(crate) fn at(place: Place) -> Self {
        let dir = OnceLock::new();
        if let Some(root) = place.dir.clone() {
            // It was empty until now.
            let _ = dir.set(Directory { root, _owned: None });
        }
        Self(Arc::new(Inside {
            place,
            dir,
            plan: OnceLock::new(),
            below: Mutex::new(None),
            proxy: OnceLock::new(),
            http: OnceLock::new(),
            opened: OnceLock::new(),
        }))
    }

    /// Another namespace, in this directory.
    pub(crate) fn in_dir(root: &Path) -> Self {
        let name = Self::new().0.place.name.clone();
        Self::at(Place { name, dir: Some(root.to_owned()), proxied: false })
    }

    /// Another namespace, behind a proxy if its factory asks for the address.
    pub(crate) fn proxied() -> Self {
        let name = Self::new().0.place.name.clone();
        Self::at(Place { name, dir: None, proxied: true })
    }

    /// The same namespace without the proxy.
    pub(crate) fn direct(&self) -> Self {
        Self::at(Place { proxied: false, ..self.place() })
    }

    /// What another process has to know of it.
    pub(crate) fn place(&self) -> Place {
        Place { dir: self.0.dir.get().map(|dir| dir.root.clone()), ..self.0.place.clone() }
    }

    /// A unique name of 25 characters, `a` to `z` and `0` to `9`, the first a letter: for a table, a prefix, a bucket.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.place.name
    }

    /// An empty directory, made at the first call and removed when the check is over.
    ///
    /// # Panics
    /// When no temporary directory can be made; the check then fails with that message.
    #[must_use]
    pub fn dir(&self) -> &Path {
        let directory = self.0.dir.get_or_init(|| {
            let outer = tempfile::Builder::new()
                // Small and capital letters, so that what folds case is always seen.
                .prefix("Storage-conformance-")
                .tempdir()
                .expect("a temporary directory can be made");
            // One level down, so that a check can see what escapes from it.
            let root = outer.path().join("root");
            fs::create_dir(&root).expect("a temporary directory can be made");
            Directory { root, _owned: Some(outer) }
        });
        self.0.opened.get_or_init(|| ());
        &directory.root
    }

    /// Whether the factory asked for the directory.
    pub(crate) fn uses_dir(&self) -> bool {
        self.0.opened.get().is_some()
    }

    /// The store below a layer, as the factory of a layer must give it to the layer: then the suite can let it fail, and see
    /// what the layer makes of it.
    pub fn below<B: StorageBackend>(&self, store: B) -> Faults<B> {
        let faults = Faults::with_plan(store, self.0.plan.get_or_init(|| Arc::new(Plan::new(0))).clone());
        let below: Weak<dyn StorageBackend> = Arc::downgrade(faults.inner()) as _;
        *locked(&self.0.below) = Some(below);
        faults
    }

    /// The store that the factory gave to [`below`](Self::below) last, without faults: for those who change something behind
    /// the layer's back.
    ///
    /// # Errors
    /// `NotFound` when there is none, or no more.
    pub fn stored_below(&self) -> Result<Storage> {
        let below = locked(&self.0.below);
        let living = below.as_ref().and_then(Weak::upgrade);
        living.map(Storage::from_arc).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "no store below a layer: the factory must pass it through `Namespace::below`",
            )
        })
    }

    /// The faults of the store below, if the factory said which that is.
    pub(crate) fn plan(&self) -> Option<&Arc<Plan>> {
        self.0.plan.get()
    }

    /// The address to connect to in place of a server's `host:port`: that address itself, or in checks that cut the network
    /// the address of a proxy.
    ///
    /// # Errors
    /// `Other` when the proxy cannot be started.
    pub fn address(&self, server: &str) -> Result<String> {
        if !self.0.place.proxied {
            return Ok(server.to_owned());
        }
        if let Some(proxy) = self.0.proxy.get() {
            return Ok(proxy.address());
        }
        let proxy = Proxy::start(server)?;
        Ok(self.0.proxy.get_or_init(|| proxy).address())
    }

    /// The same for a server that speaks HTTP/1 in plain text: then the suite also gives answers in its place.
    ///
    /// # Errors
    /// As of [`address`](Self::address).
    pub fn http_address(&self, server: &str) -> Result<String> {
        self.0.http.get_or_init(|| ());
        self.address(server)
    }

    /// The proxy before the server.
    ///
    /// # Errors
    /// Not run where the factory has not asked for the address.
    pub(crate) fn network(&self) -> Outcome<&Proxy> {
        let none = || Failure::NotRun("it reaches no server through an address of the suite".into());
        self.0.proxy.get().ok_or_else(none)
    }

    /// Whether the server behind the proxy is known to speak HTTP.
    pub(crate) fn speaks_http(&self) -> bool {
        self.0.http.get().is_some()
    }
}
