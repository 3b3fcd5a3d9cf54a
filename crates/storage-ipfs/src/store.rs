//! A connected store, and a view of it: as it is, or within a transaction.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, LazyLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cid::Cid;
use futures_util::future::BoxFuture;
use storage_core::{
    BackendInfo, Entry, Error, ErrorKind, Etag, GetOptions, Key, Object, Result, StatOptions, StorageBackend,
    pending::{Keys, Settled},
};
use tokio::{
    sync::{Mutex, OwnedRwLockWriteGuard, RwLock},
    time::{Instant, sleep},
};

use crate::{
    Config,
    blocks::Blocks,
    car::Live,
    commits::Commits,
    error,
    node::Node,
    pinning::Service,
    record::{self, Count, Names},
    sweep::Sweeper,
    task::Tasks,
    transaction::Open,
    unixfs::Part,
};

/// The content of keys. What it says of a key is never believed before the index has said the same.
pub(crate) type Recent = moka::sync::Cache<Key, Part>;

/// Of how many keys it is remembered.
const RECENT: u64 = 4096;

/// How long a write is tried again that other writers of the index were faster than.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Store {
    pub(crate) info: BackendInfo,
    pub(crate) config: Config,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) index: Arc<dyn StorageBackend>,
    /// Whether nobody else has the index.
    pub(crate) owns_index: bool,
    pub(crate) names: Names,
    pub(crate) tasks: Tasks,
    /// Writers of this instance change the index one after the other, so that they do not meet there.
    pub(crate) turn: Mutex<()>,
    /// Shared by open transactions, of all instances in this process. A sweep writes to the index while there are none, so that it is no conflict to them.
    pub(crate) calm: Arc<RwLock<()>>,
    closed: AtomicBool,
    /// What pins of this store are called.
    pub(crate) pin_name: String,
    pub(crate) id: String,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) pinning: Option<Service>,
    /// What CARs are made of at the moment.
    pub(crate) cars: Live,
    /// Writes of one key that wait for the index.
    pub(crate) commits: Commits,
    /// The content that keys had when they were last seen here.
    pub(crate) recent: Recent,
}

/// Why a write did not happen.
pub(crate) enum Failure {
    /// This content may not be pinned any more.
    Unpinned(Cid),
    Error(Error),
    /// An error in the middle of the changes.
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

/// The outcome of a write, or the content that must be pinned first.
pub(crate) type Outcome<T> = Result<T, Cid>;

/// What changes the index within a transaction of it. It may be run several times.
pub(crate) type Job<T> = Box<dyn Fn(Arc<dyn StorageBackend>) -> BoxFuture<'static, Result<T, Failure>> + Send + Sync>;

impl Store {
    pub(crate) fn new(
        info: BackendInfo,
        config: Config,
        blocks: Blocks,
        (index, owns_index): (Arc<dyn StorageBackend>, bool),
        id: String,
        tasks: Tasks,
    ) -> Result<Self> {
        Ok(Self {
            pinning: Service::new(&config, &pin_name(&id))?,
            info,
            names: Names::new(&config.prefix, &id),
            config,
            blocks: Arc::new(blocks),
            index,
            owns_index,
            tasks,
            turn: Mutex::new(()),
            calm: calm_of(&id),
            closed: AtomicBool::new(false),
            pin_name: pin_name(&id),
            cars: Live::default(),
            commits: Commits::default(),
            recent: Recent::new(RECENT),
            id,
            sweeper: Arc::default(),
        })
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// Whether it was open.
    pub(crate) fn close(&self) -> bool {
        self.sweeper.wake();
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// The node, unless the store is read through a gateway.
    pub(crate) fn node(&self) -> Result<&Arc<Node>> {
        self.blocks.node().ok_or_else(error::read_only)
    }

    /// An error of the index as one of this store, whose keys are others.
    pub(crate) fn own(&self, e: Error) -> Error {
        e.map_key(|key| self.names.own(&key).ok().filter(|own| own.as_str().len() < key.as_str().len()))
    }

    /// Waits until no transaction of this process is open, but not for ever.
    pub(crate) async fn calm(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        let begun = Instant::now();
        loop {
            // Nobody waits in line for it, which would hold up new transactions.
            match self.calm.clone().try_write_owned() {
                Ok(guard) => return Some(guard),
                Err(_) if begun.elapsed() > PATIENCE => return None,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// The index's time.
    pub(crate) async fn now(&self) -> Result<std::time::SystemTime> {
        let clock = Key::parse("s/clock")?;
        let written = self.index.put(&clock, "".into(), Default::default()).await?;
        let modified = match written.modified {
            Some(modified) => Some(modified),
            None => self.index.stat(&clock, StatOptions::new()).await?.and_then(|entry| entry.modified),
        };
        modified.ok_or_else(|| Error::new(ErrorKind::Config, "the index has no dates; choose another store for it"))
    }

    /// Runs a job in a transaction of the index, again if another writer was faster.
    async fn transact<T>(self: &Arc<Self>, keys: Keys, job: Job<T>) -> Result<Outcome<T>>
    where
        T: Send + 'static,
    {
        let store = self.clone();
        let done = self.tasks.run(keys, move |commit| async move {
            let _turn = store.turn.lock().await;
            let begun = Instant::now();
            let mut pause = Duration::from_millis(2);
            loop {
                commit.check()?;
                let tx = store.index.begin().await?;
                let done = match job(tx.clone()).await {
                    Ok(value) => {
                        commit.begin()?;
                        tx.commit().await.map(|()| value)
                    }
                    Err(failure) => {
                        // Why it did not happen says more than a failing rollback.
                        let _ = tx.rollback().await;
                        match failure {
                            Failure::Unpinned(cid) => return Ok(Err(cid)),
                            Failure::Error(e) | Failure::Broken(e) => Err(e),
                        }
                    }
                };
                match done {
                    Ok(value) => return Ok(Ok(value)),
                    Err(e) if e.kind() == ErrorKind::Conflict && !e.is_ambiguous() && begun.elapsed() < PATIENCE => {
                        sleep(pause.mul_f64(fastrand::f64())).await;
                        pause = (pause * 3 / 2).min(Duration::from_millis(500));
                    }
                    Err(e) => return Err(e),
                }
            }
        });
        done.await.map_err(|e| self.own(e))
    }
}

/// What all instances of the store with this id share in this process.
fn calm_of(id: &str) -> Arc<RwLock<()>> {
    static ALL: LazyLock<std::sync::Mutex<HashMap<String, Weak<RwLock<()>>>>> = LazyLock::new(Default::default);
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, calm| calm.strong_count() > 0);
    let calm = all.get(id).and_then(Weak::upgrade).unwrap_or_default();
    all.insert(id.to_owned(), Arc::downgrade(&calm));
    calm
}

/// What pins of the store with this id are called.
pub(crate) fn pin_name(id: &str) -> String {
    format!("storage-ipfs:{id}")
}

impl Drop for Store {
    fn drop(&mut self) {
        self.sweeper.wake();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What calls go through: the store, or a transaction of it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) store: Arc<Store>,
    pub(crate) open: Option<Arc<Open>>,
}

impl Session {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, open: None }
    }

    /// The index as this session sees it.
    pub(crate) fn view(&self) -> Arc<dyn StorageBackend> {
        match &self.open {
            Some(open) => open.index.clone(),
            None => self.store.index.clone(),
        }
    }

    /// Before each call: the store is open, and what was given up of what it touches has ended.
    pub(crate) async fn ready(&self, touched: Settled) -> Result<()> {
        self.store.check_open()?;
        self.store.tasks.wait(touched).await
    }

    /// What was given up of these keys. A transaction does not wait for it.
    pub(crate) fn keys<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Settled {
        match self.open {
            Some(_) => Settled::default(),
            None => self.store.tasks.writes.settled_keys(keys),
        }
    }

    pub(crate) fn prefix(&self, prefix: &str) -> Settled {
        match self.open {
            Some(_) => Settled::default(),
            None => self.store.tasks.writes.settled_prefix(prefix),
        }
    }

    /// The entry of a key, which may be damaged.
    pub(crate) async fn find(&self, key: &Key) -> Result<Option<Entry>> {
        let record = self.view().stat(&self.store.names.key(key)?, StatOptions::new()).await;
        match record.map_err(|e| self.store.own(e))? {
            Some(record) => record::entry(record, &self.store.names).map(Some),
            None => Ok(None),
        }
    }

    /// The count of some content, and the etag of its record.
    pub(crate) async fn count(&self, cid: &Cid) -> Result<Found> {
        count(&*self.view(), cid).await.map_err(|e| self.store.own(e))
    }

    /// Changes the index: within the transaction, or in one of its own.
    pub(crate) async fn change<T: Send + 'static>(&self, keys: Keys, job: Job<T>) -> Result<Outcome<T>> {
        let Some(open) = &self.open else {
            return self.store.transact(keys, job).await;
        };
        open.check()?;
        match job(open.index.clone()).await {
            Ok(value) => Ok(Ok(value)),
            Err(Failure::Unpinned(cid)) => Ok(Err(cid)),
            Err(Failure::Error(e)) => Err(self.store.own(e)),
            Err(Failure::Broken(e)) => {
                open.doom();
                Err(self.store.own(e))
            }
        }
    }
}

/// The count of some content, and its record.
pub(crate) type Found = Option<(Count, Entry)>;

pub(crate) async fn count(view: &dyn StorageBackend, cid: &Cid) -> Result<Found> {
    counted(view.get(&record::count_key(cid)?, GetOptions::new()).await?).await
}

/// The same of a record that was read.
pub(crate) async fn counted(read: Option<Object>) -> Result<Found> {
    let Some(object) = read else { return Ok(None) };
    let count = Count::read(&object.body.bytes(1 << 20).await?)?;
    Ok(Some((count, object.entry)))
}

/// The etag of a record that may be missing.
pub(crate) fn etag_of(found: Option<&(Count, Entry)>) -> Option<Etag> {
    found.and_then(|(_, record)| record.etag.clone())
}
