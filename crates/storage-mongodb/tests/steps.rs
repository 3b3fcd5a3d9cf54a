//! A writer that is killed, or stands still past its lease, between any two commands: no value is lost, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "support/gate.rs"]
mod gate;

use std::{
    env,
    io::Read,
    process::{Command, Stdio},
    time::Duration,
};

use gate::{Gate, Side};
use mongodb::bson::doc;
use storage_core::{Bytes, Result, Storage};
use storage_mongodb::Mongo;

/// Of several requests.
const LARGE: usize = 5 << 20;
const INLINE: usize = 1000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Put,
    Overwrite,
    Shrink,
    Delete,
}

impl Step {
    const ALL: [Self; 4] = [Self::Put, Self::Overwrite, Self::Shrink, Self::Delete];

    fn before(self) -> Option<Bytes> {
        match self {
            Self::Put => None,
            _ => Some(vec![b'o'; LARGE].into()),
        }
    }

    fn after(self) -> Option<Bytes> {
        match self {
            Self::Put | Self::Overwrite => Some(vec![b'n'; LARGE].into()),
            Self::Shrink => Some("small".into()),
            Self::Delete => None,
        }
    }

    async fn take(self, storage: &Storage) -> Result<()> {
        match self.after() {
            Some(new) => storage.put("k", new).await.map(drop),
            None => storage.delete("k").await,
        }
    }
}

async fn open(server: &str, collection: &str, timeout: Duration) -> Mongo {
    let mut config = support::config(server, collection).unwrap();
    config.inline_limit = INLINE;
    config.timeout = timeout;
    // Whoever connects takes every other writer for dead.
    config.sweep_after = Duration::ZERO;
    // On a busy machine the server may need longer than that.
    for _ in 0..100 {
        match Mongo::connect(config.clone()).await {
            Ok(mongo) => return mongo,
            Err(e) => assert!(e.is_retryable(), "{e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server does not answer within {timeout:?}, a hundred times");
}

/// A collection whose key is as the step finds it.
async fn prepared(step: Step) -> String {
    let collection = format!("steps{:08x}", fastrand::u32(..));
    let storage = Storage::new(open(&support::server(), &collection, Duration::from_secs(30)).await);
    if let Some(old) = step.before() {
        storage.put("k", old).await.unwrap();
    }
    collection
}

/// What is there when the writer has gone: the old value or the new, whole, and not a chunk or a lease more.
async fn check(collection: &str, step: Step, acknowledged: bool, at: &str) {
    let storage = Storage::new(open(&support::server(), collection, Duration::from_secs(30)).await);
    // Marked as committing, a lease is left alone for four times this.
    let mongo = open(&support::server(), collection, Duration::from_millis(400)).await;
    let there = storage.get("k").await.unwrap();
    assert!(
        there == step.after() || !acknowledged && there == step.before(),
        "{at}: {:?} bytes",
        there.map(|b| b.len())
    );
    let file = there.is_some_and(|there| there.len() > INLINE);
    let expected = if file { [1, LARGE.div_ceil(255 * 1024) as i32, 0] } else { [0, 0, 0] };
    let database = support::client().await.database(support::DATABASE);
    let count = async |of: &str| {
        database.run_command(doc! { "count": format!("{collection}.{of}") }).await.unwrap().get_i32("n").unwrap()
    };
    let mut left = [0; 3];
    for _ in 0..200 {
        // A sweep that is too slow for its time is made again.
        let _ = mongo.sweep().await;
        left = [count("files").await, count("chunks").await, count("leases").await];
        if left == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(left, expected, "files, chunks, leases; {at}");
    support::drop_all(collection).await;
}

/// What the killed process does; on its own it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn writer() {
    let Ok(place) = env::var("STEPS") else { return };
    let [server, collection, step] = place.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let step = Step::ALL[step.parse::<usize>().unwrap()];
    let mut config = support::config(server, collection).unwrap();
    config.inline_limit = INLINE;
    let storage = Storage::new(Mongo::connect(config).await.unwrap());
    println!("connected");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    step.take(&storage).await.unwrap();
    println!("acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_commands() {
    if support::is_missing_server() {
        return;
    }
    let all = Step::ALL.into_iter().enumerate().map(|(n, step)| async move {
        let mut kills = 0;
        for command in 1.. {
            let mut stopped = false;
            for side in [Side::Before, Side::Behind] {
                let at = format!("{step:?}, {side:?} command {command}");
                let collection = prepared(step).await;
                let (died, acknowledged) = {
                    let collection = collection.clone();
                    tokio::task::spawn_blocking(move || killed(&collection, n, command, side)).await.unwrap()
                };
                check(&collection, step, acknowledged, &at).await;
                stopped |= died;
                kills += u32::from(died);
            }
            if !stopped {
                break;
            }
        }
        eprintln!("{step:?}: {kills} kills");
        assert!(kills >= 4, "{step:?} takes {kills} commands, which are too few");
    });
    futures_util::future::join_all(all).await;
}

/// Runs a writer and kills it there. Whether it came so far, and whether its caller has been told of success.
fn killed(collection: &str, step: usize, command: usize, side: Side) -> (bool, bool) {
    let gate = Gate::new(support::server());
    let mut writer = Command::new(env::current_exe().unwrap());
    writer.args(["--exact", "writer", "--nocapture", "--quiet"]);
    writer.env("STEPS", format!("{} {collection} {step}", gate.address));
    let mut writer = writer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = writer.stdout.take().unwrap();
    let mut said = String::new();
    while !said.contains("connected") {
        let mut some = [0; 100];
        let n = output.read(&mut some).unwrap();
        assert!(n > 0, "the writer has ended: {said}");
        said += std::str::from_utf8(&some[..n]).unwrap();
    }
    gate.stop_at(command, side);
    std::io::Write::write_all(writer.stdin.as_mut().unwrap(), b"\n").unwrap();
    let died = gate.stops(|| writer.try_wait().unwrap().is_none());
    writer.kill().unwrap();
    writer.wait().unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    (died, (said + &rest).contains("acknowledged"))
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_still_past_its_lease_behind_any_command() {
    if support::is_missing_server() {
        return;
    }
    let all = Step::ALL.into_iter().map(|step| async move {
        for command in 1.. {
            let at = format!("{step:?}, command {command}");
            let collection = prepared(step).await;
            let gate = Gate::new(support::server());
            let storage = Storage::new(open(&gate.address, &collection, Duration::from_secs(2)).await);
            gate.stop_at(command, Side::Behind);
            let writing = tokio::spawn(async move {
                let done = step.take(&storage).await;
                (storage, done)
            });
            let (stopped, gate) = tokio::task::spawn_blocking({
                let writing = writing.abort_handle();
                move || (gate.stops(|| !writing.is_finished()), gate)
            })
            .await
            .unwrap();
            if stopped {
                // Longer than it may take for a command, and than others leave its lease alone.
                tokio::time::sleep(Duration::from_millis(2200)).await;
                let other = open(&support::server(), &collection, Duration::from_millis(400)).await;
                for _ in 0..4 {
                    let _ = other.sweep().await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            gate.open();
            let (storage, done) = writing.await.unwrap();
            drop(storage);
            let reader = Storage::new(open(&support::server(), &collection, Duration::from_secs(30)).await);
            let there = reader.get("k").await.unwrap();
            // What went wrong may be ambiguous; then either value is there.
            let either = done.is_err() && there == step.before();
            assert!(there == step.after() || either, "{at}: {done:?}, {:?} bytes", there.map(|b| b.len()));
            check(&collection, step, done.is_ok(), &at).await;
            if !stopped {
                break;
            }
        }
    });
    futures_util::future::join_all(all).await;
}
