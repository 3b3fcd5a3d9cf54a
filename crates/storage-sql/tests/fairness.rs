//! Transactions on a file beside writers that never pause: each has its turn, by counting, whatever the speed.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use storage_core::{ErrorKind, Storage};
use support::{Place, kind};
use tokio::{task::JoinHandle, time::sleep};

/// How many transactions there are.
const TRANSACTIONS: u64 = 30;

/// Writers of keys of their own, which count their writes until they are told to stop.
struct Writers {
    over: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    async fn new(storage: &Storage, count: u64) -> Self {
        let (over, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let write = |i: u64| {
            let (storage, over, writes) = (storage.clone(), over.clone(), writes.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    storage.put(format!("writer/{i}"), "v").await.unwrap();
                    writes.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let tasks = (0..count).map(write).collect();
        while writes.load(Ordering::SeqCst) < count {
            sleep(Duration::from_millis(1)).await;
        }
        Self { over, writes, tasks }
    }

    fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    async fn stop(self) {
        self.over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Counts, with a pause between what is read and what is written.
async fn count(storage: &Storage, pause: Duration) {
    let counted = storage.transaction(|tx| async move {
        let n = tx.get("counter").await?.unwrap_or_default();
        let n: u64 = String::from_utf8_lossy(&n).parse().unwrap_or(0);
        sleep(pause).await;
        tx.put("counter", (n + 1).to_string()).await.map(drop)
    });
    counted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_has_its_turn_among_writers_of_other_keys() {
    for writers in [2, 8] {
        let place = Place::new();
        let mut config = place.config();
        (config.max_connections, config.busy_timeout) = (20, Duration::from_secs(60));
        let storage = place.connect(config).await;
        let others = Writers::new(&storage, writers).await;
        let before = others.writes();
        for _ in 0..TRANSACTIONS {
            count(&storage, Duration::ZERO).await;
        }
        let meanwhile = others.writes() - before;
        others.stop().await;
        assert_eq!(storage.get("counter").await.unwrap().unwrap(), TRANSACTIONS.to_string());
        // In order each writer would have one turn for each of the transactions; the first few have to lose first.
        assert!(meanwhile <= TRANSACTIONS * writers * 3 + 100, "{meanwhile} writes beside {writers} writers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_has_one_that_takes_its_time() {
    let place = Place::new();
    let mut config = place.config();
    config.busy_timeout = Duration::from_secs(60);
    let storage = place.connect(config).await;
    let others = Writers::new(&storage, 2).await;
    for _ in 0..4 {
        count(&storage, Duration::from_millis(30)).await;
    }
    others.stop().await;
    assert_eq!(storage.get("counter").await.unwrap().unwrap(), "4");
}

#[tokio::test]
async fn a_transaction_that_does_not_write_gives_its_turn_away() {
    let place = Place::new();
    let storage = place.open().await;
    storage.put("k", "old").await.unwrap();
    for n in 0..4 {
        // The next ones begin with their turn.
        let loser = storage.begin().await.unwrap();
        loser.get("k").await.unwrap();
        storage.put("other", "v").await.unwrap();
        let lost = loser.put("k", "lost").await;
        if n == 0 {
            assert_eq!(kind(lost), ErrorKind::Conflict);
        }
        drop(loser);
        let reader = storage.begin().await.unwrap();
        let before = storage.get("k").await.unwrap().unwrap();
        assert_eq!(reader.get("k").await.unwrap().unwrap(), before);
        // A writer waits for no longer than the reservation lasts; what the reader sees stays.
        storage.put("k", n.to_string()).await.unwrap();
        assert_eq!(reader.get("k").await.unwrap().unwrap(), before);
        if n % 2 == 0 {
            reader.commit().await.unwrap();
        } else {
            assert_eq!(kind(reader.put("k", "stale").await), ErrorKind::Conflict);
            reader.rollback().await.unwrap();
        }
        assert_eq!(storage.get("k").await.unwrap().unwrap(), n.to_string());
    }
}
