//! A writer that is killed, or stands still past its lease, between any two commands: no value is lost, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "support/gate.rs"]
mod gate;

#[path = "support/own.rs"]
mod own;

use std::{
    env,
    io::Read,
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::{StreamExt, future, stream};
use gate::{Gate, Side};
use mongodb::{Client, bson::doc};
use own::Server;
use storage_core::{Bytes, Result, Storage};
use storage_mongodb::Mongo;

/// Of several requests.
const LARGE: usize = 5 << 19;
const INLINE: usize = 1000;
/// How many commands of a step are tried at once.
const AT_ONCE: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    Put,
    Overwrite,
    Shrink,
    Delete,
    Copy,
    Rename,
}

/// What is under the key, and under another that it is copied or renamed from.
type Values = [Option<Bytes>; 2];

impl Step {
    const ALL: [Self; 6] = [Self::Put, Self::Overwrite, Self::Shrink, Self::Delete, Self::Copy, Self::Rename];

    fn before(self) -> Values {
        let (old, new) = (Some(vec![b'o'; LARGE].into()), Some(vec![b'n'; LARGE].into()));
        match self {
            Self::Put => [None, None],
            Self::Overwrite | Self::Shrink | Self::Delete => [old, None],
            Self::Copy | Self::Rename => [old, new],
        }
    }

    fn after(self) -> Values {
        let new = Some(vec![b'n'; LARGE].into());
        match self {
            Self::Put | Self::Overwrite | Self::Rename => [new, None],
            Self::Shrink => [Some("small".into()), None],
            Self::Delete => [None, None],
            Self::Copy => [new.clone(), new],
        }
    }

    /// Whether the step may leave this when it ends half way. A rename is a copy and a delete.
    fn leaves(self, there: &Values) -> bool {
        let [before, after] = [self.before(), self.after()];
        *there == before
            || *there == after
            || matches!(self, Self::Rename) && *there == [after[0].clone(), before[1].clone()]
    }

    async fn take(self, storage: &Storage) -> Result<()> {
        match (self, self.after()) {
            (Self::Copy, _) => storage.copy("from", "k").await.map(drop),
            (Self::Rename, _) => storage.rename("from", "k").await.map(drop),
            (_, [Some(new), _]) => storage.put("k", new).await.map(drop),
            (_, [None, _]) => storage.delete("k").await,
        }
    }
}

async fn values(storage: &Storage) -> Values {
    [storage.get("k").await.unwrap(), storage.get("from").await.unwrap()]
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

/// Where the steps are taken.
struct Place {
    _server: Server,
    address: String,
    client: Client,
}

impl Place {
    /// `None` where there is no server to be had.
    async fn new() -> Option<Self> {
        let server = Server::start(&[]).await?;
        Some(Self { address: server.address(), client: server.client().await, _server: server })
    }
}

/// A collection whose key is as the step finds it.
async fn prepared(server: &str, step: Step) -> String {
    let collection = format!("steps{:08x}", fastrand::u32(..));
    let storage = Storage::new(open(server, &collection, Duration::from_secs(30)).await);
    for (key, value) in ["k", "from"].into_iter().zip(step.before()) {
        if let Some(value) = value {
            storage.put(key, value).await.unwrap();
        }
    }
    collection
}

/// What is there when the writer has gone: the old value or the new, whole, and not a chunk or a lease more.
async fn check(place: &Place, collection: &str, step: Step, acknowledged: bool, at: &str) {
    let storage = Storage::new(open(&place.address, collection, Duration::from_secs(30)).await);
    // Marked as committing, a lease is left alone for four times this.
    let mongo = open(&place.address, collection, Duration::from_millis(400)).await;
    let there = values(&storage).await;
    let lengths = there.each_ref().map(|value| value.as_ref().map(Bytes::len));
    assert!(there == step.after() || !acknowledged && step.leaves(&there), "{at}: {lengths:?} bytes");
    let files = lengths.iter().flatten().filter(|len| **len > INLINE).count() as i32;
    let expected = [files, files * LARGE.div_ceil(255 * 1024) as i32, 0];
    let database = place.client.database(support::DATABASE);
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
    let Some(place) = &Place::new().await else { return };
    let all = Step::ALL.into_iter().enumerate().map(|(n, step)| async move {
        let each =
            stream::iter(1..).flat_map(|command| stream::iter([(command, Side::Before), (command, Side::Behind)]));
        let each = each.map(|(command, side)| async move {
            let at = format!("{step:?}, {side:?} command {command}");
            let collection = prepared(&place.address, step).await;
            let (died, acknowledged) = {
                let (server, collection) = (place.address.clone(), collection.clone());
                tokio::task::spawn_blocking(move || killed(server, &collection, n, command, side)).await.unwrap()
            };
            check(place, &collection, step, acknowledged, &at).await;
            died
        });
        let kills = each.buffered(AT_ONCE).take_while(|died| future::ready(*died)).count().await;
        eprintln!("{step:?}: {kills} kills");
        assert!(kills >= 4, "{step:?} takes {kills} commands, which are too few");
    });
    future::join_all(all).await;
}

/// Runs a writer and kills it there. Whether it came so far, and whether its caller has been told of success.
fn killed(server: String, collection: &str, step: usize, command: usize, side: Side) -> (bool, bool) {
    let gate = Gate::new(server);
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
    // A command that the server never got does not come to it now, beside the sweep.
    gate.cut();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    (died, (said + &rest).contains("acknowledged"))
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_still_past_its_lease_behind_any_command() {
    let Some(place) = &Place::new().await else { return };
    let all = Step::ALL.into_iter().map(|step| async move {
        let each = stream::iter(1..).map(|command| async move {
            let at = format!("{step:?}, command {command}");
            let collection = prepared(&place.address, step).await;
            let gate = Gate::new(place.address.clone());
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
                let other = open(&place.address, &collection, Duration::from_millis(400)).await;
                for _ in 0..4 {
                    let _ = other.sweep().await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            gate.open();
            let (storage, done) = writing.await.unwrap();
            drop(storage);
            let reader = Storage::new(open(&place.address, &collection, Duration::from_secs(30)).await);
            let there = values(&reader).await;
            // What went wrong may be ambiguous; then either value is there.
            let either = done.is_err() && step.leaves(&there);
            let lengths = there.each_ref().map(|value| value.as_ref().map(Bytes::len));
            assert!(there == step.after() || either, "{at}: {done:?}, {lengths:?} bytes");
            check(place, &collection, step, done.is_ok(), &at).await;
            stopped
        });
        each.buffered(AT_ONCE).take_while(|stopped| future::ready(*stopped)).count().await
    });
    let stops = future::join_all(all).await;
    assert!(stops.iter().all(|stops| *stops >= 2), "{stops:?} commands, which are too few");
}
