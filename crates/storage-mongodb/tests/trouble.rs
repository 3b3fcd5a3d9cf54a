//! A server that refuses the user, steps down, or confirms nothing: errors of the right kind, and nothing lost.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Document, doc},
    options::ClientOptions,
};
use storage_config::ConnectionConfig;
use storage_core::{Error, ErrorKind, Result, Storage};
use storage_layer_retry::RetryLayer;
use storage_mongodb::{Config, Mongo};
use tempfile::TempDir;

/// A server of a test's own.
struct Server {
    child: Child,
    port: u16,
    place: TempDir,
}

impl Server {
    /// `None` where the program is not installed.
    async fn start(arguments: &[&str]) -> Option<Self> {
        if support::is_missing_server() {
            return None;
        }
        Some(Self::start_in(tempfile::tempdir().unwrap(), arguments).await)
    }

    async fn start_in(place: TempDir, arguments: &[&str]) -> Self {
        let program = support::program("secantusd-py").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--log-level", "ERROR", "--storage-path"]);
        let child = command.arg(place.path()).args(arguments).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { child, port, place }
    }

    fn config(&self, user: &str, options: &str) -> Result<Config> {
        let uri = format!("mongodb://{user}127.0.0.1:{}/storage?{options}", self.port);
        let mut config = Config::from_connection(&ConnectionConfig::new(uri))?;
        config.timeout = Duration::from_secs(15);
        Ok(config)
    }

    async fn client(&self) -> Client {
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        Client::with_options(ClientOptions::parse(uri).await.unwrap()).unwrap()
    }

    /// The next command of this name fails so.
    async fn fail(&self, command: &str, mut how: Document) {
        how.insert("failCommands", vec![command]);
        let fail = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": how };
        self.client().await.database("admin").run_command(fail).await.unwrap();
    }

    /// The same place without the server.
    fn stop(mut self) -> TempDir {
        self.end();
        std::mem::replace(&mut self.place, tempfile::tempdir().unwrap())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_known_or_may_not_write_is_told() {
    let Some(server) = Server::start(&["--sync-on-commit"]).await else { return };
    let admin = server.client().await.database("storage");
    for (user, role) in [("writer", "readWrite"), ("reader", "read")] {
        let user = doc! { "createUser": user, "pwd": "hunter2", "roles": [{ "role": role, "db": "storage" }] };
        admin.run_command(user).await.unwrap();
    }
    let server = Server::start_in(server.stop(), &["--auth"]).await;
    let connect = async |user: &str| {
        let connected = Mongo::connect(server.config(user, "directConnection=true&authSource=storage").unwrap()).await;
        if let Err(e) = &connected {
            assert!(!format!("{e:?}").contains("hunter"), "{e:?}");
        }
        connected
    };
    for unknown in ["", "writer:hunter3@", "nobody:hunter2@"] {
        let e = connect(unknown).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unauthenticated, "{unknown:?}: {e:?}");
        let hint = if unknown.is_empty() { "user:password@host" } else { "`authSource`" };
        assert!(e.message().contains(hint), "{e:?}");
    }
    let storage = Storage::new(connect("writer:hunter2@").await.unwrap());
    storage.put("k", "v").await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
    let e = match connect("reader:hunter2@").await {
        Ok(reader) => Storage::new(reader).put("k", "w").await.unwrap_err(),
        Err(e) => e,
    };
    assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e:?}");
    assert!(e.message().contains("`readWrite`"), "{e:?}");
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_of_another_name_is_told_in_time() {
    let Some(server) = Server::start(&[]).await else { return };
    let begun = Instant::now();
    let e = Mongo::connect(server.config("", "replicaSet=another").unwrap()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
    assert!(e.message().contains("`replicaSet`") && begun.elapsed() < Duration::from_secs(18), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_steps_down_or_breaks_off_loses_nothing() {
    // The driver looks for a server that has stepped down only when the emulator has answered its last look, up to ten seconds later.
    // So each failure has a server of its own.
    let failures = [
        doc! { "errorCode": 10107 },
        doc! { "errorCode": 91 },
        doc! { "closeConnection": true },
        doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
    ];
    futures_util::future::join_all(failures.into_iter().map(loses_nothing)).await;
}

async fn loses_nothing(how: Document) {
    let Some(server) = Server::start(&["--enable-test-commands"]).await else { return };
    let storage = Storage::new(Mongo::connect(server.config("", "directConnection=true").unwrap()).await.unwrap());
    let retried = storage.clone().layer(RetryLayer::new().initial(Duration::from_millis(5)));
    storage.put("k", "old").await.unwrap();
    server.fail("update", how.clone()).await;
    let e = storage.put("k", "new").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.is_retryable() && e.is_ambiguous(), "{how}: {e:?}");
    let there = storage.get("k").await.unwrap().unwrap();
    assert!(there == "old" || there == "new", "{how}");
    // The layer that tries again finds out what has become of it.
    server.fail("update", how.clone()).await;
    retried.put("k", "newer").await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "newer", "{how}");
    if !how.contains_key("writeConcernError") {
        server.fail("find", how.clone()).await;
        let e = storage.get("k").await.unwrap_err();
        assert!(e.kind() == ErrorKind::Unavailable && e.is_retryable() && !e.is_ambiguous(), "{how}: {e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_which_the_server_steps_down_is_run_again() {
    let Some(server) = Server::start(&["--enable-test-commands"]).await else { return };
    let storage = Storage::new(Mongo::connect(server.config("", "directConnection=true").unwrap()).await.unwrap());
    storage.put("k", "0").await.unwrap();
    let transient = doc! { "errorCode": 10107, "errorLabels": ["TransientTransactionError"] };
    let unknown = doc! { "errorCode": 91, "errorLabels": ["UnknownTransactionCommitResult", "RetryableWriteError"] };
    for (n, (command, how)) in
        [("update", transient.clone()), ("find", transient), ("commitTransaction", unknown)].into_iter().enumerate()
    {
        server.fail(command, how).await;
        let done = storage.transaction(|tx| async move {
            let n: u32 = tx.get("k").await?.map(|n| String::from_utf8_lossy(&n).parse().unwrap_or(0)).unwrap_or(0);
            tx.put("k", (n + 1).to_string()).await?;
            Ok::<_, Error>(())
        });
        done.await.unwrap_or_else(|e| panic!("{command}: {e:?}"));
        assert_eq!(storage.get("k").await.unwrap().unwrap(), (n + 1).to_string(), "{command}");
    }
}
