//! What the tests have in common: where the server is, how a store is opened there, and a server without a replica set.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    env, fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use mongodb::{Client, bson::doc, options::ClientOptions};
use storage_config::ConnectionConfig;
use storage_conformance::Namespace;
use storage_core::{Error, ErrorKind, Key, Result};
use storage_mongodb::{Config, Mongo};
use tokio::sync::Mutex;

/// Names the server. It may be a member of a replica set of one.
pub(crate) const VARIABLE: &str = "STORAGE_TEST_SECANTUS";
/// The database that all tests share.
pub(crate) const DATABASE: &str = "storage";

/// `host:port` of the server.
pub(crate) fn server() -> String {
    let uri = env::var(VARIABLE).unwrap_or_default();
    uri.trim_start_matches("mongodb://").trim_end_matches('/').to_owned()
}

pub(crate) fn config(server: &str, collection: &str) -> Result<Config> {
    // The address of a proxy is not the one that the replica set tells.
    let uri = format!("mongodb://{server}/{DATABASE}?directConnection=true");
    let mut config = Config::from_connection(&ConnectionConfig::new(uri))?;
    config.collection = collection.into();
    // The emulator takes its time when the machine has other work.
    config.timeout = Duration::from_secs(30);
    config.max_connections = 20;
    Ok(config)
}

pub(crate) async fn open(ns: Namespace, standalone: bool, versions: Option<u32>) -> Result<Mongo> {
    let server = if standalone { without_replica_set() } else { server() };
    let mut config = config(&ns.address(&server)?, ns.name())?;
    config.versions = versions.and_then(NonZeroU32::new);
    Mongo::connect(config).await
}

/// A client of the driver's own.
pub(crate) async fn client() -> Client {
    let uri = format!("mongodb://{}/?directConnection=true", server());
    Client::with_options(ClientOptions::parse(uri).await.unwrap()).unwrap()
}

/// Writes metadata that nobody can read into the document of a key.
pub(crate) async fn damage(ns: Namespace, key: Key) -> Result<()> {
    let failed =
        |e: mongodb::error::Error| Error::new(ErrorKind::Other, "its document cannot be changed").with_source(e);
    let update = doc! { "q": { "_id": key.as_str() }, "u": { "$set": { "metadata.fields": ["no field"] } } };
    let command = doc! { "update": ns.name(), "updates": [update] };
    client().await.database(DATABASE).run_command(command).await.map(drop).map_err(failed)
}

/// How the collections of a namespace are dropped, over one client for all.
pub(crate) fn removal() -> impl Fn(Namespace) -> BoxFuture<'static, Result<()>> + Send + Sync {
    let kept: Arc<Mutex<Option<Client>>> = Arc::default();
    move |ns| {
        let kept = kept.clone();
        Box::pin(async move {
            let mut kept = kept.lock().await;
            if kept.is_none() {
                *kept = Some(client().await);
            }
            let Some(client) = &*kept else { return Ok(()) };
            let database = client.database(DATABASE);
            for of in ["", ".files", ".chunks", ".versions", ".leases", ".schema"] {
                let drop = database.run_command(doc! { "drop": format!("{}{of}", ns.name()) });
                match drop.await {
                    Err(e) if !is_missing(&e) => {
                        return Err(Error::new(ErrorKind::Other, "its collections cannot be dropped").with_source(e));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

/// A program of the server's own environment, which has PyMongo.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let home = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?.join("storage-services");
    let programs = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path().join("bin").join(name));
    programs.filter(|path| path.to_string_lossy().contains("secantus-")).find(|path| path.exists())
}

/// Whether the test cannot run for want of a server.
pub(crate) fn is_missing_server() -> bool {
    let missing = server().is_empty();
    assert!(
        !missing || env::var_os("STORAGE_TEST_REQUIRE").is_none(),
        "{VARIABLE} is not set, it must name the server"
    );
    missing
}

/// Drops the collections of a store.
pub(crate) async fn drop_all(collection: &str) {
    let database = client().await.database(DATABASE);
    for of in ["", ".files", ".chunks", ".versions", ".leases", ".schema"] {
        // One that is not there is dropped already.
        let _ = database.run_command(doc! { "drop": format!("{collection}{of}") }).await;
    }
}

fn is_missing(e: &mongodb::error::Error) -> bool {
    matches!(&*e.kind, mongodb::error::ErrorKind::Command(e) if e.code == 26)
}

/// The same server behind a proxy that hides the name of its replica set, so that it looks like a standalone one.
pub(crate) fn without_replica_set() -> String {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| hiding(server(), &[b"setName"])).clone()
}

/// A server behind a proxy that hides the fields that begin so from its answers.
pub(crate) fn hiding(server: String, names: &'static [&'static [u8]]) -> String {
    // What a server says of itself comes in one piece. Nothing else has fields of these names.
    let hide = move |answer: &mut [u8]| {
        for name in names {
            while let Some(at) = answer.windows(name.len()).position(|window| window == *name) {
                answer[at] = b'z';
            }
        }
    };
    altering(server, |_| {}, hide)
}

/// A server behind a proxy that lets nobody wait for news of the server for longer than a moment. A server tells its news at once; what a
/// fail point of the emulator does is none to it, so that the driver would wait ten seconds to see it well again.
pub(crate) fn telling_at_once(server: String) -> String {
    const WAIT: &[u8] = b"maxAwaitTimeMS\0";
    let shorten = |request: &mut [u8]| {
        let Some(at) = request.windows(WAIT.len()).position(|window| window == WAIT) else { return };
        if let Some((value, _)) = request[at + WAIT.len()..].split_at_mut_checked(2) {
            // A number of 4 or 8 bytes, the least first.
            value.copy_from_slice(&100_u16.to_le_bytes());
        }
    };
    altering(server, shorten, |_| {})
}

/// A proxy that may change what goes through it, piece by piece as it comes.
fn altering(server: String, requests: fn(&mut [u8]), answers: impl Fn(&mut [u8]) + Copy + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(&server) else { continue };
            let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
            thread::spawn(move || pass(from, to, requests));
            thread::spawn(move || pass(upstream, client, answers));
        }
    });
    address
}

fn pass(mut from: TcpStream, mut to: TcpStream, alter: impl Fn(&mut [u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        alter(&mut buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
