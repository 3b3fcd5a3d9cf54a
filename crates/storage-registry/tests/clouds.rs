//! Backends of clouds by URI and by configuration, on the servers that they are tested on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../storage-s3/tests/bucket/mod.rs"]
mod bucket;
#[path = "../../storage-azure/tests/container/mod.rs"]
mod container;

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
