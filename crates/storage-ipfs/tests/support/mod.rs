//! What the tests have in common: where the node is, and how a store is opened there.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    collections::HashMap,
    env,
    path::Path,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use storage_config::ConnectionConfig;
use storage_conformance::Namespace;
use storage_core::{Body, Error, ErrorKind, Key, PutOptions, Result, Storage, StorageBackend};
use storage_ipfs::{Config, Ipfs};
use storage_memory::Memory;
use storage_sql::Sql;

/// Names the node's RPC API.
pub(crate) const VARIABLE: &str = "STORAGE_TEST_KUBO";

pub(crate) fn node() -> String {
    env::var(VARIABLE).unwrap_or_default()
}

/// The node through another address, as that of a proxy.
pub(crate) fn config(address: &str) -> Result<Config> {
    let mut config = Config::new(address)?;
    // Each test has an index of its own.
    config.shared_node = true;
    Ok(config)
}

pub(crate) async fn index(dir: &Path) -> Result<Storage> {
    Ok(Storage::new(Sql::connect(storage_sql::Config::sqlite(dir.join("index.db"))).await?))
}

pub(crate) async fn open(ns: Namespace) -> Result<Ipfs> {
    Ipfs::connect(config(&node())?, index(ns.dir()).await?).await
}

/// Indexes in memory, which live as long as the process.
static MEMORY: LazyLock<Mutex<HashMap<String, Memory>>> = LazyLock::new(Mutex::default);

pub(crate) async fn open_in_memory(ns: Namespace) -> Result<Ipfs> {
    let index = MEMORY.lock().unwrap().entry(ns.name().to_owned()).or_default().clone();
    Ipfs::connect(config(&node())?, Storage::new(index)).await
}

/// Names the server of an index.
const POSTGRES: &str = "STORAGE_TEST_POSTGRES";

/// Of the two servers that such a store needs, one that is not known, if there is one.
pub(crate) fn variable_of_two() -> &'static str {
    if env::var_os(POSTGRES).is_some_and(|uri| !uri.is_empty()) { VARIABLE } else { POSTGRES }
}

/// An index on a server, which the suite may put a proxy before.
pub(crate) async fn open_on_server(ns: Namespace) -> Result<Ipfs> {
    let uri = env::var(POSTGRES).unwrap_or_default();
    let (before, rest) = uri.split_once('@').unwrap_or(("", &uri));
    let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
    let uri = format!("{before}@{}/{database}", ns.address(server)?);
    let mut index = storage_sql::Config::from_connection(&ConnectionConfig::new(uri))?;
    index.timeout = Duration::from_secs(10);
    index.table = ns.name().into();
    index.max_connections = 5;
    Ipfs::connect(config(&node())?, Storage::new(Sql::connect(index).await?)).await
}

pub(crate) fn password() -> String {
    let uri = env::var(POSTGRES).unwrap_or_default();
    uri.split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .and_then(|(user, _)| user.split_once(':'))
        .map_or_else(String::new, |(_, password)| password.to_owned())
}

/// How the tables of an index are dropped, over one connection for all.
pub(crate) fn removal() -> impl Fn(Namespace) -> BoxFuture<'static, Result<()>> + Send + Sync {
    let kept: Arc<tokio::sync::Mutex<Option<PgConnection>>> = Arc::default();
    move |ns| {
        let kept = kept.clone();
        Box::pin(async move {
            let mut kept = kept.lock().await;
            let removed = async {
                let mut raw = match kept.take() {
                    Some(raw) => raw,
                    None => PgConnection::connect(&env::var(POSTGRES).unwrap_or_default()).await?,
                };
                let drop = |kind: &str, what: &str| {
                    format!(
                        "FOR it IN SELECT relname FROM pg_class WHERE relkind = '{kind}' AND starts_with(relname, '{}') \
                         AND relnamespace = current_schema()::regnamespace \
                         LOOP EXECUTE format('DROP {what} IF EXISTS %I CASCADE', it.relname); END LOOP;",
                        ns.name()
                    )
                };
                let sql = format!(
                    "SET lock_timeout = 5000; SET client_min_messages = error; DO $$ DECLARE it record; BEGIN {} {} END $$",
                    drop("r", "TABLE"),
                    drop("S", "SEQUENCE")
                );
                raw.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
                *kept = Some(raw);
                sqlx::Result::Ok(())
            };
            removed
                .await
                .map_err(|e: sqlx::Error| Error::new(ErrorKind::Other, "its tables cannot be dropped").with_source(e))
        })
    }
}

/// Replaces the record of a key by one that names no content.
pub(crate) async fn damage(ns: Namespace, key: Key) -> Result<()> {
    let index = index(ns.dir()).await?;
    let record = Key::parse(&format!("k/{key}"))?;
    index.backend().put(&record, Body::default(), PutOptions::new()).await.map(drop)
}

/// Whether the test cannot run for want of a node.
pub(crate) fn is_missing_node() -> bool {
    let missing = node().is_empty();
    assert!(!missing || env::var_os("STORAGE_TEST_REQUIRE").is_none(), "{VARIABLE} is not set, it must name the node");
    missing
}
