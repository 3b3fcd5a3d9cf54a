//! What the suite runs on where there is a server: how a store is opened there, and how all that is left of it goes.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{env, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use storage_config::ConnectionConfig;
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Error, ErrorKind, Result};
use storage_sql::{Config, Sql};
use tokio::sync::Mutex;

/// What all databases can do.
pub(crate) const ALL: Capabilities = Capabilities::new()
    .atomic()
    .streaming()
    .conditional()
    .conditional_delete()
    .version_etags()
    .transactions()
    .queryable();

/// The target of a server, in both ways in which it can keep versions.
pub(crate) fn on_server(name: &str, variable: &'static str, versions: Option<u32>) -> Target {
    let capabilities = if versions.is_some() { ALL.versioning() } else { ALL };
    Target::new(name, move |ns| server(variable, ns, versions))
        .needs_env(variable)
        .runs_on("server")
        .secret(password(variable))
        .requires(capabilities)
        .damage(move |ns, key| async move {
            let hex: String = key.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
            let damaged = Raw::connect(variable).await;
            let damaged = async { damaged?.damage(ns.name(), &hex).await };
            damaged.await.map_err(|e| Error::new(ErrorKind::Other, "its row cannot be changed").with_source(e))
        })
        .cleanup(removal(variable))
}

/// Tables of its own in the database that the variable names.
pub(crate) async fn server(variable: &str, ns: Namespace, versions: Option<u32>) -> Result<Sql> {
    let uri = env::var(variable).unwrap_or_default();
    // The suite may put a proxy before the server.
    let (before, server, behind) = parts(&uri);
    let uri = format!("{before}{}{behind}", ns.address(server)?);
    let mut config = Config::from_connection(&ConnectionConfig::new(uri))?;
    config.timeout = Duration::from_secs(10);
    config.table = ns.name().into();
    // Many checks run at once, and a server has only so many connections.
    config.max_connections = 5;
    config.versions = versions.and_then(std::num::NonZeroU32::new);
    Sql::connect(config).await
}

/// How everything is dropped whose name begins with that of a namespace. One connection is kept for all, because to make one
/// takes longer than to drop the tables.
pub(crate) fn removal(variable: &'static str) -> impl Fn(Namespace) -> BoxFuture<'static, Result<()>> + Send + Sync {
    let kept: Arc<Mutex<Option<Raw>>> = Arc::default();
    move |ns| {
        let kept = kept.clone();
        Box::pin(async move {
            let mut kept = kept.lock().await;
            let removed = async {
                let mut raw = match kept.take() {
                    Some(raw) => raw,
                    None => Raw::connect(variable).await?,
                };
                raw.drop_all(ns.name()).await?;
                *kept = Some(raw);
                sqlx::Result::Ok(())
            };
            let failed = |e: sqlx::Error| Error::new(ErrorKind::Other, "its tables cannot be dropped").with_source(e);
            removed.await.map_err(failed)
        })
    }
}

/// A connection that does not wait for a lock longer than its caller waits for it.
enum Raw {
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

impl Raw {
    async fn connect(variable: &str) -> sqlx::Result<Self> {
        let uri = env::var(variable).unwrap_or_default();
        if uri.starts_with("postgres") {
            let mut raw = PgConnection::connect(&uri).await?;
            raw.execute(sqlx::raw_sql("SET lock_timeout = 5000; SET client_min_messages = error")).await?;
            return Ok(Self::Postgres(raw));
        }
        let mut raw = MySqlConnection::connect(&uri).await?;
        raw.execute(sqlx::raw_sql("SET lock_wait_timeout = 5, foreign_key_checks = 0")).await?;
        Ok(Self::MariaDb(raw))
    }

    /// Writes into a row, whose key stands in hexadecimal digits, metadata that nobody can read.
    async fn damage(&mut self, table: &str, key: &str) -> sqlx::Result<()> {
        let update = format!("UPDATE {table} SET metadata = '{{' WHERE entry_key = ");
        match self {
            Self::Postgres(raw) => {
                raw.execute(sqlx::raw_sql(AssertSqlSafe(format!("{update} '\\x{key}'::bytea")))).await?;
            }
            Self::MariaDb(raw) => {
                raw.execute(sqlx::raw_sql(AssertSqlSafe(format!("{update} x'{key}'")))).await?;
            }
        }
        Ok(())
    }

    async fn drop_all(&mut self, name: &str) -> sqlx::Result<()> {
        match self {
            Self::Postgres(raw) => {
                let drop = |kind: &str, what: &str| {
                    format!(
                        "FOR it IN SELECT relname FROM pg_class WHERE relkind = '{kind}' AND starts_with(relname, '{name}') \
                         AND relnamespace = current_schema()::regnamespace \
                         LOOP EXECUTE format('DROP {what} IF EXISTS %I CASCADE', it.relname); END LOOP;"
                    )
                };
                // Indexes and the sequences of columns go with the tables.
                let (tables, sequences) = (drop("r", "TABLE"), drop("S", "SEQUENCE"));
                let sql = format!("DO $$ DECLARE it record; BEGIN {tables} {sequences} END $$");
                raw.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            }
            Self::MariaDb(raw) => {
                let sql = format!(
                    "SELECT table_name FROM information_schema.tables \
                     WHERE table_schema = DATABASE() AND table_name LIKE '{name}%'"
                );
                let names: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *raw).await?;
                if !names.is_empty() {
                    // Sequences go this way too.
                    let sql = format!("DROP TABLE IF EXISTS {}", names.join(", "));
                    raw.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
                }
            }
        }
        Ok(())
    }
}

/// What stands before the server's `host:port`, that, and what stands behind it.
fn parts(uri: &str) -> (&str, &str, &str) {
    let start = uri.rfind('@').map_or(0, |at| at + 1);
    let end = uri[start..].find('/').map_or(uri.len(), |end| start + end);
    (&uri[..start], &uri[start..end], &uri[end..])
}

/// The password in it.
fn password(variable: &str) -> String {
    let uri = env::var(variable).unwrap_or_default();
    let user = parts(&uri).0.trim_end_matches('@').rsplit_once(':');
    user.map_or_else(String::new, |(_, password)| password.to_owned())
}
