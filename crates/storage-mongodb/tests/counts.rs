//! How many round trips each call costs, as counted between the driver and the server.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use storage_core::{BatchOptions, ByteRange, Condition, GetOptions, ListOptions, PutOptions, Query, Storage};
use storage_mongodb::Mongo;

/// What has passed, but for what the driver says on its own.
#[derive(Default)]
struct Passed {
    commands: Vec<String>,
    /// Of requests and of answers.
    bytes: usize,
    /// How many have not been answered, and how many there were at once at most.
    open: usize,
    at_once: usize,
}

type Commands = Arc<Mutex<Passed>>;

fn counting(server: String) -> (String, Commands) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, commands) = (listener.local_addr().unwrap().to_string(), Commands::default());
    let seen = commands.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let upstream = TcpStream::connect(&server).unwrap();
            let (back, to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            let (asked, answered) = (seen.clone(), seen.clone());
            thread::spawn(move || forward(back, to, |_, len| answer(&answered, len)));
            thread::spawn(move || forward(client, upstream, |message, len| request(&asked, message, len)));
        }
    });
    (address, commands)
}

/// Passes whole messages on: <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>.
fn forward(mut from: TcpStream, mut to: TcpStream, mut tell: impl FnMut(&[u8], usize)) -> Option<()> {
    loop {
        let mut message = vec![0; 16];
        from.read_exact(&mut message).ok()?;
        let len = u32::from_le_bytes(message[..4].try_into().ok()?) as usize;
        message.resize(len, 0);
        from.read_exact(&mut message[16..]).ok()?;
        tell(&message, len);
        to.write_all(&message).ok()?;
    }
}

fn request(seen: &Commands, message: &[u8], len: usize) {
    // Behind the header flags, the kind of section, the length of the document, the type of its first element.
    let name = message.get(26..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let mut seen = seen.lock().unwrap();
    if message[12..16] == 2013_u32.to_le_bytes()
        && !["hello", "isMaster", "ismaster", "ping", "endSessions"].contains(&name.as_str())
    {
        seen.commands.push(name);
        seen.bytes += len;
        seen.open += 1;
        seen.at_once = seen.at_once.max(seen.open);
    }
}

fn answer(seen: &Commands, len: usize) {
    let mut seen = seen.lock().unwrap();
    seen.bytes += len;
    seen.open = seen.open.saturating_sub(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_costs_what_the_readme_says() {
    if support::is_missing_server() {
        return;
    }
    let (address, commands) = counting(support::server());
    let collection = format!("counts{:08x}", fastrand::u32(..));
    let storage = Storage::new(Mongo::connect(support::config(&address, &collection).unwrap()).await.unwrap());
    let passed = || std::mem::take(&mut *commands.lock().unwrap());
    let take = || passed().commands;
    take();

    let etag = storage.put("a", "1").await.unwrap().etag.unwrap();
    assert_eq!(take(), ["update"], "put over nothing");
    storage.put("a", "2").await.unwrap();
    assert_eq!(take(), ["update"], "put over a small value");
    storage.put_with("b", "1", PutOptions::new().condition(Condition::IfAbsent)).await.unwrap();
    assert_eq!(take(), ["update"], "create");
    let current = storage.stat("b").await.unwrap().unwrap().etag.unwrap();
    assert_eq!(take(), ["find"], "stat");
    storage.put_with("b", "2", PutOptions::new().if_match(&current)).await.unwrap();
    assert_eq!(take(), ["update"], "replace under an etag");
    storage.put_with("a", "3", PutOptions::new().if_match(&etag)).await.unwrap_err();
    assert_eq!(take(), ["update", "find"], "replace under a stale etag");
    storage.get("a").await.unwrap();
    assert_eq!(take(), ["find"], "get");
    storage.list_with(ListOptions::new()).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(take(), ["find"], "a page of a listing");
    storage.query_page(Query::new().any_tag(["x"])).await.unwrap();
    assert_eq!(take(), ["aggregate"], "a page of a query");
    storage.delete("b").await.unwrap();
    assert_eq!(take(), ["delete"], "delete");

    let many = |value: &'static str| (0..1000).map(move |i| (format!("many/{i}"), value));
    storage.put_batch(many("1")).await.unwrap();
    assert_eq!(take(), ["update"], "a batch of 1,000 new keys");
    storage.put_batch(many("2")).await.unwrap();
    assert_eq!(take(), ["update"], "a batch of 1,000 keys that are there");

    storage.put("large", vec![7; 9 << 20]).await.unwrap();
    take();
    let range = GetOptions::new().range(ByteRange::Bounded(5 << 20, (5 << 20) + 10));
    storage.get_with("large", range).await.unwrap();
    assert_eq!(take(), ["find", "find"], "a range of a large value");
    storage.get("large").await.unwrap();
    assert_eq!(take(), ["find", "find", "find", "find"], "a large value: its document, and one for each 4 MiB");

    // Each under its own etag, several at once.
    let some = (0..20).map(|i| (format!("many/{i}"), "3"));
    let etags = storage.put_batch(some.clone()).await.unwrap().into_iter().map(|entry| entry.etag.unwrap());
    take();
    let under = some.zip(etags).map(|((key, value), etag)| (key, value, PutOptions::new().if_match(&etag)));
    let written = storage.put_batch_with(under, BatchOptions::new()).await.unwrap();
    assert!(written.iter().all(Result::is_ok));
    let seen = passed();
    assert_eq!(seen.commands, ["update"; 20], "a batch with conditions");
    assert!(seen.at_once > 1, "one after the other");

    storage.copy("a", "copy").await.unwrap();
    assert_eq!(take(), ["find", "update"], "a copy of a small value");
    storage.rename("copy", "renamed").await.unwrap();
    assert_eq!(take(), ["find", "update", "delete"], "a rename of a small value");
    let atomic = storage.put_batch_with(
        many("4").map(|(key, value)| (key, value, PutOptions::new())),
        BatchOptions::new().atomic(true),
    );
    atomic.await.unwrap();
    assert_eq!(take(), ["find", "find", "update", "commitTransaction"], "an atomic batch of 1,000 keys");
    storage.clear().await.unwrap();
    support::drop_all(&collection).await;
}

/// The server copies a large value by itself, for a rename, too; in a transaction a rename hands it over.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_copied_and_renamed_without_their_bytes() {
    if support::is_missing_server() {
        return;
    }
    const LARGE: usize = 17 << 20;
    const LITTLE: usize = 1 << 16;
    let value: Vec<u8> = (0..LARGE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for standalone in [false, true] {
        let server = if standalone { support::without_replica_set() } else { support::server() };
        let (address, commands) = counting(server);
        let collection = format!("moved{:08x}", fastrand::u32(..));
        let storage = Storage::new(Mongo::connect(support::config(&address, &collection).unwrap()).await.unwrap());
        let passed = || std::mem::take(&mut *commands.lock().unwrap());
        storage.put("a", value.clone()).await.unwrap();
        storage.put("replaced", vec![1; 2 << 20]).await.unwrap();
        passed();
        storage.copy("a", "b").await.unwrap();
        let seen = passed();
        assert!(seen.bytes < LITTLE, "a copy: {} bytes, {:?}", seen.bytes, seen.commands);
        storage.rename("a", "replaced").await.unwrap();
        let seen = passed();
        assert!(seen.bytes < LITTLE, "a rename: {} bytes, {:?}", seen.bytes, seen.commands);
        if !standalone {
            let tx = storage.begin().await.unwrap();
            tx.copy("b", "c").await.unwrap();
            tx.rename("replaced", "renamed").await.unwrap();
            tx.rename("b", "c").await.unwrap();
            tx.commit().await.unwrap();
            let seen = passed();
            // Two ranges and their count, for the copy alone: a rename hands over.
            assert_eq!(seen.commands.iter().filter(|command| *command == "aggregate").count(), 3);
            assert!(seen.bytes < LITTLE, "within: {} bytes, {:?}", seen.bytes, seen.commands);
            for key in ["c", "renamed"] {
                assert!(storage.get(key).await.unwrap().unwrap() == value, "{key}");
            }
        }
        let database = support::client().await.database(support::DATABASE);
        let files = database.collection::<Document>(&format!("{collection}.files"));
        let mut names: Vec<String> = files
            .distinct("filename", doc! {})
            .await
            .unwrap()
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        names.sort();
        let keys: Vec<String> =
            storage.keys().await.unwrap().map_ok(|key| key.as_str().to_owned()).try_collect().await.unwrap();
        // What other clients of GridFS see.
        assert_eq!(names, keys);
        let count = async |of: &str| {
            database.run_command(doc! { "count": format!("{collection}.{of}") }).await.unwrap().get_i32("n").unwrap()
        };
        assert_eq!(count("files").await, 2);
        assert_eq!(count("chunks").await, 2 * LARGE.div_ceil(255 * 1024) as i32);
        assert_eq!(count("leases").await, 0);
        assert!(storage.get(&keys[0]).await.unwrap().unwrap() == value);
        support::drop_all(&collection).await;
    }
}
