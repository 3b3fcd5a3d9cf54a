//! Retry over encryption over each backend, opened by URI as an application does: the whole suite.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use storage_conformance::{Namespace, Target};
use storage_core::{DataKey, Result, Storage, StorageBackend};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_layer_retry::RetryLayer;

async fn stack(uri: &str) -> Result<impl StorageBackend> {
    layered(storage_registry::open(uri).await?)
}

fn layered(storage: Storage) -> Result<impl StorageBackend> {
    let keys = StaticKeys::new("test", &DataKey::new([7; 32]))?;
    let storage = storage.layer(EncryptLayer::new(keys)).layer(RetryLayer::new());
    Ok(storage.backend().clone())
}

/// Stores that live in this process: opening a namespace again finds the same one.
async fn shared(ns: Namespace) -> Result<impl StorageBackend> {
    static STORES: LazyLock<Mutex<HashMap<String, Storage>>> = LazyLock::new(Mutex::default);
    let fresh = storage_registry::open("object-store+memory:").await?;
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    layered(stores.entry(ns.name().to_owned()).or_insert(fresh).clone())
}

storage_conformance::main!(
    Target::new("stack-memory", |_: Namespace| stack("memory:")).volatile(),
    Target::new("stack-fs", |ns: Namespace| async move { stack(&format!("fs:{}", ns.dir().display())).await }),
    Target::new("stack-sqlite", |ns: Namespace| async move {
        stack(&format!("sqlite:{}/test.db", ns.dir().display())).await
    }),
    Target::new("stack-object-store", shared),
);
