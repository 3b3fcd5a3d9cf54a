//! What the tests share: a store in a fresh directory, and a second way into its file.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use storage_core::{Error, ErrorKind, Storage};
use storage_sql::{Config, Sql};
use tempfile::TempDir;

pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("test.db")
    }

    pub(crate) fn config(&self) -> Config {
        Config::sqlite(self.path())
    }

    pub(crate) async fn open(&self) -> Storage<Sql> {
        self.connect(self.config()).await
    }

    pub(crate) async fn connect(&self, config: Config) -> Storage<Sql> {
        Storage::new(Sql::connect(config).await.unwrap())
    }

    /// Runs SQL beside the backend.
    pub(crate) async fn raw(&self, sql: &str) -> u64 {
        let mut raw = self.raw_connection().await;
        let done = raw.execute(AssertSqlSafe(sql)).await.unwrap();
        raw.close().await.unwrap();
        done.rows_affected()
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let mut raw = self.raw_connection().await;
        let count = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut raw).await.unwrap();
        raw.close().await.unwrap();
        count
    }

    pub(crate) async fn raw_connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        options.connect().await.unwrap()
    }
}

#[track_caller]
pub(crate) fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(e) => e.kind(),
    }
}
