//! Retry over encryption over each backend, opened by URI as an application does: the whole suite.

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, DataKey, Result, Storage, StorageBackend};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_layer_retry::RetryLayer;

async fn stack(ns: Namespace, uri: String) -> Result<impl StorageBackend> {
    let keys = StaticKeys::new("test", &DataKey::new(*b"0123456789abcdefghijklmnopqrstuv"))?;
    let below: Storage = storage_registry::open(&uri).await?;
    let storage =
        Storage::new(ns.below(below.backend().clone())).layer(EncryptLayer::new(keys)).layer(RetryLayer::new());
    Ok(storage.backend().clone())
}

/// What each of these must be able to do; some can do more.
const ALL: Capabilities = Capabilities::new().atomic().encryption().unique_etags();

storage_conformance::main!(
    Target::new("stack-memory", |ns: Namespace| stack(ns, "memory:".into()))
        .volatile()
        .requires(ALL.conditional().conditional_delete().transactions().versioning()),
    Target::new("stack-fs", |ns: Namespace| {
        let uri = format!("fs:{}", ns.dir().display());
        stack(ns, uri)
    })
    .requires(ALL.conditional().conditional_delete().streaming()),
    Target::new("stack-sqlite", |ns: Namespace| {
        let uri = format!("sqlite:{}/test.db", ns.dir().display());
        stack(ns, uri)
    })
    .requires(ALL.conditional().conditional_delete().transactions().streaming()),
    Target::new("stack-object-store", |ns: Namespace| {
        let uri = format!("object-store+file:{}", ns.dir().display());
        stack(ns, uri)
    })
    .requires(ALL.streaming()),
);
