//! Backends of clouds and of MariaDB by URI and by configuration, on the servers that they are tested on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../storage-s3/tests/bucket/mod.rs"]
mod bucket;
#[path = "../../storage-azure/tests/container/mod.rs"]
mod container;
#[path = "../../storage-gcs/tests/bucket/mod.rs"]
mod google;

use std::env;

use bucket::{Bucket, MOTO};
use container::{AZURITE, Container};
use futures_util::TryStreamExt;
use storage_core::{ErrorKind, Result, Storage};
use storage_registry::{StorageConfig, build, open};

async fn keys(storage: &Storage) -> Result<Vec<String>> {
    storage.keys().await?.map_ok(|key| key.to_string()).try_collect().await
}

/// What is written through one of two stores, of which one lies in the other below `below`, is seen in both.
async fn same_place(whole: &Storage, below: &Storage) -> Result<()> {
    below.put("notes/today", "1").await?;
    whole.put("beside", "2").await?;
    assert_eq!(keys(below).await?, ["notes/today"]);
    assert_eq!(keys(whole).await?, ["below/notes/today", "beside"]);
    assert_eq!(below.get("notes/today").await?.as_deref(), Some(&b"1"[..]));
    below.clear().await?;
    assert_eq!(keys(whole).await?, ["beside"]);
    Ok(())
}

#[tokio::test]
async fn azure() -> Result<()> {
    if !container::is_there() {
        return Ok(());
    }
    let container = Container::new().await;
    let endpoint = container::endpoint(&container::host());
    let uri = |path: &str| format!("azure://{}{path}?emulator=true&endpoint={endpoint}", container.name);
    same_place(&open(&uri("")).await?, &open(&uri("/below")).await?).await?;

    let by_string = format!("[options]\nconnection_string = \"env:{AZURITE}\"");
    let config = |backend: &str| format!("backend = {backend:?}\nlayers = [\"compress\"]\n{by_string}");
    let storage = build(&StorageConfig::from_toml(&config(&format!("azure:{}/zipped", container.name)))?).await?;
    storage.put("k", vec![b'v'; 100_000]).await?;
    assert_eq!(storage.get("k").await?.map(|value| value.len()), Some(100_000));
    let stored = open(&uri("/zipped")).await?.stat("k").await?.unwrap();
    assert!(stored.size < 10_000, "{stored:?}");

    let error = open(&format!("azure://no-such-container?emulator=true&endpoint={endpoint}")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("`container`"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn s3() -> Result<()> {
    if storage_conformance::server(MOTO.0).is_none() {
        return Ok(());
    }
    let bucket = Bucket::new(MOTO, false).await;
    let config = MOTO.config(&bucket.name);
    let who = format!("access_key_id={}&secret_access_key={}", config.access_key_id.unwrap().expose(), MOTO.secret());
    let uri = |path: &str| format!("s3://{}{path}?endpoint=http://{}&{who}", bucket.name, MOTO.host());
    same_place(&open(&uri("")).await?, &open(&uri("/below")).await?).await?;

    let config = StorageConfig::from_toml(&format!("backend = {:?}\nlayers = [\"compress\"]", uri("/zipped")))?;
    let storage = build(&config).await?;
    storage.put("k", vec![b'v'; 100_000]).await?;
    assert_eq!(storage.get("k").await?.map(|value| value.len()), Some(100_000));
    let stored = open(&uri("/zipped")).await?.stat("k").await?.unwrap();
    assert!(stored.size < 10_000, "{stored:?}");

    let error = open(&uri("").replace(&bucket.name, "no-such-bucket")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("`bucket`"), "{error:?}");
    assert!(!error.to_string().contains(&MOTO.secret()), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn google() -> Result<()> {
    if !google::is_there() {
        return Ok(());
    }
    let bucket = google::Bucket::new().await;
    let endpoint = format!("endpoint=http://{}&anonymous=true", google::host()?);
    let uri = |scheme: &str, path: &str| format!("{scheme}://{}{path}?{endpoint}", bucket.name);
    same_place(&open(&uri("gs", "")).await?, &open(&uri("gcs", "/below")).await?).await?;

    // By the key of an account, too.
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/../storage-gcs/tests/bucket/service-account.json");
    let options = format!("endpoint = \"http://{}\"\nservice_account_key = \"file:{key}\"", google::host()?);
    let config = format!("backend = \"gs:{}/zipped\"\nlayers = [\"compress\"]\n[options]\n{options}", bucket.name);
    let storage = build(&StorageConfig::from_toml(&config)?).await?;
    storage.put("k", vec![b'v'; 100_000]).await?;
    assert_eq!(storage.get("k").await?.map(|value| value.len()), Some(100_000));
    let stored = open(&uri("gs", "/zipped")).await?.stat("k").await?.unwrap();
    assert!(stored.size < 10_000, "{stored:?}");

    let error = open(&uri("gs", "").replace(&bucket.name, "no-such-bucket")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("`bucket`"), "{error:?}");
    Ok(())
}

/// Both names of its scheme.
#[tokio::test]
async fn mariadb() -> Result<()> {
    const MARIADB: &str = "STORAGE_TEST_MARIADB";
    if storage_conformance::server(MARIADB).is_none() {
        return Ok(());
    }
    let address = env::var(MARIADB).unwrap();
    let (_, place) = address.split_once("://").unwrap();
    let table = format!("r{:016x}", fastrand::u64(..));
    let uri = |scheme: &str| format!("{scheme}://{place}?table={table}");
    let (one, other) = (open(&uri("mariadb")).await?, open(&uri("mysql")).await?);
    one.put("notes/today", "1").await?;
    assert_eq!(other.get("notes/today").await?.as_deref(), Some(&b"1"[..]));
    other.clear().await?;
    assert_eq!(keys(&one).await?, Vec::<String>::new());
    Ok(())
}
