//! What the tests share: a store in a fresh directory or in fresh tables of a server, and a second way into its database.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{env, path::PathBuf};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection, PgConnection, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use storage_core::{ConnectionConfig, Error, ErrorKind, Storage};
use storage_sql::{Config, Sql};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
    MariaDb,
}

pub(crate) struct Place {
    pub(crate) engine: Engine,
    directory: TempDir,
    pub(crate) table: String,
}

impl Place {
    /// A SQLite file.
    pub(crate) fn new() -> Self {
        Self { engine: Engine::Sqlite, directory: tempfile::tempdir().unwrap(), table: "storage".into() }
    }

    /// One of each database that there is.
    pub(crate) fn all() -> Vec<Self> {
        let mut places = vec![Self::new()];
        places.extend(Self::servers());
        places
    }

    /// One of each server that there is. Says which there is not.
    pub(crate) fn servers() -> Vec<Self> {
        let engines = [Engine::Postgres, Engine::MariaDb].into_iter();
        let known = engines.filter(|engine| match env::var_os(engine.variable()) {
            Some(_) => true,
            None => {
                eprintln!("did not run on {engine:?}: {} is not set", engine.variable());
                false
            }
        });
        known.map(|engine| Self { engine, table: format!("t{:016x}", fastrand::u64(..)), ..Self::new() }).collect()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("test.db")
    }

    /// Where it is, as another process or a URI names it.
    pub(crate) fn uri(&self) -> String {
        match self.engine {
            Engine::Sqlite => format!("sqlite:{}", self.path().display()),
            engine => format!("{}?table={}", engine.uri(), self.table),
        }
    }

    pub(crate) fn config(&self) -> Config {
        Config::from_connection(&ConnectionConfig::new(self.uri())).unwrap()
    }

    pub(crate) async fn open(&self) -> Storage<Sql> {
        self.connect(self.config()).await
    }

    pub(crate) async fn connect(&self, config: Config) -> Storage<Sql> {
        Storage::new(Sql::connect(config).await.unwrap())
    }

    /// Runs SQL beside the backend. The word `storage` stands for the table.
    pub(crate) async fn raw(&self, sql: &str) -> u64 {
        let sql = AssertSqlSafe(sql.replace("storage", &self.table));
        match self.engine {
            Engine::Sqlite => {
                let mut raw = self.raw_connection().await;
                let done = raw.execute(sqlx::raw_sql(sql)).await.unwrap().rows_affected();
                raw.close().await.unwrap();
                done
            }
            Engine::Postgres => {
                let mut raw = PgConnection::connect(&self.engine.uri()).await.unwrap();
                raw.execute(sqlx::raw_sql(sql)).await.unwrap().rows_affected()
            }
            Engine::MariaDb => {
                let mut raw = MySqlConnection::connect(&self.engine.uri()).await.unwrap();
                raw.execute(sqlx::raw_sql(sql)).await.unwrap().rows_affected()
            }
        }
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.replace("storage", &self.table)));
        match self.engine {
            Engine::Sqlite => {
                let mut raw = self.raw_connection().await;
                let count = query.fetch_one(&mut raw).await.unwrap();
                raw.close().await.unwrap();
                count
            }
            engine => engine.number(sql.replace("storage", &self.table)).await,
        }
    }

    pub(crate) async fn raw_connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        options.connect().await.unwrap()
    }
}

impl Engine {
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "STORAGE_TEST_POSTGRES",
            Self::MariaDb => "STORAGE_TEST_MARIADB",
        }
    }

    /// The server, without options.
    pub(crate) fn uri(self) -> String {
        env::var(self.variable()).unwrap()
    }

    /// The one number that a query yields.
    pub(crate) async fn number(self, sql: String) -> i64 {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite => unreachable!("a file is not a server"),
            Self::Postgres => {
                let mut raw = PgConnection::connect(&self.uri()).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap()
            }
            Self::MariaDb => {
                let mut raw = MySqlConnection::connect(&self.uri()).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap()
            }
        }
    }
}

#[track_caller]
pub(crate) fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(e) => e.kind(),
    }
}
