//! SQLite: a file, one writer at a time, readers beside it (write-ahead log).

use std::{path::PathBuf, time::Duration};

use sqlx::{
    Column, Row as _, Sqlite, TypeInfo, ValueRef,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteLockingMode, SqliteRow, SqliteSynchronous},
};
use storage_config::Durability;
use storage_core::{Error, ErrorKind, Result};
use tokio::time;

use super::{Begin, Dialect, SchemaLock, Tables, Types};
use crate::{
    Config,
    error::from_sqlx,
    files::LOG,
    pool::{Connection, Driver},
    value::{Row, Value},
};

#[derive(Debug)]
pub(crate) struct SqliteDialect;

pub(crate) fn options(path: PathBuf, config: &Config) -> Result<SqliteConnectOptions> {
    // The driver takes a path that begins with `file:` for a URI; an absolute one is always just a path.
    let path = std::path::absolute(path)
        .map_err(|e| Error::new(ErrorKind::Config, "the path of the database is not usable").with_source(e))?;
    // Most of these are defaults, which another build of the library may have changed.
    let full_fsync = if config.durability == Durability::Relaxed { "OFF" } else { "ON" };
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .foreign_keys(true)
        .busy_timeout(config.busy_timeout)
        .synchronous(match config.durability {
            Durability::Relaxed => SqliteSynchronous::Normal,
            _ => SqliteSynchronous::Full,
        })
        .locking_mode(SqliteLockingMode::Normal)
        .pragma("fullfsync", full_fsync)
        .pragma("checkpoint_fullfsync", full_fsync)
        // In pages. What lies behind the end of the log after a checkpoint is cut off to this many bytes.
        .pragma("wal_autocheckpoint", "1000")
        .pragma("journal_size_limit", LOG.to_string())
        .pragma("ignore_check_constraints", "OFF")
        .pragma("query_only", "OFF")
        .pragma("mmap_size", "0");
    Ok(options)
}

/// Switches the file to the write-ahead log.
pub(crate) async fn prepare(connection: &mut dyn Connection, patience: Duration) -> Result<()> {
    // Two connections that switch a new file at once get in each other's way, and SQLite does not wait then.
    let deadline = time::Instant::now() + patience;
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

impl Dialect for SqliteDialect {
    fn types(&self) -> Types {
        Types {
            id: "INTEGER PRIMARY KEY AUTOINCREMENT",
            int: "INTEGER",
            float: "REAL",
            text: "TEXT",
            bytes: "BLOB",
            key: "BLOB",
            head: "BLOB",
            table: "",
            clustered: " WITHOUT ROWID",
        }
    }

    fn one_writer(&self) -> bool {
        true
    }

    fn count_names(&self, names: usize) -> String {
        let list = vec!["lower(?)"; names].join(", ");
        format!("SELECT count(*) FROM sqlite_schema WHERE lower(name) IN ({list})")
    }

    fn create_sequence(&self, _: &Tables) -> Option<String> {
        None
    }

    fn now(&self) -> &'static str {
        "CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000"
    }

    fn sound(&self, table: &str) -> String {
        // Any column may hold any type, and what is no JSON has no type within it.
        let within =
            |path: &str, kind: &str| format!("coalesce(json_type({table}.metadata, '{path}'), '{kind}') = '{kind}'");
        let parts = [within("$", "object"), within("$.fields", "object"), within("$.tags", "array")].join(" AND ");
        format!(
            "CASE WHEN typeof({table}.metadata) = 'text' AND json_valid({table}.metadata) THEN {parts} ELSE 0 END \
             AND typeof({table}.size) = 'integer' AND {table}.size >= 0"
        )
    }

    fn later(&self, now: &str) -> String {
        format!("max(CASE typeof(e.updated_at) WHEN 'integer' THEN e.updated_at ELSE 0 END, {now})")
    }

    fn advance(&self, tables: &Tables, versions: usize) -> Option<String> {
        Some(format!("UPDATE {} SET sequence = sequence + {versions}", tables.meta))
    }

    fn version(&self, tables: &Tables, behind: usize) -> String {
        format!("(SELECT sequence FROM {}) - {behind}", tables.meta)
    }

    fn newer(&self, _: &Tables) -> String {
        // Nobody else writes meanwhile, so each row's own will do.
        "excluded.version".into()
    }

    fn lock(&self) -> &'static str {
        ""
    }

    fn begin(&self, tables: &Tables, begin: Begin) -> String {
        match begin {
            Begin::Write | Begin::Isolated | Begin::Deletes => "BEGIN IMMEDIATE".into(),
            // A transaction that is not immediate sees the database as it is at its first statement.
            Begin::Snapshot => format!("BEGIN; SELECT one FROM {}", tables.meta),
        }
    }

    fn begin_at_once(&self, busy_timeout: Duration) -> Option<String> {
        // The last is not reached if the transaction does not begin; the connection is closed then, unless it begins later.
        let milliseconds = busy_timeout.as_millis();
        Some(format!("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE; PRAGMA busy_timeout = {milliseconds}"))
    }

    fn cut_log(&self, busy_timeout: Duration) -> Option<[String; 4]> {
        let milliseconds = busy_timeout.as_millis();
        Some([
            "PRAGMA wal_checkpoint(PASSIVE)".into(),
            "PRAGMA busy_timeout = 0".into(),
            "PRAGMA wal_checkpoint(TRUNCATE)".into(),
            format!("PRAGMA busy_timeout = {milliseconds}"),
        ])
    }

    fn data_version(&self) -> Option<&'static str> {
        Some("PRAGMA data_version")
    }

    fn begin_writing(&self, tables: &Tables) -> Option<String> {
        // SQLite does not wait for the lock inside a transaction: either it is free and nobody has written since the
        // transaction began, or this fails at once.
        Some(format!("UPDATE {} SET sequence = sequence", tables.meta))
    }

    fn schema_lock(&self, _: &Tables) -> SchemaLock {
        SchemaLock { lock: None, unlock: None }
    }
}

impl Driver for Sqlite {
    fn text(sql: String) -> String {
        sql
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

    fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
        let mut columns = Vec::with_capacity(row.len());
        for column in row.columns() {
            let index = column.ordinal();
            let raw = row.try_get_raw(index)?;
            let kind = raw.type_info();
            columns.push(match kind.name() {
                _ if raw.is_null() => Value::Null,
                "INTEGER" => Value::Int(row.try_get(index)?),
                "REAL" => Value::Float(row.try_get(index)?),
                // What others wrote need not be one.
                "TEXT" => match String::from_utf8(row.try_get(index)?) {
                    Ok(text) => Value::Text(text),
                    Err(bytes) => Value::Bytes(bytes.into_bytes().into()),
                },
                _ => Value::Bytes(row.try_get::<Vec<u8>, _>(index)?.into()),
            });
        }
        Ok(Row::new(columns))
    }
}
