//! What is wrong when connecting is said by the right kind, and without a secret.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use storage_config::ConnectionConfig;
use storage_core::{ErrorKind, Storage, StorageBackend};
use storage_mongodb::{Config, Mongo};

fn read(uri: &str) -> Result<Config, storage_core::Error> {
    Config::from_connection(&ConnectionConfig::new(uri))
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    for uri in [
        "mongodb://",
        "mongodb://host/db?collection=",
        "mongodb://host/db?collection=system.x",
        "mongodb://host/db?timeout=0",
        "mongodb://host/db?inline_limit=99999999",
        "mongodb://host/db?w=0",
        "mongodb://host/db?readPreference=secondary",
        "sqlite:x",
    ] {
        assert_eq!(read(uri).unwrap_err().kind(), ErrorKind::Config, "{uri}");
    }
    let config = read("mongodb://me:hunter2@host/db").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_unreachable_server_is_told_in_time() {
    let mut config = read("mongodb://me:hunter2@127.0.0.1:1/db").unwrap();
    config.timeout = Duration::from_secs(1);
    let begun = Instant::now();
    let e = Mongo::connect(config).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
    assert!(begun.elapsed() < Duration::from_secs(3) && !format!("{e:?}").contains("hunter2"), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_that_are_not_ours_are_refused() {
    if support::is_missing_server() {
        return;
    }
    let database = support::client().await.database(support::DATABASE);
    let name = || format!("connect{:08x}", fastrand::u32(..));
    let refused = async |collection: &str, about: &str| {
        let e = Mongo::connect(support::config(&support::server(), collection).unwrap()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{e:?}");
        assert!(e.message().contains(about), "{e:?}");
        support::drop_all(collection).await;
    };
    let newer = name();
    let schema = database.collection::<Document>(&format!("{newer}.schema"));
    schema.insert_one(doc! { "_id": "storage", "version": 2 }).await.unwrap();
    refused(&newer, "newer version").await;
    let others = name();
    database.collection::<Document>(&others).insert_one(doc! { "title": "a document of others" }).await.unwrap();
    refused(&others, "another shape").await;
    let collated = name();
    database.run_command(doc! { "create": &collated, "collation": { "locale": "de" } }).await.unwrap();
    refused(&collated, "collation").await;
    let (view, base) = (name(), name());
    database.run_command(doc! { "create": &view, "viewOn": &base, "pipeline": [] }).await.unwrap();
    refused(&view, "view").await;
    let unreadable = name();
    let schema = database.collection::<Document>(&format!("{unreadable}.schema"));
    schema.insert_one(doc! { "_id": "storage", "version": "one" }).await.unwrap();
    let e = Mongo::connect(support::config(&support::server(), &unreadable).unwrap()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e:?}");
    support::drop_all(&unreadable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connect_at_once_and_declare_what_there_is() {
    if support::is_missing_server() {
        return;
    }
    let collection = format!("connect{:08x}", fastrand::u32(..));
    let connect = |_| Mongo::connect(support::config(&support::server(), &collection).unwrap());
    let all = futures_util::future::join_all((0..6).map(connect)).await;
    assert!(all.iter().all(|mongo| mongo.as_ref().unwrap().info().capabilities.transactions));
    let alone = Mongo::connect(support::config(&support::without_replica_set(), &collection).unwrap()).await.unwrap();
    assert!(!alone.info().capabilities.transactions && !alone.info().capabilities.distributed);
    support::drop_all(&collection).await;
}

/// The driver's own tasks panic where a runtime ends under them.
#[test]
fn a_runtime_may_end_behind_disconnect() {
    if support::is_missing_server() {
        return;
    }
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::AcqRel);
        before(panic);
    }));
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let collection = format!("end{:08x}", fastrand::u32(..));
    for _ in 0..60 {
        runtime().block_on(async {
            let mongo = Mongo::connect(support::config(&support::server(), &collection).unwrap()).await.unwrap();
            let storage = Storage::new(mongo);
            join_all((0..8).map(|i| storage.put(format!("{i}"), "v"))).await;
            storage.clear().await.unwrap();
            storage.disconnect().await.unwrap();
        });
    }
    assert_eq!(PANICS.load(Ordering::Acquire), 0);
    runtime().block_on(support::drop_all(&collection));
}
