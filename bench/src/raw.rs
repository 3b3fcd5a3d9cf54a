//! The operations on sqlx alone, as a program would write them that needs nothing else: one table, keys as bytes, one statement
//! for each operation, prepared once.

use bytes::Bytes;
use sqlx::{MySql, Pool, Postgres, Sqlite};

use crate::{Result, subject::Subject};

/// How many rows one statement of a batch writes.
const ROWS: usize = 500;

/// A table of keys, values, a number to query by and the time of the last write.
pub(crate) struct Raw<D: sqlx::Database>(pub(crate) Pool<D>);

impl<D: sqlx::Database> Clone for Raw<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What differs: names of types, places of arguments, and how a row replaces another.
struct Texts {
    create: [&'static str; 3],
    now: &'static str,
    conflict: &'static str,
    length: &'static str,
    numbered: bool,
}

const SQLITE: Texts = Texts {
    create: [
        "DROP TABLE IF EXISTS bench_raw",
        "CREATE TABLE bench_raw (k BLOB PRIMARY KEY, v BLOB NOT NULL, n INTEGER, updated INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX bench_raw_n ON bench_raw (n)",
    ],
    now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    conflict: "ON CONFLICT (k) DO UPDATE SET v = excluded.v, n = excluded.n, updated = excluded.updated",
    length: "length(v)",
    numbered: false,
};
const POSTGRES: Texts = Texts {
    create: [
        "DROP TABLE IF EXISTS bench_raw",
        "CREATE TABLE bench_raw (k BYTEA PRIMARY KEY, v BYTEA NOT NULL, n BIGINT, updated BIGINT NOT NULL)",
        "CREATE INDEX bench_raw_n ON bench_raw (n)",
    ],
    now: "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    conflict: "ON CONFLICT (k) DO UPDATE SET v = excluded.v, n = excluded.n, updated = excluded.updated",
    length: "CAST(octet_length(v) AS BIGINT)",
    numbered: true,
};
const MARIADB: Texts = Texts {
    create: [
        "DROP TABLE IF EXISTS bench_raw",
        "CREATE TABLE bench_raw (k VARBINARY(1024) PRIMARY KEY, v LONGBLOB NOT NULL, n BIGINT, updated BIGINT NOT NULL)",
        "CREATE INDEX bench_raw_n ON bench_raw (n)",
    ],
    now: "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
    conflict: "ON DUPLICATE KEY UPDATE v = VALUES(v), n = VALUES(n), updated = VALUES(updated)",
    length: "CAST(length(v) AS SIGNED)",
    numbered: false,
};

impl Texts {
    fn insert(&self, rows: usize) -> String {
        let rows = vec![format!("(?, ?, ?, {})", self.now); rows].join(", ");
        self.text(&format!("INSERT INTO bench_raw (k, v, n, updated) VALUES {rows} {}", self.conflict))
    }

    fn text(&self, sql: &str) -> String {
        let mut text = String::new();
        for (i, part) in sql.split('?').enumerate() {
            match (i, self.numbered) {
                (0, _) => {}
                (_, true) => text += &format!("${i}"),
                (_, false) => text.push('?'),
            }
            text += part;
        }
        text
    }
}

/// The driver's types are not generic enough for one implementation.
macro_rules! raw {
    ($database:ty, $texts:ident) => {
        impl Raw<$database> {
            /// Makes the table anew, with values whose number is their place.
            pub(crate) async fn prepare(&self, items: &[(String, Bytes)]) -> Result<()> {
                for statement in $texts.create {
                    sqlx::raw_sql(statement).execute(&self.0).await?;
                }
                self.fill(items, |i| Some(i as i64)).await
            }

            /// Writes values, each with a number or none.
            async fn fill(&self, items: &[(String, Bytes)], number: impl Fn(usize) -> Option<i64>) -> Result<()> {
                let mut transaction = self.0.begin().await?;
                for (part, some) in items.chunks(ROWS).enumerate() {
                    let sql = sqlx::AssertSqlSafe($texts.insert(some.len()));
                    let mut insert = sqlx::query(sql);
                    for (i, (key, value)) in some.iter().enumerate() {
                        insert = insert.bind(key.as_bytes()).bind(&value[..]).bind(number(part * ROWS + i));
                    }
                    insert.execute(&mut *transaction).await?;
                }
                Ok(transaction.commit().await?)
            }
        }

        impl Subject for Raw<$database> {
            async fn put(&self, key: &str, value: Bytes) -> Result<()> {
                let sql = sqlx::AssertSqlSafe($texts.insert(1));
                let insert = sqlx::query(sql).bind(key.as_bytes()).bind(&value[..]).bind(None::<i64>);
                insert.execute(&self.0).await?;
                Ok(())
            }

            async fn get(&self, key: &str) -> Result<Bytes> {
                let sql = sqlx::AssertSqlSafe($texts.text("SELECT v, updated FROM bench_raw WHERE k = ?"));
                let (value, _): (Vec<u8>, i64) = sqlx::query_as(sql).bind(key.as_bytes()).fetch_one(&self.0).await?;
                Ok(value.into())
            }

            async fn stat(&self, key: &str) -> Result<u64> {
                let sql = format!("SELECT {}, updated FROM bench_raw WHERE k = ?", $texts.length);
                let sql = sqlx::AssertSqlSafe($texts.text(&sql));
                let (length, _): (i64, i64) = sqlx::query_as(sql).bind(key.as_bytes()).fetch_one(&self.0).await?;
                Ok(length.try_into()?)
            }

            async fn list(&self, prefix: &str) -> Result<usize> {
                let sql =
                    format!("SELECT k, {}, updated FROM bench_raw WHERE k >= ? AND k < ? ORDER BY k", $texts.length);
                let sql = sqlx::AssertSqlSafe($texts.text(&sql));
                let end = [prefix.as_bytes(), &[0xff]].concat();
                let rows: Vec<(Vec<u8>, i64, i64)> =
                    sqlx::query_as(sql).bind(prefix.as_bytes()).bind(end).fetch_all(&self.0).await?;
                Ok(rows.len())
            }

            async fn write(&self, _: &str, _: Vec<Bytes>) -> Result<()> {
                Err("one statement cannot stream a value in".into())
            }

            async fn read(&self, _: &str) -> Result<usize> {
                Err("one statement cannot stream a value out".into())
            }

            async fn batch(&self, items: Vec<(String, Bytes)>) -> Result<()> {
                self.fill(&items, |_| None).await
            }

            async fn query(&self, number: i64) -> Result<usize> {
                let sql = format!("SELECT k, {}, updated FROM bench_raw WHERE n = ?", $texts.length);
                let sql = sqlx::AssertSqlSafe($texts.text(&sql));
                let rows: Vec<(Vec<u8>, i64, i64)> = sqlx::query_as(sql).bind(number).fetch_all(&self.0).await?;
                Ok(rows.len())
            }
        }
    };
}
raw!(Sqlite, SQLITE);
raw!(Postgres, POSTGRES);
raw!(MySql, MARIADB);
