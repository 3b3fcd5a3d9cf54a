//! SlateDB on `AsObjectStore`: writes, compaction, reopening, and the fencing of a writer by another.
//!
//! `STORAGE_SLATEDB_ROUNDS` says how many rounds of writes there are, each of which is compared with a model; 6 by default.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use slatedb::{
    CloseReason, Db, ErrorKind,
    config::{CompactorOptions, Settings},
};
use storage_core::Storage;
use storage_fs::Fs;
use storage_object_store::{AsObjectStore, object_store::ObjectStore};
use storage_sql::{Config, Sql};

const PATH: &str = "database";
/// How many keys a round writes; every tenth it deletes.
const WRITES: u32 = 5_000;
/// How many different keys there are.
const KEYS: u32 = 20_000;

/// Small tables, so that there is something to compact.
fn settings() -> Settings {
    let compactor = CompactorOptions { poll_interval: Duration::from_millis(50), ..CompactorOptions::default() };
    Settings {
        flush_interval: Some(Duration::from_millis(20)),
        manifest_poll_interval: Duration::from_millis(50),
        l0_sst_size_bytes: 128 << 10,
        compactor_options: Some(compactor),
        ..Settings::default()
    }
}

async fn open(store: &Arc<dyn ObjectStore>) -> Db {
    Db::builder(PATH, store.clone()).with_settings(settings()).build().await.unwrap()
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

async fn write(db: &Db, model: &mut Model, round: u32) {
    for i in 0..WRITES {
        // Multiplying spreads the keys, and never leaves out any.
        let key = format!("key {:08}", (i + round * WRITES).wrapping_mul(2_654_435_761) % KEYS).into_bytes();
        if i % 10 == 9 {
            db.delete(&key).await.unwrap();
            model.remove(&key);
        } else {
            let value = format!("round {round} value {i} {}", "x".repeat((i % 200) as usize)).into_bytes();
            db.put(&key, &value).await.unwrap();
            model.insert(key, value);
        }
    }
    db.flush().await.unwrap();
}

async fn all(db: &Db) -> Model {
    let mut entries = db.scan::<std::ops::RangeFull>(..).await.unwrap();
    let mut found = Model::new();
    while let Some(entry) = entries.next().await.unwrap() {
        found.insert(entry.key.to_vec(), entry.value.to_vec());
    }
    found
}

async fn runs(store: Arc<dyn ObjectStore>) {
    let rounds = env::var("STORAGE_SLATEDB_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let mut model = Model::new();
    let mut compacted = false;
    for round in 0..rounds {
        let db = open(&store).await;
        assert!(all(&db).await == model, "round {round}: what was written before is there, and nothing else");
        write(&db, &mut model, round).await;
        assert!(all(&db).await == model, "round {round}: what was written now is there, too");
        compacted |= !db.manifest().compacted().is_empty();
        db.close().await.unwrap();
    }
    let db = open(&store).await;
    let until = Instant::now() + Duration::from_secs(60);
    while !compacted && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        compacted = !db.manifest().compacted().is_empty();
    }
    assert!(compacted, "tables were compacted");
    assert!(all(&db).await == model, "after compaction, everything is there");
    db.close().await.unwrap();
}

async fn fences(store: Arc<dyn ObjectStore>) {
    let first = open(&store).await;
    first.put("k", "first").await.unwrap();
    first.flush().await.unwrap();
    let second = open(&store).await;
    second.put("k", "second").await.unwrap();
    second.flush().await.unwrap();
    // Whichever call notices.
    let late = async {
        first.put("k", "late").await?;
        first.flush().await
    };
    let error = late.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed(CloseReason::Fenced), "{error:?}");
    assert_eq!(second.get("k").await.unwrap().unwrap(), "second");
    second.close().await.unwrap();
    let third = open(&store).await;
    assert_eq!(third.get("k").await.unwrap().unwrap(), "second");
    third.close().await.unwrap();
}

async fn fs(dir: &tempfile::TempDir) -> Arc<dyn ObjectStore> {
    Arc::new(AsObjectStore::new(Storage::new(Fs::open(dir.path()).await.unwrap())))
}

async fn sqlite(dir: &tempfile::TempDir) -> Arc<dyn ObjectStore> {
    let config = Config::sqlite(dir.path().join("db"));
    Arc::new(AsObjectStore::new(Storage::new(Sql::connect(config).await.unwrap())))
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_on_files() {
    let dir = tempfile::tempdir().unwrap();
    runs(fs(&dir).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    runs(sqlite(&dir).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_on_files() {
    let dir = tempfile::tempdir().unwrap();
    fences(fs(&dir).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    fences(sqlite(&dir).await).await;
}
