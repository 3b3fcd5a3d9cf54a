//! Connections: a pool of the driver's, and what a session does with one connection.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Database as SqlxDatabase, Pool,
    pool::{PoolConnection, PoolOptions},
};
use storage_core::{Error, ErrorKind, Result, async_trait};
use tokio::{runtime::Handle, sync::Mutex, time};

pub(crate) use crate::database::{Connection, Database};
use crate::{
    Config,
    dialect::Dialect,
    error::{from_sqlx, unreachable, while_committing},
    files::Files,
    setup::Kind,
    value::{Row, Value},
};

/// How long closing waits for connections that are in use.
const CLOSING: Duration = Duration::from_secs(1);
/// How many connections in a row may break before they can be used.
const ATTEMPTS: u32 = 10;
/// A connection that nobody has used for so long is asked whether it still works.
const IDLE: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Whether the connection that this task acquires was made for it.
    static NEW: Cell<bool>;
}

/// What of a driver is not generic.
pub(crate) trait Driver: SqlxDatabase {
    /// The statement as this database takes it.
    fn text(sql: String) -> String;
    fn bind(values: Vec<Value>) -> Result<Self::Arguments>;
    fn read(row: &Self::Row) -> Result<Row, sqlx::Error>;
}

pub(crate) struct Connections<D: Driver> {
    pool: Pool<D>,
    dialect: &'static dyn Dialect,
    most: usize,
    in_use: Arc<AtomicUsize>,
    /// How long a statement may take.
    patience: Option<Duration>,
    first: <D::Connection as sqlx::Connection>::Options,
    kind: Kind,
    /// Of a file: stays open beside the pool, so that the log stays the same as long as the store is connected.
    anchor: Mutex<Option<D::Connection>>,
    /// How long making a connection may take.
    acquiring: Duration,
    opening: Opening,
    runtime: Handle,
}

/// What an error of opening a connection means.
pub(crate) type Opening = Box<dyn Fn(sqlx::Error) -> Error + Send + Sync>;

struct Pooled<D: Driver> {
    /// `None` only while dropping.
    inner: Option<PoolConnection<D>>,
    in_transaction: bool,
    /// Whether a statement was begun whose end nobody has seen.
    unfinished: bool,
    patience: Option<Duration>,
    in_use: Arc<AtomicUsize>,
    /// Rolls back, and gives the connection back.
    abandon: fn(PoolConnection<D>) -> BoxFuture<'static, ()>,
    runtime: Handle,
}

impl<D: Driver> Pooled<D> {
    fn inner(&mut self) -> Result<&mut D::Connection> {
        self.inner.as_deref_mut().ok_or_else(Error::closed)
    }

    /// Before anything is sent. Behind a statement that was cut off, the driver may take the rest of its answer for the answer
    /// to the next; dropping the connection closes it.
    fn sending(&mut self) -> Result<()> {
        if self.unfinished {
            let message = "an earlier call of the transaction was cut off; begin it anew";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.unfinished = true;
        Ok(())
    }
}

impl<D: Driver> Drop for Pooled<D> {
    fn drop(&mut self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        // Giving a connection back takes a task, also when the last owner is dropped outside of the runtime.
        let _entered = self.runtime.enter();
        let Some(mut connection) = self.inner.take() else {
            return;
        };
        let remote = self.patience.is_some();
        match (self.in_transaction, self.unfinished) {
            // To make a connection to a server anew takes longer than to end the transaction.
            (true, false) if remote => drop(self.runtime.spawn((self.abandon)(connection))),
            (true, _) => connection.close_on_drop(),
            (false, true) if remote => connection.close_on_drop(),
            (false, _) => {}
        }
    }
}

impl<D: Driver> fmt::Debug for Connections<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options of the pool hold the password.
        f.debug_struct("Connections").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// Runs what the driver does, for as long as a statement may take.
async fn in_time<T>(
    patience: Option<Duration>,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<Result<T, sqlx::Error>> {
    let Some(patience) = patience else {
        return Ok(work.await);
    };
    time::timeout(patience, work).await.map_err(|_| {
        Error::new(ErrorKind::Timeout, "the database did not answer in time; try again, or raise the option `timeout`")
    })
}

/// For whoever wants to see or count what the database is asked. No text of ours holds a value.
fn said(sql: &str) {
    tracing::trace!(target: "storage_sql::statement", sql);
}

/// The same for each driver; a generic implementation would need bounds that the compiler cannot prove of futures.
macro_rules! connections {
    ($(#[$when:meta])* $driver:ty) => {
        $(#[$when])*
        impl Connections<$driver> {
            /// A pool, which connects later; to a file that the first connection may create.
            pub(crate) fn new(
                first: <<$driver as SqlxDatabase>::Connection as sqlx::Connection>::Options,
                options: <<$driver as SqlxDatabase>::Connection as sqlx::Connection>::Options,
                dialect: &'static dyn Dialect,
                config: &Config,
                kind: Kind,
                opening: Opening,
            ) -> Self {
                let remote = matches!(kind, Kind::Server(_));
                // What stands in a statement is nobody's business but the database's.
                let (first, options) = (first.disable_statement_logging(), options.disable_statement_logging());
                let acquiring = config.busy_timeout.max(Duration::from_millis(100));
                let pool = PoolOptions::new()
                    .max_connections(config.max_connections)
                    .acquire_timeout(acquiring)
                    .test_before_acquire(false)
                    // Neither is worth a background task for a file.
                    .idle_timeout(remote.then_some(Duration::from_secs(600)))
                    .max_lifetime(None)
                    .before_acquire(move |connection: &mut <$driver as SqlxDatabase>::Connection, meta| {
                        Box::pin(async move { Ok(!remote || meta.idle_for < IDLE || connection.ping().await.is_ok()) })
                    })
                    // An error here would be logged, forgotten, and followed by another attempt.
                    .after_connect(|_, _| {
                        let _ = NEW.try_with(|new| new.set(true));
                        Box::pin(async { Ok(()) })
                    })
                    .connect_lazy_with(options);
                Self {
                    pool,
                    dialect,
                    most: config.max_connections as usize,
                    in_use: Arc::default(),
                    patience: remote.then_some(config.timeout),
                    first,
                    kind,
                    anchor: Mutex::default(),
                    acquiring,
                    opening,
                    runtime: Handle::current(),
                }
            }
        }

        $(#[$when])*
        #[async_trait]
        impl Database for Connections<$driver> {
            fn dialect(&self) -> &'static dyn Dialect {
                self.dialect
            }

            async fn acquire(&self) -> Result<Box<dyn Connection>> {
                let mut attempts = 0;
                let in_use = || self.in_use.load(Ordering::Relaxed);
                loop {
                    if self.pool.num_idle() == 0 {
                        // What is made now may lead to another file, with the log of ours beside it.
                        self.check()?;
                    }
                    let acquire = async { (self.pool.acquire().await, NEW.with(Cell::get)) };
                    let (connection, new) = NEW.scope(Cell::new(false), acquire).await;
                    let connection = connection.map_err(|e| match e {
                        sqlx::Error::Database(_) if self.check().is_err() => self.check().err().unwrap_or_else(Error::closed),
                        // With connections to spare, what took too long was making one.
                        sqlx::Error::PoolTimedOut if in_use() < self.most => unreachable(e, in_use()),
                        e => (self.opening)(e),
                    })?;
                    self.in_use.fetch_add(1, Ordering::Relaxed);
                    let mut connection = Pooled {
                        inner: Some(connection),
                        in_transaction: false,
                        unfinished: false,
                        patience: self.patience,
                        in_use: self.in_use.clone(),
                        abandon: |mut connection| {
                            Box::pin(async move {
                                let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
                                if !matches!(time::timeout(CLOSING, rollback).await, Ok(Ok(_))) {
                                    connection.close_on_drop();
                                }
                            })
                        },
                        runtime: self.runtime.clone(),
                    };
                    let setup = match &self.kind {
                        _ if !new => return Ok(Box::new(connection)),
                        Kind::File(files) => match files.check() {
                            Ok(()) => return Ok(Box::new(connection)),
                            Err(e) => {
                                // Nobody else shall take it, so it is closed.
                                connection.in_transaction = true;
                                return Err(e);
                            }
                        },
                        Kind::Server(setup) => setup,
                    };
                    let refused = match time::timeout(self.acquiring, setup.run(&mut connection)).await {
                        Ok(Ok(())) => return Ok(Box::new(connection)),
                        Ok(Err(e)) => e,
                        Err(_) => return Err(unreachable(sqlx::Error::PoolTimedOut, 0)),
                    };
                    // Whoever takes it next would not have what it begins with.
                    connection.unfinished = true;
                    attempts += 1;
                    if refused.kind() != ErrorKind::Unavailable || attempts == ATTEMPTS {
                        return Err(refused);
                    }
                }
            }

            async fn watch(&self) -> Result<()> {
                let Some(files) = self.kind.files() else {
                    return Ok(());
                };
                let mut anchor = self.anchor.lock().await;
                if anchor.is_none() {
                    *anchor = Some(self.first.connect().await.map_err(&self.opening)?);
                }
                if let Some(connection) = &mut *anchor {
                    // A file is not opened before it is read.
                    let read = sqlx::raw_sql("SELECT count(*) FROM sqlite_schema").execute(connection).await;
                    read.map_err(&self.opening)?;
                }
                files.opened()
            }

            async fn watch_log(&self) -> Result<()> {
                // It was another kind of file when it was first read.
                self.watch().await?;
                self.kind.files().map_or(Ok(()), Files::logging)
            }

            fn check(&self) -> Result<()> {
                self.kind.files().map_or(Ok(()), Files::check)
            }

            fn is_long(&self, anew: bool) -> bool {
                self.kind.files().is_some_and(|files| files.is_long(anew))
            }

            fn is_closed(&self) -> bool {
                self.pool.is_closed()
            }

            async fn close(&self) {
                // A transaction that is still open keeps its connection; it is closed when the transaction is dropped.
                let _ = time::timeout(CLOSING, self.pool.close()).await;
                if let Some(anchor) = self.anchor.lock().await.take() {
                    let _ = time::timeout(CLOSING, anchor.close()).await;
                }
            }
        }

        $(#[$when])*
        #[async_trait]
        impl Connection for Pooled<$driver> {
            async fn execute(&mut self, sql: String, arguments: Vec<Value>) -> Result<u64> {
                said(&sql);
                let text = AssertSqlSafe(<$driver as Driver>::text(sql));
                let query = sqlx::query_with(text, <$driver as Driver>::bind(arguments)?);
                self.sending()?;
                let done = in_time(self.patience, query.execute(self.inner()?)).await?;
                self.unfinished = false;
                Ok(done.map_err(from_sqlx)?.rows_affected())
            }

            async fn fetch(&mut self, sql: String, arguments: Vec<Value>) -> Result<Vec<Row>> {
                said(&sql);
                let text = AssertSqlSafe(<$driver as Driver>::text(sql));
                let query = sqlx::query_with(text, <$driver as Driver>::bind(arguments)?);
                self.sending()?;
                let rows = in_time(self.patience, query.fetch_all(self.inner()?)).await?;
                self.unfinished = false;
                rows.map_err(from_sqlx)?.iter().map(|row| <$driver>::read(row).map_err(from_sqlx)).collect()
            }

            async fn run(&mut self, sql: String) -> Result<()> {
                said(&sql);
                let statements = sqlx::raw_sql(AssertSqlSafe(sql));
                self.sending()?;
                let done = in_time(self.patience, statements.execute(self.inner()?)).await?;
                self.unfinished = false;
                done.map(drop).map_err(from_sqlx)
            }

            async fn begin(&mut self, sql: String) -> Result<()> {
                // From here on, for whoever drops this before the answer comes.
                self.in_transaction = true;
                self.run(sql).await
            }

            async fn commit(&mut self) -> Result<()> {
                said("COMMIT");
                let statement = sqlx::raw_sql("COMMIT");
                self.sending()?;
                let done = in_time(self.patience, statement.execute(self.inner()?)).await.map_err(Error::ambiguous)?;
                self.unfinished = false;
                done.map_err(while_committing)?;
                self.in_transaction = false;
                Ok(())
            }

            async fn rollback(&mut self) -> Result<()> {
                self.run("ROLLBACK".into()).await?;
                self.in_transaction = false;
                Ok(())
            }
        }
    };
}
connections!(
    #[cfg(feature = "sqlite")]
    sqlx::Sqlite
);
connections!(
    #[cfg(feature = "postgres")]
    sqlx::Postgres
);
connections!(
    #[cfg(feature = "mysql")]
    sqlx::MySql
);
