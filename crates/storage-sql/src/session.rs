//! How an operation gets at the database: outside of a transaction or within one.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use storage_core::{BackendInfo, Error, ErrorKind, Etag, Result};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::{
    dialect::{Connection, Database, Row, Tables, Value},
    task::Tasks,
    transaction::{Open, ended},
};

/// What all sessions of one backend share.
pub(crate) struct Store {
    pub(crate) info: Arc<BackendInfo>,
    pub(crate) database: Box<dyn Database>,
    pub(crate) tables: Tables,
    /// The metadata fields known to be indexed.
    pub(crate) indexed: Vec<String>,
    pub(crate) chunk_size: usize,
    pub(crate) busy_timeout: Duration,
    /// Writers of this process queue here in order; the database's own lock is not fair.
    pub(crate) writer: Arc<Semaphore>,
    pub(crate) tasks: Tasks,
}

/// A way to the database. A session of a transaction does not keep it alive.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) store: Arc<Store>,
    transaction: Option<Weak<Mutex<Open>>>,
}

/// What a job works with: one connection, in a transaction if it writes.
pub(crate) struct Db<'c> {
    pub(crate) store: &'c Store,
    pub(crate) connection: &'c mut dyn Connection,
}

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

    /// What a new entry gets, and the time.
    pub(crate) async fn next_version(&mut self) -> Result<(Version, i64)> {
        let sql = self.store.database.next_version(&self.store.tables);
        let row = self.fetch_one(sql, vec![]).await?;
        let mut row =
            row.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the table with the schema version is empty"))?;
        Ok((Version::from_row(&mut row)?, row.int()?))
    }
}

/// What names a write. The number alone would be used again after a rollback, or in a database that was restored or created
/// anew; the random part is what makes an etag unique.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) number: i64,
    pub(crate) nonce: i64,
}

impl Version {
    /// From the columns `version` and `nonce`.
    pub(crate) fn from_row(row: &mut Row) -> Result<Self> {
        Ok(Self { number: row.int()?, nonce: row.int()? })
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
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl for<'c> FnOnce(Db<'c>) -> BoxFuture<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let session = self.clone();
        let run = self.store.tasks.run(|fate| async move {
            let (store, _fate) = (&*session.store, fate);
            match session.open()? {
                None => {
                    let mut connection = store.database.acquire().await?;
                    let connection = &mut *connection;
                    job(Db { store, connection }).await
                }
                Some(open) => open.lock_owned().await.read(store, job).await,
            }
        });
        run.await
    }

    /// Runs a job that writes, as a whole or not at all.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl for<'c> FnOnce(Db<'c>) -> BoxFuture<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let session = self.clone();
        let run = self.store.tasks.run(|fate| async move {
            let store = &*session.store;
            if let Some(open) = session.open()? {
                // A job that is dropped half way would leave its first half in the transaction.
                fate.seal()?;
                return open.lock_owned().await.write(store, job).await;
            }
            let permit = permit(store, store.busy_timeout).await?;
            let _permit = permit.ok_or_else(|| {
                Error::new(
                    ErrorKind::Timeout,
                    "another writer or an open transaction kept the database locked; try again, or raise `busy_timeout`",
                )
            })?;
            let mut connection = store.database.acquire().await?;
            let connection = &mut *connection;
            connection.begin(&store.tables, true).await?;
            let result = job(Db { store, connection }).await;
            match result.and_then(|value| fate.seal().map(|()| value)) {
                Ok(value) => {
                    connection.commit().await?;
                    Ok(value)
                }
                Err(e) => {
                    // If this fails too, the connection is closed, which has the same effect.
                    let _ = connection.rollback().await;
                    Err(e)
                }
            }
        });
        run.await
    }

    /// Begins a transaction. It lives as long as what is returned beside its session.
    pub(crate) async fn begin(&self) -> Result<(Self, Arc<Mutex<Open>>)> {
        let session = self.clone();
        let run = self.store.tasks.run(|fate| async move {
            let _fate = fate;
            session.open()?;
            let store = session.store.clone();
            let mut connection = store.database.acquire().await?;
            connection.begin(&store.tables, false).await?;
            let open = Arc::new(Mutex::new(Open::new(connection)));
            let transaction = Some(Arc::downgrade(&open));
            Ok((Self { store, transaction }, open))
        });
        run.await
    }

    /// Ends the transaction of this session.
    pub(crate) async fn end(&self, commit: bool) -> Result<()> {
        let session = self.clone();
        let run = self.store.tasks.run(|fate| async move {
            let open = session.open()?.ok_or_else(ended)?;
            open.lock_owned().await.end(commit, &fate).await
        });
        run.await
    }

    pub(crate) async fn is_connected(&self) -> bool {
        let ping = self.read(|mut db| {
            Box::pin(async move {
                let sql = format!("SELECT one FROM {}", db.store.tables.meta);
                Ok(db.fetch_one(sql, vec![]).await?.is_some())
            })
        });
        ping.await.unwrap_or(false)
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
