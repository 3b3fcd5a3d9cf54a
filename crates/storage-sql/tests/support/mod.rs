//! What the tests share: a store in a fresh directory or in fresh tables of a server, and a second way into its database.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod proxy;

use std::{env, path::PathBuf};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, MySqlConnection, PgConnection, Row, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use storage_config::ConnectionConfig;
use storage_core::{Error, ErrorKind, FieldValue, Filter, Storage};
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
    /// Where its server is, without options.
    server: String,
    pub(crate) table: String,
}

impl Place {
    /// A SQLite file.
    pub(crate) fn new() -> Self {
        let (directory, server) = (tempfile::tempdir().unwrap(), String::new());
        Self { engine: Engine::Sqlite, directory, server, table: "storage".into() }
    }

    /// One of each database that there is.
    pub(crate) fn all() -> Vec<Self> {
        let mut places = vec![Self::new()];
        places.extend(Self::servers());
        places
    }

    /// One of each server that there is. Says which there is not.
    pub(crate) fn servers() -> Vec<Self> {
        Self::named_with("")
    }

    /// One of each server that takes encrypted connections only.
    pub(crate) fn encrypted() -> Vec<Self> {
        Self::named_with("_TLS")
    }

    /// One of each server whose variable ends so.
    fn named_with(suffix: &str) -> Vec<Self> {
        let place = |engine: Engine| {
            let server = storage_conformance::server(&format!("{}{suffix}", engine.variable()))?;
            Some(Self { engine, server, table: format!("t{:016x}", fastrand::u64(..)), ..Self::new() })
        };
        [Engine::Postgres, Engine::MariaDb].into_iter().filter_map(place).collect()
    }

    /// The same tables in another database of the server.
    pub(crate) fn in_database(&self, name: &str) -> Self {
        let server = format!("{}/{name}", self.server.rsplit_once('/').unwrap().0);
        Self { engine: self.engine, server, table: self.table.clone(), ..Self::new() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("test.db")
    }

    /// Where it is, as another process or a URI names it.
    pub(crate) fn uri(&self) -> String {
        match self.engine {
            Engine::Sqlite => format!("sqlite:{}", self.path().display()),
            _ => format!("{}?table={}", self.server, self.table),
        }
    }

    pub(crate) fn config(&self) -> Config {
        Config::from_connection(&ConnectionConfig::new(self.uri())).unwrap()
    }

    pub(crate) async fn open(&self) -> Storage {
        self.connect(self.config()).await
    }

    pub(crate) async fn connect(&self, config: Config) -> Storage {
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
                let mut raw = PgConnection::connect(&self.server).await.unwrap();
                raw.execute(sqlx::raw_sql(sql)).await.unwrap().rows_affected()
            }
            Engine::MariaDb => {
                let mut raw = MySqlConnection::connect(&self.server).await.unwrap();
                raw.execute(sqlx::raw_sql(sql)).await.unwrap().rows_affected()
            }
        }
    }

    /// Runs SQL beside the backend of a MariaDB server, which may refuse it.
    pub(crate) async fn try_raw(&self, sql: &str) {
        let mut raw = MySqlConnection::connect(&self.server).await.unwrap();
        let _ = raw.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
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
            engine => engine.number(&self.server, sql.replace("storage", &self.table)).await,
        }
    }

    /// How the database would run a statement of the crate. Where its arguments matter, those of a filter are put in, and all
    /// others are taken as they come.
    pub(crate) async fn plan(&self, sql: &str, query: &storage_core::Query) -> String {
        let mut arguments = literals(self.engine, query).into_iter();
        let mut text = String::new();
        for (i, part) in sql.split('?').enumerate() {
            if i > 0 {
                text += &arguments.next().unwrap_or_else(|| "100".into());
            }
            text += part;
        }
        let explain = if self.engine == Engine::Sqlite { "EXPLAIN QUERY PLAN" } else { "EXPLAIN" };
        let explain = AssertSqlSafe(format!("{explain} {text}"));
        let mut plan = String::new();
        match self.engine {
            Engine::Sqlite => {
                let mut raw = self.raw_connection().await;
                for row in raw.fetch_all(explain).await.unwrap() {
                    plan += &format!("{}\n", row.get::<String, _>(3));
                }
            }
            Engine::Postgres => {
                let mut raw = PgConnection::connect(&self.server).await.unwrap();
                for row in raw.fetch_all(explain).await.unwrap() {
                    plan += &format!("{}\n", row.get::<String, _>(0));
                }
            }
            Engine::MariaDb => {
                let mut raw = MySqlConnection::connect(&self.server).await.unwrap();
                for row in raw.fetch_all(explain).await.unwrap() {
                    let text = |i: usize| row.try_get::<Option<String>, _>(i).ok().flatten().unwrap_or_default();
                    plan += &format!("{} {} {}\n", text(2), text(3), text(5));
                }
            }
        }
        plan
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

    /// The one number that a query to this server yields.
    pub(crate) async fn number(self, server: &str, sql: String) -> i64 {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite => unreachable!("a file is not a server"),
            Self::Postgres => {
                let mut raw = PgConnection::connect(server).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap()
            }
            Self::MariaDb => {
                let mut raw = MySqlConnection::connect(server).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap()
            }
        }
    }
}

/// The arguments of a query with one filter and without a prefix, as they stand in SQL.
fn literals(engine: Engine, query: &storage_core::Query) -> Vec<String> {
    let bytes = |bytes: &[u8]| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match engine {
            Engine::Postgres => format!("'\\x{hex}'::bytea"),
            _ => format!("x'{hex}'"),
        }
    };
    let mut literals = vec![bytes(b""), bytes(&[255])];
    match &query.filters[0] {
        Filter::Field { name, value, .. } => {
            let field = match name.as_str() {
                "n" => 1,
                "s" => 2,
                _ => 3,
            };
            literals.push(field.to_string());
            match value {
                FieldValue::Int(value) => literals.extend(["4".into(), value.to_string()]),
                FieldValue::Float(value) => literals.extend(["5".into(), value.to_string()]),
                FieldValue::String(text) => {
                    literals.extend(["6".into(), bytes(text.as_bytes()), bytes(text.as_bytes())])
                }
                other => panic!("no plan for {other:?}"),
            }
        }
        Filter::AnyTag(tags) | Filter::AllTags(tags) => {
            let tags: Vec<String> = tags.iter().map(|tag| bytes(tag.as_bytes())).collect();
            literals.extend([tags.clone(), tags].concat());
            literals.push("1".into());
        }
        _ => literals.push("99998".into()),
    }
    literals
}

#[track_caller]
pub(crate) fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(e) => e.kind(),
    }
}
