//! What opening says about good and bad URIs.

use std::{fs, sync::Arc};

use futures_util::TryStreamExt;
use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{ErrorKind, GetOptions, Result, StorageBackend, async_trait};
use storage_registry::{Registry, StorageConfig, build, open};

async fn refused(uri: &str) -> (ErrorKind, String) {
    let error = open(uri).await.expect_err("the URI is wrong");
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn each_scheme_opens_a_store_that_works() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    for uri in [
        String::new(),
        "memory:".into(),
        "MEMORY:".into(),
        format!("fs:{path}/files"),
        format!("fs://{path}/files"),
        format!("sqlite:{path}/a%20b.db?table=docs"),
    ] {
        let storage = open(&uri).await?;
        storage.put("a", "1").await?;
        assert_eq!(storage.get("a").await?.as_deref(), Some(&b"1"[..]), "{uri}");
    }
    assert!(dir.path().join("a b.db").exists(), "the location is decoded");
    Ok(())
}

#[cfg(feature = "object-store")]
#[tokio::test]
async fn a_scheme_in_capitals_opens_the_same_store() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("objects");
    open(&format!("OBJECT-STORE+FILE:{}", objects.display())).await?.put("a", "1").await?;
    let storage = open(&format!("object-store+file:{}", objects.display())).await?;
    assert_eq!(storage.get("a").await?.as_deref(), Some(&b"1"[..]));
    open("Object-Store+Memory:").await?.put("a", "1").await?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_scheme_lists_the_known_ones_and_the_nearest() {
    let (kind, message) = refused("sqlit:./x.db").await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(message.contains("did you mean `sqlite`?"), "{message}");
    for known in ["`memory`", "`fs`", "`sqlite`"] {
        assert!(message.contains(known), "{message}");
    }
    let (_, message) = refused("gopher://host").await;
    assert!(!message.contains("did you mean"), "{message}");
}

#[tokio::test]
async fn text_without_a_scheme_is_refused() {
    for uri in ["./storage", "storage", "1:x", ":x"] {
        let (kind, message) = refused(uri).await;
        assert_eq!(kind, ErrorKind::Config, "{uri}");
        assert!(message.contains("fs:./storage"), "{message}");
    }
}

#[tokio::test]
async fn an_unknown_option_lists_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    for (uri, known) in [
        ("memory:?max_version=3".to_owned(), "max_versions"),
        (format!("fs:{}?durable=yes", dir.path().display()), "durability"),
        (format!("sqlite:{}/x.db?tabel=t", dir.path().display()), "table"),
    ] {
        let (kind, message) = refused(&uri).await;
        assert_eq!(kind, ErrorKind::Config, "{uri}");
        assert!(message.contains(&format!("`{known}`")), "{message}");
    }
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[tokio::test]
async fn a_server_that_is_not_there_is_a_clear_error_without_the_password() {
    for scheme in ["postgres", "postgresql", "mariadb", "mysql"] {
        let error =
            open(&format!("{scheme}://me:hidden@127.0.0.1:1/db?busy_timeout=0.3")).await.expect_err("no server");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hidden"), "{error:?}");
        let (kind, message) = refused(&format!("{scheme}://me:hidden@host/db?tabel=x")).await;
        assert_eq!(kind, ErrorKind::Config, "{message}");
        assert!(
            message.contains("`table`") && message.contains("`sslmode`") && !message.contains("hidden"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_bad_place_is_a_clear_error_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a database, not a directory").unwrap();
    let (kind, message) = refused(&format!("fs:{}", file.display())).await;
    assert_eq!(kind, ErrorKind::Config, "{message}");
    let (kind, message) = refused(&format!("sqlite:{}", file.display())).await;
    assert_eq!(kind, ErrorKind::Corrupt, "{message}");
    assert_eq!(fs::read(&file).unwrap(), b"not a database, not a directory");
}

#[tokio::test]
async fn a_versioned_directory_keeps_as_many_versions_as_asked() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    for scheme in ["versioned-filesystem", "versioned-fs"] {
        let storage = open(&format!("{scheme}:{}?max_versions=3&durability=relaxed", dir.path().display())).await?;
        for value in ["1", "2", "3", "4", "5"] {
            storage.put("notes/today", value).await?;
        }
        let versions: Vec<_> = storage.versions("notes/today").await?.try_collect().await?;
        assert_eq!(versions.len(), 3);
        let oldest = versions[2].version.clone().unwrap();
        let value = storage.get_with("notes/today", GetOptions::new().version(oldest)).await?;
        assert_eq!(value.as_deref(), Some(&b"3"[..]));
    }
    assert_eq!(fs::read(dir.path().join("notes/today")).unwrap(), b"5", "the value lies under its own name");
    let (kind, message) = refused(&format!("versioned-fs:{}?max_versions=0", dir.path().display())).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(message.contains("`max_versions`"), "{message}");
    let (_, message) = refused(&format!("versioned-fs:{}?max_version=3", dir.path().display())).await;
    assert!(message.contains("`max_versions`") && message.contains("`durability`"), "{message}");
    Ok(())
}

/// A third party's backend takes part like ours.
struct Mine;

#[async_trait]
impl BackendFactory for Mine {
    fn schemes(&self) -> &'static [&'static str] {
        &["mine"]
    }
    async fn connect(&self, _: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        Ok(open("memory:").await?.backend().clone())
    }
}

#[tokio::test]
async fn others_can_be_registered() -> Result<()> {
    let registry = Registry::empty().register(Mine);
    assert_eq!(registry.schemes().collect::<Vec<_>>(), ["mine"]);
    registry.open("mine:anything").await?.put("a", "1").await?;
    Ok(())
}

#[tokio::test]
async fn options_of_a_layer_are_looked_at_before_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("never made");
    for (name, known) in [
        ("cache", "max_bytes"),
        ("compress", "level"),
        ("encrypt", "keys"),
        ("limit", "concurrency"),
        ("metrics", "backend"),
        ("prefix", "prefix"),
        ("retry", "retries"),
        ("timeout", "bulk_timeout"),
        ("versioned", "max_versions"),
    ] {
        let text = format!("backend = \"fs\"\nconnection = {root:?}\nlayers = [\"{name}?hunter2=1\"]");
        let error = build(&StorageConfig::from_toml(&text).unwrap()).await.expect_err(&text);
        let message = error.to_string();
        assert!(error.kind() == ErrorKind::Config && message.contains(known), "{message}");
        assert!(!root.exists(), "{name}");
    }
}
