//! From a URI to a backend.

use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{ErrorKind, Storage};
use storage_object_store::ObjectStoreFactory;

async fn connect(config: ConnectionConfig) -> storage_core::Result<Storage> {
    let context = StorageContext::default();
    ObjectStoreFactory.connect(&config, &context).await.map(Storage::from_arc)
}

#[tokio::test]
async fn a_directory_is_created_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/one");
    let config = || {
        ConnectionConfig::new(format!("object-store+file:{}?prefix=users", path.display())).option("part_size", 1 << 20)
    };
    connect(config()).await.unwrap().put("a", "v").await.unwrap();
    let again = connect(config()).await.unwrap();
    assert_eq!(again.get("a").await.unwrap().unwrap(), "v");
    assert!(path.join("users/.storage/keys").is_dir());
}

#[tokio::test]
async fn wrong_settings_are_named() {
    for wrong in [
        "object-store+memory:?prefixx=a",
        "object-store+memory:?part_size=0",
        "object-store+memory:?prefix=a//b",
        "object-store+memory:./data",
        "object-store+fil:./data",
        "memory:",
    ] {
        let error = connect(ConnectionConfig::new(wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
    }
    let storage = connect(ConnectionConfig::new("object-store+memory:")).await.unwrap();
    assert_eq!(&*storage.info().id, "object-store");
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_a_config_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let uri = format!("object-store+file:{}", file.path().display());
    let error = connect(ConnectionConfig::new(uri)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
