//! The contract, check by check, over both stores that `object_store` brings along.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use data_encoding::BASE32_DNSSEC;
use object_store::{
    Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions, local::LocalFileSystem, memory::InMemory,
    path::Path,
};
use storage_conformance::{Namespace, Target};
use storage_core::{Bytes, Capabilities, Error, ErrorKind, Key, Result};
use storage_object_store::{Config, ObjectStoreBackend, Profile};

/// The stores in memory by namespace, so that opening one again finds what was written.
static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

async fn memory(namespace: Namespace) -> storage_core::Result<ObjectStoreBackend> {
    ObjectStoreBackend::connect(store(&namespace), Profile::memory(), Config::default()).await
}

async fn local(namespace: Namespace) -> storage_core::Result<ObjectStoreBackend> {
    let store = LocalFileSystem::new_with_prefix(namespace.dir())
        .map_err(|e| Error::new(ErrorKind::Other, "the directory cannot be opened").with_source(e))?;
    ObjectStoreBackend::connect(Arc::new(store), Profile::local(), Config::default()).await
}

/// The store of a namespace in memory.
fn store(namespace: &Namespace) -> Arc<InMemory> {
    let name = namespace.name().to_owned();
    STORES.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
}

fn failed(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Other, "the test's own write failed").with_source(e)
}

/// Puts an object there whose metadata cannot be read.
async fn damage_in_memory(namespace: Namespace, key: Key) -> Result<()> {
    let attribute = Attribute::Metadata("storage".into());
    let options = PutOptions::from(Attributes::from_iter([(attribute, "not base64!")]));
    let put = store(&namespace).put_opts(&Path::from(key.as_str()), "damaged".into(), options).await;
    put.map(drop).map_err(failed)
}

async fn plant_in_memory(namespace: Namespace, key: Key, value: Bytes) -> Result<()> {
    store(&namespace).put(&Path::from(key.as_str()), value.into()).await.map(drop).map_err(failed)
}

/// Spoils the header of the file of a key, which has a short name.
async fn damage_file(namespace: Namespace, key: Key) -> Result<()> {
    let name = BASE32_DNSSEC.encode(key.as_str().as_bytes());
    let path = namespace.dir().join(".storage/keys").join(name);
    let mut bytes = std::fs::read(&path).map_err(failed)?;
    bytes[30] ^= 0xff;
    std::fs::write(path, bytes).map_err(failed)
}

storage_conformance::main!(
    Target::new("object-store", memory)
        .one_process()
        .group("all")
        .damage(damage_in_memory)
        .stored_by_others(plant_in_memory)
        .requires(Capabilities::new().atomic().conditional().version_etags()),
    Target::new("object-store-local", local)
        .damage(damage_file)
        .group("all")
        .requires(Capabilities::new().atomic().version_etags().streaming()),
);
