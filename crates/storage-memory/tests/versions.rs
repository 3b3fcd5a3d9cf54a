//! Versions, dates and etags: the implementation-defined behaviour that the README promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use storage_config::{Clock, ConnectionConfig, StorageContext};
use storage_core::{
    Condition, CopyOptions, DeleteOptions, Entry, ErrorKind, GetOptions, PutOptions, Result, Storage, VersionId,
};
use storage_memory::{Config, Memory, MemoryFactory};

async fn versions(storage: &Storage) -> Result<Vec<Option<VersionId>>> {
    let entries: Vec<Entry> = storage.versions("k").await?.try_collect().await?;
    Ok(entries.into_iter().map(|entry| entry.version).collect())
}

fn delete(version: &Option<VersionId>) -> DeleteOptions {
    DeleteOptions::new().version(version.clone().unwrap())
}

#[tokio::test]
async fn a_delete_hides_the_key_and_keeps_its_versions() -> Result<()> {
    let storage = Storage::new(Memory::new());
    let first = storage.put("k", "1").await?.version;
    let second = storage.put("k", "2").await?.version;
    storage.delete("k").await?;
    assert!(!storage.has("k").await?);
    assert_eq!(versions(&storage).await?, [second.clone(), first.clone()]);
    let old = GetOptions::new().version(first.clone().unwrap());
    assert_eq!(storage.get_with("k", old).await?.as_deref(), Some(&b"1"[..]));

    let back = CopyOptions::new().version(first.clone().unwrap());
    let third = storage.copy_with("k", "k", back).await?.version;
    assert_eq!(storage.get("k").await?.as_deref(), Some(&b"1"[..]));
    assert_eq!(versions(&storage).await?, [third, second, first]);
    Ok(())
}

#[tokio::test]
async fn deleting_the_current_version_brings_no_older_one_back() -> Result<()> {
    let storage = Storage::new(Memory::new());
    let first = storage.put("k", "1").await?.version;
    let second = storage.put("k", "2").await?.version;
    storage.delete_with("k", delete(&second)).await?;
    assert_eq!(storage.get("k").await?, None);
    assert_eq!(versions(&storage).await?, std::slice::from_ref(&first));
    storage.delete_with("k", delete(&second)).await?;
    storage.delete_with("k", delete(&first)).await?;
    assert_eq!(versions(&storage).await?, []);

    let kept = storage.put("k", "3").await?.version;
    let current = storage.put("k", "4").await?.version;
    storage.delete_with("k", delete(&kept)).await?;
    assert_eq!(storage.get("k").await?.as_deref(), Some(&b"4"[..]));
    assert_eq!(versions(&storage).await?, [current]);
    Ok(())
}

#[tokio::test]
async fn the_newest_versions_are_kept() -> Result<()> {
    let mut config = Config::default();
    config.max_versions = NonZeroUsize::MIN.saturating_add(2);
    let storage = Storage::new(Memory::with_config(config));
    let mut all = Vec::new();
    for n in 0..7 {
        all.insert(0, storage.put("k", vec![n]).await?.version);
        assert_eq!(versions(&storage).await?, all[..all.len().min(3)]);
    }
    Ok(())
}

#[tokio::test]
async fn an_etag_never_comes_back() -> Result<()> {
    let storage = Storage::new(Memory::new());
    let first = storage.put("k", "same").await?.etag.unwrap();
    storage.delete("k").await?;
    storage.put("k", "same").await?;
    let stale = PutOptions::new().condition(Condition::IfMatch(first));
    let refused = storage.put_with("k", "new", stale).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PreconditionFailed);
    Ok(())
}

#[derive(Debug)]
struct Stepping(Mutex<SystemTime>);

impl Clock for Stepping {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

#[tokio::test]
async fn dates_stand_still_while_the_clock_is_behind() -> Result<()> {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let clock = Arc::new(Stepping(Mutex::new(start)));
    let storage = Storage::new(Memory::with_clock(Config::default(), clock.clone()));
    storage.put("k", "1").await?;
    *clock.0.lock().unwrap() = start - Duration::from_secs(500);
    assert_eq!(storage.put("k", "2").await?.modified, Some(start));
    storage.delete("k").await?;
    assert_eq!(storage.put("k", "3").await?.modified, Some(start));
    *clock.0.lock().unwrap() = start + Duration::from_secs(5);
    let entry = storage.put("k", "4").await?;
    assert_eq!(entry.modified, Some(start + Duration::from_secs(5)));
    assert_eq!(entry.created, Some(start));
    Ok(())
}

#[tokio::test]
async fn the_factory_takes_options_and_no_location() -> Result<()> {
    use storage_config::BackendFactory;
    let connect = |uri: &'static str| async move {
        let config = ConnectionConfig::new(uri);
        let context = StorageContext::default();
        MemoryFactory.connect(&config, &context).await
    };
    let small = connect("mem:?max_value=3&max_versions=1").await?;
    assert_eq!(small.info().limits.value, 3);
    for wrong in ["memory:?max_version=3", "memory:?max_versions=0", "memory:place"] {
        let refused = connect(wrong).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{wrong}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn an_undeclared_length_cannot_pass_the_limit() -> Result<()> {
    use futures_util::stream;
    use storage_core::{Body, Bytes};
    let mut config = Config::default();
    config.max_value = Some(3);
    let storage = Storage::new(Memory::with_config(config));
    let pieces = || stream::iter([Ok(Bytes::from("ab")), Ok(Bytes::from("cd"))]);
    let refused = storage.put("k", Body::stream(pieces())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert!(!storage.has("k").await?);
    Ok(())
}
