//! Indexes that are made while others write: no query misses what was written meanwhile.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use storage_core::{ErrorKind, Metadata, PutOptions, Query, Storage};
use storage_sql::Sql;
use support::{Engine, Place};
use tokio::{task::JoinHandle, time::sleep};

fn described() -> PutOptions {
    PutOptions::new().metadata(Metadata::new().tag("t").field("n", 7))
}

/// Connects and makes an index of the field, and comes as far as it can.
async fn indexing(place: &Place) -> JoinHandle<Storage> {
    let mut config = place.config();
    config.indexes = ["n".to_owned()].into();
    let connecting = tokio::spawn(async move { Storage::new(Sql::connect(config).await.unwrap()) });
    sleep(Duration::from_millis(500)).await;
    connecting
}

/// The keys that both kinds of queries find, with the index and without.
async fn found(place: &Place, indexed: &Storage) -> Vec<String> {
    let page = indexed.query_page(Query::new().equals("n", 7)).await.unwrap();
    let found: Vec<String> = page.entries.iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!(place.count("SELECT count(*) FROM storage_fields").await, found.len() as i64, "{:?}", place.engine);
    found
}

#[tokio::test]
async fn a_transaction_that_wrote_before() {
    for place in Place::servers() {
        let storage = place.open().await;
        let tx = storage.begin().await.unwrap();
        tx.put_with("k", "v", described()).await.unwrap();
        let connecting = indexing(&place).await;
        tx.commit().await.unwrap();
        assert_eq!(found(&place, &connecting.await.unwrap()).await, ["k"]);
    }
}

#[tokio::test]
async fn a_transaction_that_began_before_and_writes_after() {
    for place in Place::servers() {
        let storage = place.open().await;
        storage.put_with("old", "v", described()).await.unwrap();
        let tx = storage.begin().await.unwrap();
        assert_eq!(tx.get("k").await.unwrap(), None);
        let connecting = indexing(&place).await;
        let written = async {
            tx.put_with("k", "v", described()).await?;
            tx.commit().await
        };
        let expected: &[&str] = match written.await {
            Ok(()) => &["k", "old"],
            Err(e) if e.kind() == ErrorKind::Conflict => &["old"],
            Err(e) => panic!("{e:?}"),
        };
        assert_eq!(found(&place, &connecting.await.unwrap()).await, expected);
    }
}

#[tokio::test]
async fn a_write_that_is_half_done() {
    for place in Place::servers() {
        let storage = place.open().await;
        let tags = format!("{}_tags", place.table);
        // Fields are written before tags, for which this one has to wait.
        let (lock, uri) = match place.engine {
            Engine::Postgres => (format!("BEGIN; LOCK TABLE {tags} IN SHARE MODE"), place.engine.uri()),
            _ => (format!("START TRANSACTION; SELECT * FROM {tags} FOR UPDATE"), place.engine.uri()),
        };
        let lock = sqlx::raw_sql(AssertSqlSafe(lock));
        let unlock: Box<dyn FnOnce()> = match place.engine {
            Engine::Postgres => {
                let mut raw = PgConnection::connect(&uri).await.unwrap();
                raw.execute(lock).await.unwrap();
                Box::new(move || drop(raw))
            }
            _ => {
                let mut raw = MySqlConnection::connect(&uri).await.unwrap();
                raw.execute(lock).await.unwrap();
                Box::new(move || drop(raw))
            }
        };
        let writing = tokio::spawn(async move { storage.put_with("k", "v", described()).await });
        sleep(Duration::from_millis(300)).await;
        let connecting = indexing(&place).await;
        assert!(!writing.is_finished());
        unlock();
        writing.await.unwrap().unwrap();
        assert_eq!(found(&place, &connecting.await.unwrap()).await, ["k"]);
    }
}
