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
use storage_core::{ByteRange, Condition, GetOptions, ListOptions, PutOptions, Query, Storage};
use storage_mongodb::Mongo;

/// The commands that have passed, but for what the driver says on its own.
type Commands = Arc<Mutex<Vec<String>>>;

fn counting(server: String) -> (String, Commands) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, commands) = (listener.local_addr().unwrap().to_string(), Commands::default());
    let seen = commands.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let upstream = TcpStream::connect(&server).unwrap();
            let (mut back, mut to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back, &mut to));
            let seen = seen.clone();
            thread::spawn(move || forward(client, upstream, &seen));
        }
    });
    (address, commands)
}

/// Passes whole messages on: <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>.
fn forward(mut client: TcpStream, mut upstream: TcpStream, seen: &Commands) -> Option<()> {
    loop {
        let mut header = [0; 16];
        client.read_exact(&mut header).ok()?;
        let len = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
        let mut body = vec![0; len - 16];
        client.read_exact(&mut body).ok()?;
        // Flags, the kind of section, the length of the document, the type of its first element.
        let is_message = header[12..16] == 2013_u32.to_le_bytes();
        if let Some(name) = body.get(10..).filter(|_| is_message).and_then(|rest| rest.split(|byte| *byte == 0).next())
        {
            let name = String::from_utf8_lossy(name).into_owned();
            if !["hello", "isMaster", "ismaster", "ping", "endSessions"].contains(&name.as_str()) {
                seen.lock().unwrap().push(name);
            }
        }
        upstream.write_all(&header).and_then(|()| upstream.write_all(&body)).ok()?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_costs_what_the_readme_says() {
    if support::is_missing_server() {
        return;
    }
    let (address, commands) = counting(support::server());
    let collection = format!("counts{:08x}", fastrand::u32(..));
    let storage = Storage::new(Mongo::connect(support::config(&address, &collection).unwrap()).await.unwrap());
    let take = || std::mem::take(&mut *commands.lock().unwrap());
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
    storage.clear().await.unwrap();
    support::drop_all(&collection).await;
}
