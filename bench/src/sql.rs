//! storage-sql beside its driver alone, on each database that there is.

use std::{env, path::PathBuf};

use bytes::Bytes;
use sqlx::{
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use storage_config::ConnectionConfig;
use storage_core::{BatchOptions, Metadata, PutOptions, Storage};
use storage_sql::{Config, Sql};
use tempfile::TempDir;

use crate::{
    Result,
    elsewhere::Elsewhere,
    groups::{Contestants, Group, OPENDAL, OURS, entry, group},
    machine::{Machine, version},
    raw::Raw,
    report,
    subject::{self, ENTRIES, Operation},
};

const RAW: &str = "sqlx";
/// OpenDAL's table.
const TABLE: &str = "bench_opendal";
/// How many connections each has.
const CONNECTIONS: u32 = 10;

/// What is measured.
pub(crate) struct Plan {
    /// Where the files lie.
    pub(crate) dir: PathBuf,
    pub(crate) quick: bool,
    /// Only rows whose `database: operation` contains this.
    pub(crate) only: Option<String>,
    /// The program that measures OpenDAL.
    pub(crate) opendal: Option<PathBuf>,
}

impl Plan {
    fn operations(&self, database: &str) -> Vec<Operation> {
        use Operation::{Batch, Get, List, Put, Query, Stat};
        let asked = |row: &Operation| {
            self.only.as_ref().is_none_or(|only| format!("{database}: {row}").contains(only.as_str()))
        };
        [Get, Stat, List, Query, Put, Batch].into_iter().filter(asked).collect()
    }

    /// Measures a database whose tables are prepared.
    async fn group<D: sqlx::Database>(
        &self,
        name: &'static str,
        (ours, raw): (Storage, Raw<D>),
        (service, address): (&str, &str),
    ) -> Result<Group>
    where
        Raw<D>: subject::Subject,
    {
        let mut all = contestants(&ours, &raw).await?;
        if let Some(program) = &self.opendal {
            all.push((OPENDAL, Box::new(Elsewhere::start(program, service, address, TABLE).await?)));
        }
        group(name, all, &self.operations(name), self.quick).await
    }
}

/// One group for each database.
pub(crate) async fn run(plan: &Plan) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    if !plan.operations("SQLite").is_empty() {
        let root = TempDir::new_in(&plan.dir)?;
        let ours = ours(Config::sqlite(root.path().join("ours.db"))).await?;
        // What storage-sql sets, too, at its default durability.
        let options = |name: &str| {
            SqliteConnectOptions::new()
                .filename(root.path().join(name))
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
        };
        let raw = Raw(pool::<sqlx::Sqlite>().connect_with(options("raw.db")).await?);
        raw.prepare(&described()).await?;
        // The file keeps its write-ahead log.
        let theirs = pool::<sqlx::Sqlite>().connect_with(options("opendal.db")).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE TABLE {TABLE} (k TEXT PRIMARY KEY, v BLOB NOT NULL)")))
            .execute(&theirs)
            .await?;
        theirs.close().await;
        let address = format!("sqlite://{}", root.path().join("opendal.db").display());
        groups.push(plan.group("SQLite", (ours, raw), ("sqlite", &address)).await?);
    }
    if !plan.operations("PostgreSQL").is_empty()
        && let Some(uri) = address("STORAGE_TEST_POSTGRES")
    {
        let ours = ours(Config::from_connection(&ConnectionConfig::new(uri.as_str()))?).await?;
        let raw = Raw(pool::<sqlx::Postgres>().connect(&uri).await?);
        raw.prepare(&described()).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (k TEXT PRIMARY KEY, v BYTEA NOT NULL)"
        )))
        .execute(&raw.0)
        .await?;
        groups.push(plan.group("PostgreSQL", (ours, raw), ("postgresql", &uri)).await?);
    }
    if !plan.operations("MariaDB").is_empty()
        && let Some(uri) = address("STORAGE_TEST_MARIADB")
    {
        let ours = ours(Config::from_connection(&ConnectionConfig::new(uri.as_str()))?).await?;
        let raw = Raw(pool::<sqlx::MySql>().connect(&uri).await?);
        raw.prepare(&described()).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (k VARCHAR(255) PRIMARY KEY, v LONGBLOB NOT NULL)"
        )))
        .execute(&raw.0)
        .await?;
        groups.push(plan.group("MariaDB", (ours, raw), ("mysql", &uri)).await?);
    }
    Ok(groups)
}

/// The result as a page.
pub(crate) fn markdown(machine: &Machine, groups: &[Group], quick: bool) -> String {
    let Machine { cores, filesystem, system, date, load } = machine;
    let quick = if quick { "**A quick run**, with a fifth of the samples.\n\n" } else { "" };
    format!(
        "<!-- Written by `cargo xtask bench --sql`. -->\n# Benchmarks: SQL\n\n\
         storage-sql beside sqlx {} alone and the SQL services of OpenDAL {}, measured side by side in one run of `cargo xtask bench --sql` on {date}: {cores} cores, \
         {system}, files on {filesystem}, servers on loopback, load average before the run {load:.1}.\n\n{quick}{METHOD}{}{WHY}",
        version("sqlx"),
        version("opendal"),
        report::tables(groups)
    )
}

const METHOD: &str = "\
How it is measured, [benchmarks.md](benchmarks.md) says. *sqlx* is what a program would write that needs no more than these \
operations: one table with key, value, a number and the time of the write, one prepared statement for each operation. Both have \
10 connections and the same durability: SQLite with a write-ahead log and `synchronous = FULL`, the servers as they are set. \
storage-sql's entries have etags that are never used again, conditions, metadata of any shape, and values of any size besides; its listing \
comes in pages of 500.

OpenDAL's services store key and value and nothing else: no time, size or etag of an entry is kept. They bring sqlx 0.8, whose SQLite \
cannot be linked beside ours, so they run in a process of their own that is told over a pipe what to do and takes the time itself; their \
pool has 10 connections too, and asks each connection before use whether it still works. They have no batches and no queries, and \
only that of MySQL lists.

";

const WHY: &str = "\
## Where the driver alone is faster

- *Every call* runs as a task of its own, so that a future that is not polled holds no connection, and a write whose future is dropped has \
happened or has not. That costs a change of tasks there and back.
- *get* and *stat* read ten columns and six where the driver reads two, among them metadata, which is parsed.
- *put* also takes a version from a sequence or counter that all writers share, compares times, and notes what it leaves \
to be cleaned up.
- *query* joins the table of fields with that of the entries and reads the entries whole; the driver's table has the number in itself. MariaDB \
sorts answers that have long texts in a table on disk.
- *batch*: how much is saved depends on what a commit costs. Here that is a tenth of a millisecond or two, and 4 KiB have to be \
written either way.

These reasons were read in plans, statements and sources; how much each contributes was not measured.
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
    let storage = Storage::new(Sql::connect(config).await?);
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
