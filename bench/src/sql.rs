//! storage-sql beside its driver alone, on each database that there is.

use std::{env, path::Path};

use bytes::Bytes;
use sqlx::{
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use storage_core::{BatchOptions, ConnectionConfig, Metadata, PutOptions, Storage};
use storage_sql::{Config, Sql};
use tempfile::TempDir;

use crate::{
    Result,
    groups::{Contestants, Group, OURS, entry, group},
    machine::{Machine, version},
    raw::Raw,
    report,
    subject::{self, ENTRIES, Operation},
};

const RAW: &str = "sqlx";
/// How many connections each has.
const CONNECTIONS: u32 = 10;

/// One group for each database.
pub(crate) async fn run(dir: &Path, quick: bool, only: Option<&str>) -> Result<Vec<Group>> {
    use Operation::{Batch, Get, List, Put, Query, Stat};
    let wanted = |database: &str| {
        let asked = |row: &Operation| only.is_none_or(|only| format!("{database}: {row}").contains(only));
        [Get, Stat, List, Query, Put, Batch].into_iter().filter(asked).collect::<Vec<_>>()
    };
    let mut groups = Vec::new();

    if !wanted("SQLite").is_empty() {
        let root = TempDir::new_in(dir)?;
        let ours = ours(Config::sqlite(root.path().join("ours.db"))).await?;
        // What storage-sql sets, too, at its default durability.
        let options = SqliteConnectOptions::new()
            .filename(root.path().join("raw.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let raw = Raw(pool::<sqlx::Sqlite>().connect_with(options).await?);
        raw.prepare().await?;
        raw.fill(&described(), |i| Some(i as i64)).await?;
        let all = contestants(&ours, &raw).await?;
        groups.push(group("SQLite", all, &wanted("SQLite"), quick).await?);
    }
    if !wanted("PostgreSQL").is_empty()
        && let Some(uri) = address("STORAGE_TEST_POSTGRES")
    {
        let ours = self::ours(Config::from_connection(&ConnectionConfig::new(uri.as_str()))?).await?;
        let raw = Raw(pool::<sqlx::Postgres>().connect(&uri).await?);
        raw.prepare().await?;
        raw.fill(&described(), |i| Some(i as i64)).await?;
        let all = contestants(&ours, &raw).await?;
        groups.push(group("PostgreSQL", all, &wanted("PostgreSQL"), quick).await?);
    }
    if !wanted("MariaDB").is_empty()
        && let Some(uri) = address("STORAGE_TEST_MARIADB")
    {
        let ours = self::ours(Config::from_connection(&ConnectionConfig::new(uri.as_str()))?).await?;
        let raw = Raw(pool::<sqlx::MySql>().connect(&uri).await?);
        raw.prepare().await?;
        raw.fill(&described(), |i| Some(i as i64)).await?;
        let all = contestants(&ours, &raw).await?;
        groups.push(group("MariaDB", all, &wanted("MariaDB"), quick).await?);
    }
    Ok(groups)
}

/// The result as a page.
pub(crate) fn markdown(machine: &Machine, groups: &[Group], quick: bool) -> String {
    let Machine { cores, filesystem, system, date, load } = machine;
    let quick = if quick { "**A quick run**, with a fifth of the samples.\n\n" } else { "" };
    format!(
        "<!-- Written by `cargo xtask bench --sql`. -->\n# Benchmarks: SQL\n\n\
         storage-sql beside sqlx {} alone, measured side by side in one run of `cargo xtask bench --sql` on {date}: {cores} cores, \
         {system}, files on {filesystem}, servers on loopback, load average before the run {load:.1}.\n\n{quick}{METHOD}{}",
        version("sqlx"),
        report::tables(groups)
    )
}

const METHOD: &str = "\
How it is measured, [benchmarks.md](benchmarks.md) says. *sqlx* is what a program would write that needs no more than these \
operations: one table with key, value, a number and the time of the write, one prepared statement for each operation. Both have \
10 connections and the same durability: SQLite with a write-ahead log and `synchronous = FULL`, the servers as they are set. \
storage-sql's entries have etags that are never used again, conditions, metadata of any shape, and values of any size besides; its listing \
comes in pages of 500.

OpenDAL's SQL services are not here: they bring sqlx 0.8, which takes another version of SQLite than ours, and a program can only have one.

";

fn address(variable: &str) -> Option<String> {
    let address = env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        eprintln!("{variable} is not set: its server is left out");
    }
    address
}

fn pool<D: sqlx::Database>() -> PoolOptions<D> {
    PoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false)
}

async fn ours(mut config: Config) -> Result<Storage> {
    config.table = "bench_ours".into();
    config.max_connections = CONNECTIONS;
    config.indexes = ["n".to_owned()].into();
    let storage = Storage::new(Sql::connect(config).await?).erase();
    storage.clear().await?;
    let items = described().into_iter().zip(0..).map(|((key, value), n)| {
        let n: i64 = n;
        (key, value, PutOptions::new().metadata(Metadata::new().field("n", n)))
    });
    for result in storage.put_batch_with(items, BatchOptions::new()).await? {
        result?;
    }
    Ok(storage)
}

/// What queries look through.
fn described() -> Vec<(String, Bytes)> {
    (0..ENTRIES).map(|i| (format!("described/{i:05}"), Bytes::from_static(b"v"))).collect()
}

async fn contestants<D: sqlx::Database>(ours: &Storage, raw: &Raw<D>) -> Result<Contestants>
where
    Raw<D>: subject::Subject,
{
    subject::fill_small(ours).await?;
    subject::fill_small(raw).await?;
    Ok(vec![entry(OURS, ours).await?, entry(RAW, raw).await?])
}
