//! SQLite: a file, one writer at a time, readers beside it (write-ahead log).

use std::{path::PathBuf, time::Duration};

use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Executor, Pool, Row as _, Sqlite, TypeInfo, ValueRef,
    pool::{PoolConnection, PoolOptions},
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow, SqliteSynchronous},
};
use storage_core::{Error, ErrorKind, Result, async_trait};
use tokio::{runtime::Handle, time};

use super::{Connection, Database, Row, Tables, Value};
use crate::{
    Config, Durability,
    error::{from_sqlx, while_committing, while_opening},
};

/// How long closing waits for connections that are in use.
const CLOSING: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct SqliteDatabase {
    pool: Pool<Sqlite>,
    path: PathBuf,
    busy_timeout: Duration,
    runtime: Handle,
}

impl SqliteDatabase {
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Self> {
        // The driver takes a path that begins with `file:` for a URI; an absolute one is always just a path.
        let path = std::path::absolute(&config.path)
            .map_err(|e| Error::new(ErrorKind::Config, "the path of the database is not usable").with_source(e))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(config.busy_timeout)
            .synchronous(match config.durability {
                Durability::Full => SqliteSynchronous::Full,
                Durability::Relaxed => SqliteSynchronous::Normal,
            })
            .disable_statement_logging();
        let pool = PoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.busy_timeout.max(Duration::from_millis(100)))
            .test_before_acquire(false)
            // Neither is worth a background task for a file.
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        Ok(Self { pool, path, busy_timeout: config.busy_timeout, runtime })
    }
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn acquire(&self) -> Result<Box<dyn Connection>> {
        let connection = self.pool.acquire().await;
        Ok(Box::new(SqliteConnection {
            inner: Some(connection.map_err(|e| while_opening(e, &self.path))?),
            in_transaction: false,
            runtime: self.runtime.clone(),
        }))
    }

    fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    async fn close(&self) {
        // A transaction that is still open keeps its connection; it is closed when the transaction is dropped.
        let _ = time::timeout(CLOSING, self.pool.close()).await;
    }

    async fn prepare(&self, connection: &mut dyn Connection) -> Result<()> {
        // Two connections that switch a new file to the write-ahead log at once get in each other's way, and SQLite does not
        // wait then.
        let deadline = time::Instant::now() + self.busy_timeout;
        let mut rows = loop {
            match connection.fetch("PRAGMA journal_mode = WAL".into(), vec![]).await {
                Err(e) if e.kind() == ErrorKind::Timeout && time::Instant::now() < deadline => {
                    time::sleep(Duration::from_millis(5)).await;
                }
                done => break done?,
            }
        };
        match rows.first_mut().map(Row::text).transpose()?.as_deref() {
            Some("wal") => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Config,
                "the file system of the database does not support a write-ahead log; use a local disk",
            )),
        }
    }

    fn quote(&self, identifier: &str) -> String {
        format!("\"{identifier}\"")
    }

    fn count_names(&self, names: usize) -> String {
        let list = vec!["lower(?)"; names].join(", ");
        format!("SELECT count(*) FROM sqlite_schema WHERE lower(name) IN ({list})")
    }

    fn create(&self, tables: &Tables) -> Vec<String> {
        let Tables { entries, fields, tags, uploads, chunks, indexes, meta, plain } = tables;
        let owner = format!("REFERENCES {entries} (version) ON DELETE CASCADE ON UPDATE CASCADE");
        let index = |suffix: &str| self.quote(&format!("{}_{suffix}", plain[0]));
        vec![
            format!(
                "CREATE TABLE {meta} (one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, \
                 sequence INTEGER NOT NULL)"
            ),
            format!(
                "CREATE TABLE {entries} (version INTEGER PRIMARY KEY, nonce INTEGER NOT NULL, key BLOB NOT NULL UNIQUE, \
                 size INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, content_type TEXT, metadata TEXT NOT NULL, \
                 chunk INTEGER, data BLOB)"
            ),
            format!("CREATE INDEX {} ON {entries} (created_at)", index("by_created_at")),
            format!("CREATE INDEX {} ON {entries} (updated_at)", index("by_updated_at")),
            format!(
                "CREATE TABLE {fields} (version INTEGER NOT NULL {owner}, name BLOB NOT NULL, kind INTEGER NOT NULL, \
                 int_value INTEGER, float_value REAL, text_value BLOB, indexed INTEGER NOT NULL, \
                 PRIMARY KEY (version, name)) WITHOUT ROWID"
            ),
            format!(
                "CREATE INDEX {} ON {fields} (name, kind, int_value, float_value, text_value) WHERE indexed = 1",
                index("by_field")
            ),
            format!(
                "CREATE TABLE {tags} (version INTEGER NOT NULL {owner}, tag BLOB NOT NULL, PRIMARY KEY (version, tag)) \
                 WITHOUT ROWID"
            ),
            format!("CREATE INDEX {} ON {tags} (tag)", index("by_tag")),
            format!(
                "CREATE TABLE {uploads} (upload INTEGER PRIMARY KEY, version INTEGER UNIQUE {owner}, \
                 touched_at INTEGER NOT NULL)"
            ),
            format!(
                "CREATE TABLE {chunks} (upload INTEGER NOT NULL REFERENCES {uploads} (upload) ON DELETE CASCADE, \
                 idx INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (upload, idx))"
            ),
            format!("CREATE TABLE {indexes} (name BLOB PRIMARY KEY) WITHOUT ROWID"),
            format!("INSERT INTO {meta} VALUES (1, 1, 0)"),
        ]
    }

    fn now(&self) -> &'static str {
        "CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000"
    }

    fn next_version(&self, tables: &Tables) -> String {
        let (meta, now) = (&tables.meta, self.now());
        format!("UPDATE {meta} SET sequence = sequence + 1 RETURNING sequence, random(), {now}")
    }
}

struct SqliteConnection {
    /// `None` only while dropping.
    inner: Option<PoolConnection<Sqlite>>,
    in_transaction: bool,
    runtime: Handle,
}

impl SqliteConnection {
    fn inner(&mut self) -> Result<&mut sqlx::SqliteConnection> {
        self.inner.as_deref_mut().ok_or_else(Error::closed)
    }

    async fn end(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        // Without a connection there is nothing to end.
        if let Some(connection) = &mut self.inner {
            connection.execute(statement).await?;
        }
        self.in_transaction = false;
        Ok(())
    }
}

#[async_trait]
impl Connection for SqliteConnection {
    async fn execute(&mut self, sql: String, arguments: Vec<Value>) -> Result<u64> {
        let query = sqlx::query_with(AssertSqlSafe(sql), bind(arguments)?);
        let done = query.execute(self.inner()?).await.map_err(from_sqlx)?;
        Ok(done.rows_affected())
    }

    async fn fetch(&mut self, sql: String, arguments: Vec<Value>) -> Result<Vec<Row>> {
        let query = sqlx::query_with(AssertSqlSafe(sql), bind(arguments)?);
        let rows = query.fetch_all(self.inner()?).await.map_err(from_sqlx)?;
        rows.iter().map(read).collect()
    }

    async fn begin(&mut self, tables: &Tables, write: bool) -> Result<()> {
        let statement = if write { "BEGIN IMMEDIATE" } else { "BEGIN" };
        // From here on, for whoever drops this before the answer comes.
        self.in_transaction = true;
        if let Err(e) = self.inner()?.execute(statement).await {
            self.in_transaction = false;
            return Err(from_sqlx(e));
        }
        if !write {
            // A transaction that is not immediate sees the database as it is at its first statement.
            let sql = format!("SELECT 1 FROM {}", tables.meta);
            self.fetch(sql, vec![]).await?;
        }
        Ok(())
    }

    async fn begin_writing(&mut self, tables: &Tables) -> Result<()> {
        // SQLite does not wait for the lock inside a transaction: either it is free and nobody has written since the
        // transaction began, or this fails at once.
        let sql = format!("UPDATE {} SET sequence = sequence", tables.meta);
        match self.execute(sql, vec![]).await {
            Err(e) if e.kind() == ErrorKind::Timeout => {
                Err(Error::new(ErrorKind::Conflict, "another writer was faster; run the transaction again")
                    .with_source(e))
            }
            done => done.map(drop),
        }
    }

    async fn commit(&mut self) -> Result<()> {
        self.end("COMMIT").await.map_err(while_committing)
    }

    async fn rollback(&mut self) -> Result<()> {
        self.end("ROLLBACK").await.map_err(from_sqlx)
    }
}

impl Drop for SqliteConnection {
    fn drop(&mut self) {
        // Giving a connection back takes a task, also when the last owner is dropped outside of the runtime.
        let _entered = self.runtime.enter();
        if let Some(mut connection) = self.inner.take()
            && self.in_transaction
        {
            connection.close_on_drop();
        }
    }
}

fn bind(values: Vec<Value>) -> Result<SqliteArguments> {
    use sqlx::Arguments;

    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Int(value) => arguments.add(value),
            Value::Float(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(Vec::from(value)),
        };
        added.map_err(|e| from_sqlx(sqlx::Error::Encode(e)))?;
    }
    Ok(arguments)
}

fn read(row: &SqliteRow) -> Result<Row> {
    let mut columns = Vec::with_capacity(row.len());
    for column in row.columns() {
        let index = column.ordinal();
        let raw = row.try_get_raw(index).map_err(from_sqlx)?;
        let kind = raw.type_info().name().to_owned();
        let value = match kind.as_str() {
            _ if raw.is_null() => Ok(Value::Null),
            "INTEGER" => row.try_get(index).map(Value::Int),
            "REAL" => row.try_get(index).map(Value::Float),
            "TEXT" => row.try_get(index).map(Value::Text),
            _ => row.try_get::<Vec<u8>, _>(index).map(|v| Value::Bytes(v.into())),
        };
        columns.push(value.map_err(from_sqlx)?);
    }
    Ok(Row::new(columns))
}
