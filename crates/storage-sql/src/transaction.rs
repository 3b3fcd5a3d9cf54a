//! A transaction: a session on one connection, and its end.

use std::{error::Error as _, fmt, sync::Arc, time::Duration};

use storage_core::{Error, ErrorKind, Result, Transaction, async_trait, pending::Commit};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit},
    time::{Instant, sleep},
};

use crate::{
    dialect::Begin,
    pool::Connection,
    reserve::Expiry,
    session::{Db, Job, Session, Store, permit},
};

/// How long a transaction waits for another writer before it gives way with `Conflict`.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a transaction waits at most before it says that another process was faster.
const GIVING_WAY: Duration = Duration::from_millis(10);

/// Sees the store as it was when it began, with its own writes. Its first write takes the only write lock there is, or fails
/// with `Conflict` if anybody has written since; so transactions that write run one after the other.
pub(crate) struct SqlTransaction {
    pub(crate) session: Session,
    /// The only owner: streams that came out of the transaction end with it.
    _open: Arc<Mutex<Open>>,
}

impl SqlTransaction {
    pub(crate) fn new(session: Session, open: Arc<Mutex<Open>>) -> Self {
        Self { session, _open: open }
    }
}

impl fmt::Debug for SqlTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTransaction").field("session", &self.session).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transaction for SqlTransaction {
    async fn commit(&self) -> Result<()> {
        self.session.end(true).await
    }

    async fn rollback(&self) -> Result<()> {
        self.session.end(false).await
    }
}

impl Drop for SqlTransaction {
    fn drop(&mut self) {
        self.session.tend_log(true);
    }
}

/// A transaction that is under way.
pub(crate) struct Open {
    /// `None` once it has ended. Dropped before the permit, so that the next writer finds the lock free.
    connection: Option<Box<dyn Connection>>,
    /// Held from the first write on, or for a moment from the beginning on.
    permit: Option<OwnedSemaphorePermit>,
    /// While its turn is kept for its first write.
    reserved: Option<Expiry>,
    begun: Instant,
    /// Another writer was faster, or the database failed: all that is left is to roll back.
    doomed: bool,
}

impl Open {
    pub(crate) fn new(connection: Box<dyn Connection>) -> Self {
        Self { connection: Some(connection), permit: None, reserved: None, begun: Instant::now(), doomed: false }
    }

    /// A transaction that may write at once, until its reservation expires.
    pub(crate) fn reserved(connection: Box<dyn Connection>, permit: OwnedSemaphorePermit, expiry: Expiry) -> Self {
        Self { permit: Some(permit), reserved: Some(expiry), ..Self::new(connection) }
    }

    /// Gives the turn to others, if nothing was written yet; what the transaction sees stays the same.
    pub(crate) async fn expire(&mut self, store: &Store) {
        let Some(expiry) = self.reserved.take() else {
            return;
        };
        expiry.disarm();
        let (snapshot, version) = (store.dialect.begin(&store.tables, Begin::Snapshot), store.dialect.data_version());
        let (Some(connection), Some(version)) = (&mut self.connection, version) else {
            return;
        };
        let again = async {
            let before = connection.fetch(version.into(), vec![]).await?;
            connection.commit().await?;
            connection.begin(snapshot).await?;
            let after = connection.fetch(version.into(), vec![]).await?;
            Ok::<_, Error>([before, after].map(|mut rows| rows.pop().and_then(|mut row| row.int().ok())))
        };
        // Writers of this process wait for the permit. One of another may have slipped in, which happens hardly ever.
        self.doomed |= !again.await.is_ok_and(|[before, after]| before.is_some() && before == after);
        self.permit = None;
    }

    /// Runs a job that only reads.
    pub(crate) async fn read<T>(&mut self, store: &Store, job: impl Job<T>) -> Result<T> {
        let connection = self.connection()?;
        let result = job(Db { store, connection, snapshot: true }).await;
        self.doomed |= result.as_ref().is_err_and(ends_transaction);
        result.map_err(|e| self.conflict(e))
    }

    /// Runs a job that writes; if it fails, the transaction is as it was before, or can only be rolled back. A job of one
    /// statement is whole by itself.
    pub(crate) async fn write<T>(&mut self, store: &Store, job: impl Job<T>, several: bool) -> Result<T> {
        self.begin_writing(store).await?;
        if !several {
            return self.read(store, job).await;
        }
        self.execute("SAVEPOINT job").await?;
        let result = self.read(store, job).await;
        if result.is_err() && !self.doomed {
            self.execute("ROLLBACK TO SAVEPOINT job").await?;
        }
        if !self.doomed {
            self.execute("RELEASE SAVEPOINT job").await?;
        }
        result
    }

    pub(crate) async fn end(&mut self, store: &Store, commit: bool, decision: &Commit) -> Result<()> {
        let mut connection = self.connection.take().ok_or_else(ended)?;
        self.reserved = None;
        // Held until the lock is free.
        let permit = self.permit.take();
        if commit && !self.doomed {
            let writes = permit.is_some();
            if writes {
                store.database.check()?;
            }
            decision.begin()?;
            connection.commit().await?;
            return if writes { store.database.check().map_err(Error::ambiguous) } else { Ok(()) };
        }
        let rolled_back = connection.rollback().await;
        match commit {
            true => Err(overtaken()),
            // The database may have rolled back by itself; if not, it does now, because the connection is closed.
            false if self.doomed => Ok(()),
            false => rolled_back,
        }
    }

    fn connection(&mut self) -> Result<&mut dyn Connection> {
        match &mut self.connection {
            Some(_) if self.doomed => Err(overtaken()),
            Some(connection) => Ok(&mut **connection),
            None => Err(ended()),
        }
    }

    async fn execute(&mut self, sql: &str) -> Result<()> {
        let done = self.connection()?.run(sql.into()).await;
        self.doomed |= done.is_err();
        done.map_err(|e| self.conflict(e))
    }

    /// Takes the write lock at the first write, where there is one.
    async fn begin_writing(&mut self, store: &Store) -> Result<()> {
        self.connection()?;
        if self.reserved.take().is_some() {
            store.claims.used();
        }
        let Some(sql) = store.dialect.begin_writing(&store.tables).filter(|_| self.permit.is_none()) else {
            return Ok(());
        };
        let permit = permit(store, PATIENCE).await?;
        let Some(permit) = permit else {
            self.doomed = true;
            store.claims.lost(self.begun.elapsed());
            return Err(overtaken());
        };
        let begun = self.execute(&sql).await;
        if begun.is_ok() {
            self.permit = Some(permit);
        } else {
            store.claims.lost(self.begun.elapsed());
            // A writer in another process. Whoever comes back at once would meet it again and again until it has written all.
            drop(permit);
            sleep(GIVING_WAY.mul_f64(fastrand::f64())).await;
        }
        begun
    }

    /// A lock that was not to be had means that somebody else was faster.
    fn conflict(&self, e: Error) -> Error {
        match e.kind() {
            ErrorKind::Timeout if self.doomed && e.source().is_some() => overtaken().with_source(e),
            _ => e,
        }
    }
}

/// Whether the database has failed, after which it may have rolled back by itself, or takes nothing but a rollback.
fn ends_transaction(e: &Error) -> bool {
    e.source().is_some()
        || matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Corrupt | ErrorKind::Other)
}

fn overtaken() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "write conflict: another transaction committed first, or an earlier call failed; retry the transaction",
    )
}

pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the transaction has ended; begin another one")
}
