//! The conformance suite on a real file and on real servers.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/staged.rs"]
mod staged;

use std::{env, path::Path, time::Duration};

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, ConnectionConfig, Result};
use storage_sql::{Config, Sql};

const ALL: Capabilities = Capabilities::new()
    .atomic()
    .streaming()
    .conditional()
    .conditional_delete()
    .unique_etags()
    .transactions()
    .queryable();

async fn file(ns: Namespace, versions: Option<u32>) -> Result<Sql> {
    let mut config = Config::sqlite(ns.dir().join("test.db"));
    config.versions = versions.and_then(std::num::NonZeroU32::new);
    Sql::connect(config).await
}

/// What is left of unfinished writes once a connection has been made `sweep_after` later.
fn left(place: &Path) -> usize {
    let mut config = Config::sqlite(place.join("test.db"));
    config.sweep_after = Duration::ZERO;
    staged::wait(async { drop(Sql::connect(config).await.unwrap()) });
    staged::count(&place.join("test.db"))
}

/// Tables of its own in the database that the variable names.
async fn server(variable: &str, ns: Namespace, versions: Option<u32>) -> Result<Sql> {
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

/// The target of a server, in both ways in which it can keep versions.
fn on_server(name: &str, variable: &'static str, versions: Option<u32>) -> Target {
    let capabilities = if versions.is_some() { ALL.versioning() } else { ALL };
    Target::new(name, move |ns| server(variable, ns, versions))
        .needs_env(variable)
        .runs_on("server")
        .secret(password(variable))
        .requires(capabilities)
}

storage_conformance::main!(
    Target::new("sqlite", |ns| file(ns, None)).requires(ALL).leftovers(left),
    Target::new("sqlite-versions", |ns| file(ns, Some(10))).requires(ALL.versioning()).leftovers(left),
    on_server("postgres", "STORAGE_TEST_POSTGRES", None),
    on_server("postgres-versions", "STORAGE_TEST_POSTGRES", Some(10)),
    on_server("mariadb", "STORAGE_TEST_MARIADB", None),
    on_server("mariadb-versions", "STORAGE_TEST_MARIADB", Some(10)),
);
