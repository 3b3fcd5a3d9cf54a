//! A server that refuses the user, steps down, or confirms nothing: errors of the right kind, and nothing lost.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "support/own.rs"]
mod own;

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use own::Server;
use storage_core::{Error, ErrorKind, Storage};
use storage_layer_retry::RetryLayer;
use storage_mongodb::Mongo;

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
    let mut config = server.config("", "replicaSet=another").unwrap();
    config.timeout = Duration::from_secs(3);
    let begun = Instant::now();
    let e = Mongo::connect(config).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
    assert!(e.message().contains("`replicaSet`") && begun.elapsed() < Duration::from_secs(6), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_steps_down_or_breaks_off_loses_nothing() {
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
    let storage = Storage::new(Mongo::connect(server.prompt_config().unwrap()).await.unwrap());
    let retried = storage.clone().layer(RetryLayer::new().initial(Duration::from_millis(5)));
    storage.put("k", "old").await.unwrap();
    server.fail("update", how.clone()).await;
    let e = storage.put("k", "new").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.is_retryable() && e.is_ambiguous(), "{how}: {e:?}");
    // What the server says may repeat values.
    assert!(!format!("{e:?}").contains("replication timed out"), "{e:?}");
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
    let storage = Storage::new(Mongo::connect(server.prompt_config().unwrap()).await.unwrap());
    storage.put("k", "0").await.unwrap();
    let transient = doc! { "errorCode": 10107, "errorLabels": ["TransientTransactionError"] };
    let unknown = doc! { "errorCode": 91, "errorLabels": ["UnknownTransactionCommitResult", "RetryableWriteError"] };
    let long = doc! { "errorCode": 64, "errorLabels": ["UnknownTransactionCommitResult"] };
    let failures = [
        ("update", transient.clone(), 1),
        ("find", transient, 1),
        ("commitTransaction", unknown, 1),
        // More often than the driver tries by itself.
        ("commitTransaction", long, 12),
    ];
    for (n, (command, how, times)) in failures.into_iter().enumerate() {
        server.fail_often(command, how, times).await;
        let done = storage.transaction(|tx| async move {
            let n: u32 = tx.get("k").await?.map(|n| String::from_utf8_lossy(&n).parse().unwrap_or(0)).unwrap_or(0);
            tx.put("k", (n + 1).to_string()).await?;
            Ok::<_, Error>(())
        });
        done.await.unwrap_or_else(|e| panic!("{command}: {e:?}"));
        assert_eq!(storage.get("k").await.unwrap().unwrap(), (n + 1).to_string(), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_made_again_no_longer_than_a_call_may_take() {
    let Some(server) = Server::start(&["--enable-test-commands"]).await else { return };
    let mut config = server.prompt_config().unwrap();
    config.timeout = Duration::from_secs(2);
    let storage = Storage::new(Mongo::connect(config).await.unwrap());
    let long = doc! { "errorCode": 64, "errorLabels": ["UnknownTransactionCommitResult"] };
    server.fail_often("commitTransaction", long, 1_000_000).await;
    let tx = storage.begin().await.unwrap();
    tx.put("k", "v").await.unwrap();
    let begun = Instant::now();
    let e = tx.commit().await.unwrap_err();
    assert!(e.is_ambiguous() && e.kind() == ErrorKind::Unavailable, "{e:?}");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
}
