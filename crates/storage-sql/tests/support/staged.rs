//! What is staged in a SQLite file without an owner.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{path::Path, thread};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tokio::runtime::Builder;

/// How many values are staged that no entry owns.
pub(crate) fn count(file: &Path) -> usize {
    // A connection that may not write leaves the log of a killed process to whoever opens the store next.
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let count = wait(async {
        let mut raw = options.connect().await.unwrap();
        let sql = "SELECT count(*) FROM storage_uploads WHERE entry IS NULL AND past IS NULL";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap();
        raw.close().await.unwrap();
        count
    });
    usize::try_from(count).unwrap()
}

/// Waits for a future, also where the caller is in a runtime, in which no other can run.
pub(crate) fn wait<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    thread::scope(|threads| threads.spawn(move || runtime.block_on(future)).join().unwrap())
}
