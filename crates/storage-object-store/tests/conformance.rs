//! The contract, check by check, over both stores that `object_store` brings along.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use object_store::{local::LocalFileSystem, memory::InMemory};
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Error, ErrorKind};
use storage_object_store::{Config, ObjectStoreBackend, Profile};

/// The stores in memory by namespace, so that opening one again finds what was written.
static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

async fn memory(namespace: Namespace) -> storage_core::Result<ObjectStoreBackend> {
    let name = namespace.name().to_owned();
    let store = STORES.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone();
    ObjectStoreBackend::connect(store, Profile::memory(), Config::default()).await
}

async fn local(namespace: Namespace) -> storage_core::Result<ObjectStoreBackend> {
    let store = LocalFileSystem::new_with_prefix(namespace.dir())
        .map_err(|e| Error::new(ErrorKind::Other, "the directory cannot be opened").with_source(e))?;
    ObjectStoreBackend::connect(Arc::new(store), Profile::local(), Config::default()).await
}

storage_conformance::main!(
    Target::new("object-store", memory)
        .one_process()
        .requires(Capabilities::new().atomic().conditional().unique_etags()),
    Target::new("object-store-local", local).requires(Capabilities::new().atomic().unique_etags().streaming()),
);
