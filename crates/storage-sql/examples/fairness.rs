//! How many transactions a SQLite file takes beside writers of other keys, in proportion to what it takes without them:
//! `cargo run --release -p storage-sql --example fairness [SECONDS]`, 12 seconds for each row unless said otherwise.
//!
//! Ends with a failure when transactions beside n writers get less than half of 1/(n + 1) of what they get alone.
#![allow(clippy::print_stdout, reason = "the figures are its output")]

use std::{
    env,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use storage_core::Storage;
use storage_sql::{Config, Sql};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = env::args().nth(1).map_or(Ok(12), |seconds| seconds.parse())?;
    let (mut alone, mut fair) = (0.0, true);
    println!("| writers | transactions a second | writes a second | share of 1/(n + 1) |");
    println!("|---|---|---|---|");
    for writers in [0, 1, 2, 4, 8] {
        let [transactions, writes] = measure(writers, Duration::from_secs(seconds)).await?;
        if writers == 0 {
            alone = transactions;
        }
        let share = transactions / alone * f64::from(writers + 1);
        fair &= share >= 0.5;
        println!("| {writers} | {transactions:.1} | {writes:.1} | {share:.2} |");
    }
    if fair { Ok(()) } else { Err("transactions get less than their share".into()) }
}

/// Transactions and plain writes a second.
async fn measure(writers: u32, time: Duration) -> Result<[f64; 2], Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let mut config = Config::sqlite(directory.path().join("fairness.db"));
    config.max_connections = 20;
    let storage = Storage::new(Sql::connect(config).await?);
    let (over, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..writers)
        .map(|i| {
            let (storage, over, writes) = (storage.clone(), over.clone(), writes.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    storage.put(format!("writer/{i}"), "v").await?;
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, storage_core::Error>(())
            })
        })
        .collect();
    let begun = Instant::now();
    let mut transactions = 0;
    while begun.elapsed() < time {
        let done = storage.transaction(|tx| async move {
            let n = tx.get("counter").await?.and_then(|n| String::from_utf8_lossy(&n).parse::<u64>().ok());
            tx.put("counter", (n.unwrap_or(0) + 1).to_string()).await.map(drop)
        });
        match done.await {
            Ok(()) => transactions += 1,
            Err(e) if e.is_retryable() => {}
            Err(e) => return Err(e.into()),
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok([f64::from(transactions) / seconds, writes.load(Ordering::Relaxed) as f64 / seconds])
}
