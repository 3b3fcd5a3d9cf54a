//! Three stores of SQLite that become four, while others write and read; the process that moves the values is killed again and again.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    collections::BTreeMap,
    env,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use storage_core::{Storage, StorageBackend};
use storage_multi::{RebalanceOptions, Sharded, ShardedOptions, Store};
use storage_sql::{Config, Sql};
use tokio::time::sleep;

const KEYS: usize = 1200;
/// The directory in which the process that a test starts moves values.
const VARIABLE: &str = "STORAGE_MULTI_TEST_MOVES_IN";

async fn open(dir: &Path, names: &[&str]) -> Sharded {
    let mut stores = Vec::new();
    for name in names {
        let backend = Sql::connect(Config::sqlite(dir.join(format!("{name}.db")))).await.unwrap();
        stores.push(Store::new(name, Arc::new(backend) as Arc<dyn StorageBackend>).unwrap());
    }
    Sharded::open_with(stores, ShardedOptions::new().rebalance(true)).await.unwrap()
}

async fn homes(storage: &Storage<Sharded>) -> BTreeMap<String, String> {
    let entries: Vec<_> = storage.list("old/").await.unwrap().try_collect().await.unwrap();
    let homes = entries.iter().map(|e| (e.key.to_string(), e.attributes.get("source").unwrap().to_owned()));
    homes.collect()
}

/// Does nothing unless the other test starts it as a process of its own.
#[tokio::test]
async fn a_process_that_moves_values() {
    let Ok(dir) = env::var(VARIABLE) else { return };
    let sharded = open(Path::new(&dir), &["a", "b", "c", "d"]).await;
    sharded.rebalance(RebalanceOptions::new().keys_per_second(300)).await.unwrap();
}

/// Writes its own keys again and again, and reads what it wrote, until all is over.
async fn writer(storage: Storage<Sharded>, who: usize, over: Arc<AtomicBool>) -> usize {
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        for key in (who..40).step_by(2) {
            let name = format!("new/{key}");
            storage.put(&name, format!("{round}")).await.unwrap();
            assert_eq!(storage.get(&name).await.unwrap().unwrap(), format!("{round}"), "{name}");
            let old = format!("old/{:04}", (round * 40 + key) % KEYS);
            assert_eq!(storage.get(&old).await.unwrap().unwrap(), old);
            if key % 5 == 0 {
                storage.delete(&name).await.unwrap();
                assert_eq!(storage.get(&name).await.unwrap(), None, "{name}");
            }
        }
        let listed: Vec<_> = storage.list("old/").await.unwrap().try_collect().await.unwrap();
        assert_eq!(listed.len(), KEYS, "a listing lacks values, or has some twice");
        round += 1;
    }
    round
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_added_while_everything_goes_on_and_the_mover_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), &["a", "b", "c"]).await;
    let storage = Storage::typed(open(dir.path(), &["a", "b", "c", "d"]).await);
    for n in 0..KEYS {
        let name = format!("old/{n:04}");
        storage.put(&name, name.clone()).await.unwrap();
    }
    let before = homes(&storage).await;
    assert!(before.values().all(|home| home != "d"));
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2).map(|who| tokio::spawn(writer(storage.clone(), who, over.clone()))).collect();
    let mut kills = 0;
    // The first is killed before anything moves; the others go on where it was.
    for millis in [1000, 13_500, 300, 600, 300, 600, u64::MAX] {
        let mut mover = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_process_that_moves_values"])
            .env(VARIABLE, dir.path())
            .spawn()
            .unwrap();
        for _ in 0..(millis / 100).min(600) {
            sleep(Duration::from_millis(100)).await;
            if let Some(ended) = mover.try_wait().unwrap() {
                assert!(ended.success());
                break;
            }
        }
        if mover.try_wait().unwrap().is_none() {
            mover.kill().unwrap();
            mover.wait().unwrap();
            kills += 1;
        }
    }
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 1);
    }
    assert!(kills >= 2, "the mover was killed {kills} times");
    let after = homes(&storage).await;
    let moved: Vec<_> = before.iter().filter(|(key, home)| after[*key] != **home).collect();
    assert!(moved.iter().all(|(key, _)| after[*key] == "d"), "a value moved between two stores that stayed");
    assert!(moved.len().abs_diff(KEYS / 4) < 60, "{} of {KEYS} moved", moved.len());
    // The layout is the new one, without any option.
    let mut stores = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let backend = Sql::connect(Config::sqlite(dir.path().join(format!("{name}.db")))).await.unwrap();
        stores.push(Store::new(name, Arc::new(backend) as Arc<dyn StorageBackend>).unwrap());
    }
    Sharded::open(stores).await.unwrap();
}
