//! Writers that lock one another out: deadlocks are ended and nothing is lost, and of several processes none is left without its
//! turn.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    env,
    process::{Command, Stdio},
    time::Duration,
};

use storage_core::{BatchOptions, ErrorKind, PutOptions, Storage, Tx};
use storage_sql::{Config, Sql};
use support::{Engine, Place};
use tokio::time::{sleep, timeout};

/// How long a deadlock may last, with much to spare.
const PATIENCE: Duration = Duration::from_secs(60);

async fn texts(storage: &Storage) -> (String, String) {
    let text = async |key| String::from_utf8(storage.get(key).await.unwrap().unwrap().to_vec()).unwrap();
    (text("a").await, text("b").await)
}

/// Locks the second key where another transaction has locked it and waits for the first.
async fn cross(tx: Tx, name: &str, second: &str) -> Result<(), storage_core::Error> {
    let crossed = tx.put(second, name.to_owned()).await;
    match crossed {
        Ok(_) => tx.commit().await,
        Err(e) => {
            assert!(tx.get("a").await.is_err_and(|e| e.kind() == ErrorKind::Conflict), "it goes on after {e:?}");
            tx.rollback().await.unwrap();
            Err(e)
        }
    }
}

#[tokio::test]
async fn of_two_transactions_in_a_deadlock_one_commits() {
    for place in Place::servers() {
        let mut config = place.config();
        // Longer than the server needs to find out.
        config.busy_timeout = Duration::from_secs(30);
        let storage = place.connect(config).await;
        for round in 0..3 {
            storage.put_batch([("a", "old"), ("b", "old")]).await.unwrap();
            let (one, two) = (storage.begin().await.unwrap(), storage.begin().await.unwrap());
            one.put("a", "one").await.unwrap();
            two.put("b", "two").await.unwrap();
            let both = async { tokio::join!(cross(one, "one", "b"), cross(two, "two", "a")) };
            let (winner, e) = match timeout(PATIENCE, both).await.expect("the deadlock lasts") {
                (Ok(()), Err(e)) => ("one", e),
                (Err(e), Ok(())) => ("two", e),
                neither => panic!("expected one of two on {:?}, round {round}: {neither:?}", place.engine),
            };
            assert_eq!((e.kind(), e.is_retryable(), e.is_ambiguous()), (ErrorKind::Conflict, true, false), "{e:?}");
            // Both servers call it so.
            assert!(format!("{e:?}").to_lowercase().contains("deadlock"), "{e:?}");
            assert_eq!(texts(&storage).await, (winner.into(), winner.into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_in_deadlocks_are_run_again_and_lose_nothing() {
    for place in Place::servers() {
        let storage = place.open().await;
        storage.put_batch([("a", "0"), ("b", "0")]).await.unwrap();
        let add = async |keys: [&'static str; 2]| {
            for _ in 0..5 {
                let added = storage.transaction(|tx| async move {
                    for key in keys {
                        let old = tx.get(key).await?.unwrap_or_default();
                        let n: u64 = String::from_utf8_lossy(&old).parse().unwrap();
                        tx.put(key, (n + 1).to_string()).await?;
                        // The other gets to its first key.
                        sleep(Duration::from_millis(20)).await;
                    }
                    Ok::<_, storage_core::Error>(())
                });
                added.await.unwrap();
            }
        };
        timeout(PATIENCE, async { tokio::join!(add(["a", "b"]), add(["b", "a"])) }).await.expect("it hangs");
        assert_eq!(texts(&storage).await, ("10".into(), "10".into()), "{:?}", place.engine);
    }
}

/// How many deadlocks the server has ended.
async fn deadlocks(place: &Place) -> i64 {
    place
        .count(match place.engine {
            Engine::Postgres => "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
            _ => {
                "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS \
                 WHERE VARIABLE_NAME = 'Innodb_deadlocks'"
            }
        })
        .await
}

#[tokio::test]
async fn a_batch_in_a_deadlock_is_written_again_without_a_word() {
    for place in Place::servers() {
        let mut config = place.config();
        config.busy_timeout = Duration::from_secs(30);
        let storage = place.connect(config).await;
        storage.put_batch([("a", "old"), ("b", "old")]).await.unwrap();
        let before = deadlocks(&place).await;
        let tx = storage.begin().await.unwrap();
        // MariaDB ends the transaction that has written less. A batch might make it look through the table, and lock it all.
        for i in 0..10 {
            tx.put(format!("more/{i}"), "tx").await.unwrap();
        }
        tx.put("b", "tx").await.unwrap();
        let batch = async {
            let both = ["a", "b"].map(|key| (key, "batch", PutOptions::new()));
            storage.put_batch_with(both, BatchOptions::new().atomic(true)).await
        };
        let crossing = async {
            // By now the batch has locked the first key, and waits for the second; PostgreSQL ends who waits longest.
            sleep(Duration::from_millis(500)).await;
            tx.put("a", "tx").await?;
            tx.commit().await
        };
        let (written, committed) =
            timeout(PATIENCE, async { tokio::join!(batch, crossing) }).await.expect("the deadlock lasts");
        committed.unwrap();
        assert!(written.unwrap().iter().all(Result::is_ok));
        assert_eq!(texts(&storage).await, ("batch".into(), "batch".into()), "{:?}", place.engine);
        // PostgreSQL counts with some delay.
        let counted = async {
            while deadlocks(&place).await == before {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, counted).await.expect("there was no deadlock");
    }
}

const PLACE: &str = "STORAGE_SQL_TEST_CHILD";
/// How many writers each process has.
const WRITERS: usize = 2;
/// How many writes a race has, and how many of them the slower process must have made: a third.
const RACE: u64 = 600;
const SHARE: u64 = 200;

fn patient(path: impl AsRef<std::path::Path>) -> Config {
    let mut config = Config::sqlite(path);
    config.busy_timeout = PATIENCE;
    config
}

/// Writes rising numbers until told to stop.
async fn write(storage: Storage, name: String) {
    for n in 1_u64.. {
        if storage.has("over").await.unwrap() {
            return;
        }
        storage.put(format!("writer/{name}"), n.to_string()).await.unwrap();
    }
}

async fn write_all(storage: &Storage, process: &str) {
    let writers: Vec<_> =
        (0..WRITERS).map(|i| tokio::spawn(write(storage.clone(), format!("{process} {i}")))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// How often the writers of each process have written.
async fn written(storage: &Storage) -> [u64; 2] {
    let mut written = [0; 2];
    for (process, sum) in ["one", "two"].iter().zip(&mut written) {
        for i in 0..WRITERS {
            let n = storage.get(format!("writer/{process} {i}")).await.unwrap().unwrap_or_default();
            *sum += String::from_utf8_lossy(&n).parse().unwrap_or(0);
        }
    }
    written
}

/// What the second process of the next test does; on its own it does nothing.
#[tokio::test]
async fn child() {
    if let Some(path) = env::var_os(PLACE) {
        write_all(&Storage::new(Sql::connect(patient(path)).await.unwrap()), "two").await;
    }
}

#[tokio::test]
async fn of_two_processes_that_write_a_file_each_has_its_share() {
    let place = Place::new();
    let storage = place.connect(patient(place.path())).await;
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child"]).env(PLACE, place.path()).stdout(Stdio::null());
    let mut other = command.spawn().unwrap();
    let own = storage.clone();
    let own = tokio::spawn(async move { write_all(&own, "one").await });
    // The race begins when both are there.
    let both_there = async {
        while written(&storage).await.contains(&0) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, both_there).await.expect("a process never has its turn");
    let before = written(&storage).await;
    let shares = loop {
        let now = written(&storage).await;
        let shares = [now[0] - before[0], now[1] - before[1]];
        let ended = own.is_finished() || other.try_wait().unwrap().is_some();
        if ended || shares.iter().sum::<u64>() >= RACE {
            break shares;
        }
        sleep(Duration::from_millis(5)).await;
    };
    storage.put("over", "").await.unwrap();
    own.await.unwrap();
    assert!(tokio::task::spawn_blocking(move || other.wait().unwrap()).await.unwrap().success());
    assert!(shares.iter().all(|share| *share >= SHARE), "{shares:?}");
}
