//! Clients whose clocks are wrong by days: leases are judged by the server's clock, and so are writes dated.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    env,
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use futures_util::stream;
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use storage_core::{Body, Bytes, Storage};
use storage_mongodb::Mongo;
use tokio::{sync::mpsc, task::JoinHandle};

const PIECE: usize = 1 << 20;
const PIECES: usize = 5;

async fn open(server: &str, collection: &str) -> Storage {
    let mut config = support::config(server, collection).unwrap();
    config.sweep_after = Duration::from_secs(60 * 60);
    Storage::new(Mongo::connect(config).await.unwrap())
}

/// A large value that is not received as a whole before somebody says so.
struct Upload {
    pieces: mpsc::Sender<Bytes>,
    task: JoinHandle<storage_core::Result<storage_core::Entry>>,
}

impl Upload {
    async fn begin(storage: &Storage, key: &'static str) -> Self {
        let (pieces, received) = mpsc::channel::<Bytes>(1);
        let body = Body::stream(stream::unfold(received, |mut received| async {
            let piece = received.recv().await?;
            Some((Ok(piece), received))
        }));
        let storage = storage.clone();
        let task = tokio::spawn(async move { storage.put(key, body).await });
        for _ in 0..PIECES {
            pieces.send(vec![7; PIECE].into()).await.unwrap();
        }
        Self { pieces, task }
    }

    async fn end(self) {
        drop(self.pieces);
        assert_eq!(self.task.await.unwrap().unwrap().size, (PIECE * PIECES) as u64);
    }
}

/// What the process with the wrong clock does; on its own it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn client() {
    let Ok(place) = env::var("CLOCK") else { return };
    let (server, collection) = place.split_once(' ').unwrap();
    // Connecting sweeps.
    let storage = open(server, collection).await;
    let upload = Upload::begin(&storage, "of the client").await;
    storage.put("small", "of the client").await.unwrap();
    println!("uploading");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    upload.end().await;
    println!("acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_ends_no_lease_and_spares_none() {
    if support::is_missing_server() {
        return;
    }
    if Command::new("faketime").arg("--version").output().is_err() {
        assert!(env::var_os("STORAGE_TEST_REQUIRE").is_none(), "there is no program faketime; install it");
        eprintln!("not run: there is no program faketime");
        return;
    }
    for shift in ["-3d", "+3d"] {
        let (server, collection) = (support::server(), format!("clock{:08x}", fastrand::u32(..)));
        let storage = open(&server, &collection).await;
        let upload = Upload::begin(&storage, "ours").await;
        // Of a process that has died: two hours old by the server's clock, which is that of this machine.
        let (dead, database) = (ObjectId::new(), support::client().await.database(support::DATABASE));
        let old = DateTime::from_system_time(SystemTime::now() - Duration::from_secs(2 * 60 * 60));
        let leases = database.collection::<Document>(&format!("{collection}.leases"));
        leases.insert_one(doc! { "_id": dead, "key": "k", "state": "open", "renewed": old }).await.unwrap();

        let mut client = Command::new("faketime");
        client.args(["-f", shift]).arg(env::current_exe().unwrap());
        client.args(["--exact", "client", "--nocapture", "--quiet"]).env("CLOCK", format!("{server} {collection}"));
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut output, mut said) = (client.stdout.take().unwrap(), String::new());
        while !said.contains("uploading") {
            let mut some = [0; 100];
            let n = output.read(&mut some).unwrap();
            assert!(n > 0, "the client has ended: {said}");
            said += std::str::from_utf8(&some[..n]).unwrap();
        }
        let left = leases.count_documents(doc! { "_id": dead }).await.unwrap();
        assert_eq!(left, 0, "{shift}: a client with a wrong clock spares what has expired");
        // This sweeps, too.
        drop(open(&server, &collection).await);
        client.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        output.read_to_string(&mut said).unwrap();
        assert!(client.wait().unwrap().success() && said.contains("acknowledged"), "{shift}: {said}");
        upload.end().await;
        for key in ["ours", "of the client"] {
            assert_eq!(storage.get(key).await.unwrap().unwrap().len(), PIECE * PIECES, "{shift}: {key}");
        }
        let entry = storage.stat("small").await.unwrap().unwrap();
        for (what, date) in [("created", entry.created), ("modified", entry.modified)] {
            let date = date.unwrap();
            let off = date.duration_since(SystemTime::now()).unwrap_or_else(|e| e.duration());
            assert!(off < Duration::from_secs(60), "{shift}: {what} is off by {off:?}");
        }
        support::drop_all(&collection).await;
    }
}
