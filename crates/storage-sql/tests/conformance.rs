//! The conformance suite on a real file and on real servers.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/staged.rs"]
mod staged;
#[path = "support/target.rs"]
mod target;

use std::{path::Path, time::Duration};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use storage_conformance::{Namespace, Target};
use storage_core::{Key, Result};
use storage_sql::{Config, Sql};
use target::{ALL, on_server};

async fn file(ns: Namespace, versions: Option<u32>) -> Result<Sql> {
    let mut config = Config::sqlite(ns.dir().join("test.db"));
    config.versions = versions.and_then(std::num::NonZeroU32::new);
    Sql::connect(config).await
}

/// Writes metadata that nobody can read into the row of a key.
async fn damage(ns: Namespace, key: Key) -> Result<()> {
    let mut raw = SqliteConnectOptions::new().filename(ns.dir().join("test.db")).connect().await.unwrap();
    let sql = "UPDATE storage SET metadata = '{' WHERE entry_key = ?";
    sqlx::query(sql).bind(key.as_str().as_bytes()).execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    Ok(())
}

/// What is left of unfinished writes once a connection has been made `sweep_after` later.
fn left(place: &Path) -> usize {
    let mut config = Config::sqlite(place.join("test.db"));
    config.sweep_after = Duration::ZERO;
    staged::wait(async { drop(Sql::connect(config).await.unwrap()) });
    staged::count(&place.join("test.db"))
}

storage_conformance::main!(
    Target::new("sqlite", |ns| file(ns, None)).requires(ALL).leftovers(left).damage(damage).group("files"),
    Target::new("sqlite-versions", |ns| file(ns, Some(10)))
        .requires(ALL.versioning())
        .leftovers(left)
        .damage(damage)
        .group("files"),
    on_server("postgres", "STORAGE_TEST_POSTGRES", None).group("servers"),
    on_server("postgres-versions", "STORAGE_TEST_POSTGRES", Some(10)).group("servers"),
    on_server("mariadb", "STORAGE_TEST_MARIADB", None).group("servers"),
    on_server("mariadb-versions", "STORAGE_TEST_MARIADB", Some(10)).group("servers"),
);
