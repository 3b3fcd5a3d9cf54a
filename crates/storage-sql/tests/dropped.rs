//! Writes whose futures are dropped: none takes effect behind the answer to a later call, of the same transaction, of another instance
//! or of another process.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use futures_util::FutureExt;
use storage_core::{Bytes, Storage};
use storage_sql::Sql;
use support::Place;
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

const URI: &str = "STORAGE_SQL_TEST_WRITER";

#[tokio::test]
async fn a_call_of_a_transaction_dropped_before_its_turn_never_happens() {
    for place in Place::all() {
        let storage = place.open().await;
        let mut never = false;
        // On a busy machine the first call may have been answered when the second is dropped, which then was at its turn: then again.
        for round in 0..1000 {
            if never && round >= 10 {
                break;
            }
            let tx = storage.begin().await.unwrap();
            tx.delete("k").await.unwrap();
            let (mut first, mut late) = (Box::pin(tx.put("a", "v")), Box::pin(tx.put("k", "late")));
            assert!((&mut first).now_or_never().is_none() && (&mut late).now_or_never().is_none());
            // Both are at work now, and the second waits for the first.
            yield_now().await;
            drop(late);
            first.await.unwrap();
            never |= tx.get("k").await.unwrap().is_none();
            tx.put("k", "new").await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "new");
        }
        assert!(never, "{:?}", place.engine);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_transaction_never_overtakes_a_later_one() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    fastrand::seed(seed);
    for place in Place::all() {
        let storage = place.open().await;
        for _ in 0..10 {
            let tx = storage.begin().await.unwrap();
            for n in 0..20 {
                match fastrand::bool() {
                    true => drop(tx.put("k", format!("given up {n}")).now_or_never()),
                    false => {
                        let moment = Duration::from_micros(fastrand::u64(0..1500));
                        drop(timeout(moment, tx.put("k", format!("given up {n}"))).await);
                    }
                }
                tx.put("k", format!("new {n}")).await.unwrap();
                assert_eq!(tx.get("k").await.unwrap().unwrap(), format!("new {n}"), "{:?}", place.engine);
            }
            tx.commit().await.unwrap();
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "new 19");
        }
    }
}

/// Another process, which writes what it is told.
struct Writer {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn new(place: &Place) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "writer", "--nocapture", "--quiet"]).env(URI, place.uri());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut writer = Self { process, answers };
        writer.answer("connected");
        writer
    }

    fn put(&mut self, value: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{value}").unwrap();
        self.answer("written");
    }

    fn answer(&mut self, text: &str) {
        assert!(self.answers.any(|line| line.unwrap().contains(text)), "the process has ended");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// What the other process does; on its own it does nothing.
#[tokio::test]
async fn writer() {
    let Ok(uri) = env::var(URI) else {
        return;
    };
    let storage = Storage::new(Sql::open(&uri).await.unwrap());
    let say = |text: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
    };
    say("connected");
    for line in std::io::stdin().lines() {
        storage.put("k", line.unwrap()).await.unwrap();
        say("written");
    }
}

/// An embedded database keeps the rule among all that write it, for they meet at its lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_never_replaces_what_anybody_wrote_later() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    fastrand::seed(seed);
    let place = Place::new();
    let (storage, second) = (place.open().await, place.open().await);
    let mut process = Writer::new(&place);
    let large = Bytes::from(vec![b'l'; 100 << 20]);
    for round in 0..60 {
        let (value, moment) = match round {
            0..6 => (large.clone(), Duration::from_millis(20)),
            _ if round % 2 == 0 => (large.slice(..1 << 20), Duration::from_micros(fastrand::u64(0..20_000))),
            _ => (large.slice(..100), Duration::from_micros(fastrand::u64(0..3000))),
        };
        let given_up = timeout(moment, storage.put("k", value)).await;
        assert!(round >= 6 || given_up.is_err(), "a large value was written in no time");
        let new = format!("new {round}");
        match round % 3 {
            0 => drop(storage.put("k", new.clone()).await.unwrap()),
            1 => drop(second.put("k", new.clone()).await.unwrap()),
            _ => process.put(&new),
        }
        // Until nothing is under way any more.
        let mut looks = 0..500;
        loop {
            for reader in [&storage, &second] {
                let seen = reader.get("k").await.unwrap().unwrap();
                assert!(seen == new, "{} bytes in place of {new:?}", seen.len());
            }
            if place.count("SELECT count(*) FROM storage_uploads WHERE entry IS NULL").await == 0 {
                break;
            }
            assert!(looks.next().is_some(), "something stays staged");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
