//! How an operation gets at the database: outside of a transaction or within one.

use std::{
    collections::BTreeMap,
    error::Error as _,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use storage_core::{BackendInfo, Error, ErrorKind, Etag, Result, VersionId, pending::Commit};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::{
    dialect::{Begin, Dialect, Tables},
    error::while_writing,
    pool::{Connection, Database},
    reserve::{self, Claims},
    staging::Abandoned,
    task::Tasks,
    transaction::{Open, ended},
    turn::Turn,
    value::{Row, Value},
};

/// How often a write that another was faster than is made again, at rising intervals from the first.
const ATTEMPTS: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// How often something that does no harm is tried on another connection when one turns out to be broken.
const RECONNECTS: u32 = 10;

/// What all sessions of one backend share.
pub(crate) struct Store {
    pub(crate) info: Arc<BackendInfo>,
    pub(crate) database: Box<dyn Database>,
    pub(crate) dialect: &'static dyn Dialect,
    pub(crate) tables: Tables,
    /// The metadata fields known to be indexed, and the numbers that stand for them.
    pub(crate) indexed: BTreeMap<String, i64>,
    pub(crate) chunk_size: usize,
    pub(crate) busy_timeout: Duration,
    /// How many versions are kept, if older ones are kept at all.
    pub(crate) versions: Option<i64>,
    /// Writers of this process queue here in order where there can be only one; the database's own lock is not fair.
    pub(crate) writer: Arc<Semaphore>,
    /// The process's turn among others.
    pub(crate) turn: Turn,
    /// What transactions have lost to other writers.
    pub(crate) claims: Claims,
    pub(crate) abandoned: Abandoned,
    pub(crate) tasks: Tasks,
}

/// A way to the database. A session of a transaction does not keep it alive.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) store: Arc<Store>,
    transaction: Option<Weak<Mutex<Open>>>,
}

/// What a job works with: one connection.
pub(crate) struct Db<'c> {
    pub(crate) store: &'c Store,
    pub(crate) connection: &'c mut dyn Connection,
    /// Whether it is in a caller's transaction.
    pub(crate) snapshot: bool,
}

/// A piece of work that can be done again.
pub(crate) trait Job<T>: for<'c> Fn(Db<'c>) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static {}

impl<T, F: for<'c> Fn(Db<'c>) -> BoxFuture<'c, Result<T>> + Send + Sync + 'static> Job<T> for F {}

impl Db<'_> {
    pub(crate) async fn execute(&mut self, sql: String, arguments: Vec<Value>) -> Result<u64> {
        self.connection.execute(sql, arguments).await
    }

    pub(crate) async fn fetch(&mut self, sql: String, arguments: Vec<Value>) -> Result<Vec<Row>> {
        self.connection.fetch(sql, arguments).await
    }

    pub(crate) async fn fetch_one(&mut self, sql: String, arguments: Vec<Value>) -> Result<Option<Row>> {
        Ok(self.fetch(sql, arguments).await?.pop())
    }

    /// Makes room for so many new versions.
    pub(crate) async fn advance(&mut self, versions: usize) -> Result<()> {
        match self.store.dialect.advance(&self.store.tables, versions) {
            Some(sql) => self.execute(sql, vec![]).await.map(drop),
            None => Ok(()),
        }
    }
}

/// What names a write. The number alone would be used again in a database that was restored or created anew; the random part
/// is what makes an etag unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) number: i64,
    pub(crate) nonce: i64,
}

impl Version {
    /// From the columns `version` and `nonce`.
    pub(crate) fn from_row(row: &mut Row) -> Result<Self> {
        Ok(Self { number: row.int()?, nonce: row.int()? })
    }

    /// From a column that says by a 1 whether the entry is sound, and the columns `version` and `nonce`; `None` if it is not.
    pub(crate) fn sound(row: &mut Row) -> Result<Option<Self>> {
        let sound = row.int()? == 1;
        let (number, nonce) = (row.int(), row.int());
        Ok(number.and_then(|number| Ok(Self { number, nonce: nonce? })).ok().filter(|_| sound))
    }

    /// From what [`etag`](Self::etag) has written; `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, nonce) = text.split_once('-')?;
        let nonce = u64::from_str_radix(nonce, 16).ok()?.cast_signed();
        let version = Self { number: i64::from_str_radix(number, 16).ok()?, nonce };
        (version.etag().as_str() == text).then_some(version)
    }

    pub(crate) fn id(self) -> VersionId {
        VersionId::new(self.etag().as_str())
    }

    pub(crate) fn etag(self) -> Etag {
        Etag::new(format!("{:x}-{:016x}", self.number, self.nonce))
    }
}

impl Session {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, transaction: None }
    }

    /// Runs a job that only reads. Outside of a transaction each of its statements sees its own moment.
    pub(crate) async fn read<T: Send + 'static>(&self, job: impl Job<T>) -> Result<T> {
        let session = self.clone();
        let run = self.store.tasks.run(self.transaction.is_some(), |commit| async move {
            let store = &*session.store;
            if let Some(open) = session.open()? {
                let mut open = open.lock_owned().await;
                // A statement that is cut off takes the connection with it, and so the transaction.
                commit.begin()?;
                return open.read(store, job).await;
            }
            let mut reconnects = 0;
            loop {
                let mut connection = store.database.acquire().await?;
                let done = job(Db { store, connection: &mut *connection, snapshot: false }).await;
                match done {
                    Err(e) if e.kind() == ErrorKind::Unavailable && reconnects < RECONNECTS => reconnects += 1,
                    done => return done,
                }
            }
        });
        run.await
    }

    /// Runs a job that writes, as a whole or not at all.
    pub(crate) async fn write<T: Send + 'static>(&self, job: impl Job<T>) -> Result<T> {
        self.run(job, Some(Begin::Write)).await
    }

    /// The same for a batch, in a transaction that begins so.
    pub(crate) async fn write_batch<T: Send + 'static>(&self, begin: Begin, job: impl Job<T>) -> Result<T> {
        self.run(job, Some(begin)).await
    }

    /// Runs a job that writes by one statement, which is a transaction of its own where that is possible.
    pub(crate) async fn write_once<T: Send + 'static>(&self, job: impl Job<T>) -> Result<T> {
        let begin = self.store.dialect.one_writer().then_some(Begin::Write);
        self.run(job, begin).await
    }

    /// Runs a job that writes, in a transaction that begins so, or by its one statement.
    async fn run<T: Send + 'static>(&self, job: impl Job<T>, begin: Option<Begin>) -> Result<T> {
        let session = self.clone();
        let run = self.store.tasks.run(self.transaction.is_some(), |commit| async move {
            let store = &*session.store;
            if let Some(open) = session.open()? {
                let mut open = open.lock_owned().await;
                // A job that is dropped half way would leave its first half in the transaction. Before it has the lock, a later call
                // could overtake it.
                commit.begin()?;
                return open.write(store, job, begin.is_some()).await;
            }
            let mut pause = FIRST_PAUSE;
            for _ in 0..ATTEMPTS {
                match store.run(&job, begin, &commit).await {
                    Err(e) if e.kind() == ErrorKind::Conflict && e.source().is_some() && !e.is_ambiguous() => {}
                    done => {
                        session.tend_log(false);
                        return done;
                    }
                }
                time::sleep(pause.mul_f64(fastrand::f64())).await;
                pause *= 2;
            }
            store.run(&job, begin, &commit).await
        });
        run.await
    }

    /// Begins a transaction. It lives as long as what is returned beside its session.
    pub(crate) async fn begin(&self) -> Result<(Self, Arc<Mutex<Open>>)> {
        let session = self.clone();
        let run = self.store.tasks.run(self.transaction.is_some(), |commit| async move {
            let _commit = commit;
            session.open()?;
            let store = session.store.clone();
            let open = match reserve::begin(&store).await? {
                Some(open) => open,
                None => Arc::new(Mutex::new(Open::new(store.begin(Begin::Snapshot).await?))),
            };
            let transaction = Some(Arc::downgrade(&open));
            Ok((Self { store, transaction }, open))
        });
        run.await
    }

    /// Ends the transaction of this session.
    pub(crate) async fn end(&self, commit: bool) -> Result<()> {
        let session = self.clone();
        let run = self.store.tasks.run(self.transaction.is_some(), |decision| async move {
            let open = session.open()?.ok_or_else(ended)?;
            let ended = open.lock_owned().await.end(&session.store, commit, &decision).await;
            session.tend_log(true);
            ended
        });
        run.await
    }

    pub(crate) async fn health(&self) -> Result<()> {
        let ping = self.read(|mut db| {
            Box::pin(async move {
                let sql = format!("SELECT one FROM {}", db.store.tables.meta);
                Ok(db.fetch_one(sql, vec![]).await?.is_some())
            })
        });
        if !ping.await? {
            return Err(Error::new(ErrorKind::Corrupt, "the table with the schema version is empty; restore a backup"));
        }
        // What is written to a file that is not there any more is lost, though it answers.
        self.store.database.check()
    }

    /// Starts a job nobody waits for.
    pub(crate) fn detach(&self, job: impl Future<Output = ()> + Send + 'static) {
        self.store.tasks.runtime.spawn(job);
    }

    /// The transaction, if this is a session of one.
    fn open(&self) -> Result<Option<Arc<Mutex<Open>>>> {
        if self.store.database.is_closed() {
            return Err(Error::closed());
        }
        let open = self.transaction.as_ref().map(Weak::upgrade);
        open.map(|open| open.ok_or_else(ended)).transpose()
    }
}

impl Store {
    /// A connection on which a transaction has begun.
    async fn begin(&self, begin: Begin) -> Result<Box<dyn Connection>> {
        let mut reconnects = 0;
        loop {
            let mut connection = self.database.acquire().await?;
            match self.turn.begin(&mut *connection, self.dialect, &self.tables, begin, self.busy_timeout).await {
                Err(e) if e.kind() == ErrorKind::Unavailable && reconnects < RECONNECTS => reconnects += 1,
                done => return done.map(|()| connection),
            }
        }
    }

    async fn run<T>(&self, job: &impl Job<T>, begin: Option<Begin>, commit: &Commit) -> Result<T> {
        match begin {
            Some(begin) => self.transact(job, begin, commit).await,
            None => self.single(job, commit).await,
        }
    }

    async fn transact<T>(&self, job: &impl Job<T>, begin: Begin, commit: &Commit) -> Result<T> {
        let permit = permit(self, self.busy_timeout).await?;
        let _permit = permit.ok_or_else(|| {
            Error::new(
                ErrorKind::Timeout,
                "another writer or an open transaction kept the database locked; try again, or raise `busy_timeout`",
            )
        })?;
        let mut connection = self.begin(begin).await?;
        let result = job(Db { store: self, connection: &mut *connection, snapshot: false }).await;
        match result.and_then(|value| commit.begin().map(|()| value)) {
            // What is acknowledged must be in the file that others find.
            Ok(value) => match self.database.check() {
                Ok(()) => {
                    connection.commit().await?;
                    self.database.check().map_err(Error::ambiguous)?;
                    Ok(value)
                }
                Err(e) => {
                    let _ = connection.rollback().await;
                    Err(e)
                }
            },
            Err(e) => {
                // If this fails too, the connection is closed, which has the same effect.
                let _ = connection.rollback().await;
                Err(e)
            }
        }
    }

    async fn single<T>(&self, job: &impl Job<T>, commit: &Commit) -> Result<T> {
        let mut connection = self.database.acquire().await?;
        // Once it is sent, the database alone decides.
        commit.begin()?;
        job(Db { store: self, connection: &mut *connection, snapshot: false }).await.map_err(while_writing)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("database", &self.store.database)
            .field("table", &self.store.tables.entries)
            .finish_non_exhaustive()
    }
}

/// The turn to write; `None` when it does not come in time.
pub(crate) async fn permit(store: &Store, patience: Duration) -> Result<Option<OwnedSemaphorePermit>> {
    match time::timeout(patience, store.writer.clone().acquire_owned()).await {
        Ok(permit) => permit.map(Some).map_err(|_| Error::closed()),
        Err(_) => Ok(None),
    }
}
