//! Retry over encryption over each backend, opened by URI as an application does: the whole suite.

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, DataKey, Result, Storage, StorageBackend};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_layer_retry::RetryLayer;

async fn stack(uri: String) -> Result<impl StorageBackend> {
    let keys = StaticKeys::new("test", &DataKey::new([7; 32]))?;
    let storage: Storage = storage_registry::open(&uri).await?;
    let storage = storage.layer(EncryptLayer::new(keys)).layer(RetryLayer::new());
    Ok(storage.backend().clone())
}

/// What each of these must be able to do; some can do more.
const ALL: Capabilities = Capabilities::new().atomic().encryption().unique_etags();

storage_conformance::main!(
    Target::new("stack-memory", |_: Namespace| stack("memory:".into()))
        .volatile()
        .requires(ALL.conditional().conditional_delete().transactions().versioning()),
    Target::new("stack-fs", |ns: Namespace| async move { stack(format!("fs:{}", ns.dir().display())).await })
        .requires(ALL.conditional().conditional_delete().streaming()),
    Target::new("stack-sqlite", |ns: Namespace| async move {
        stack(format!("sqlite:{}/test.db", ns.dir().display())).await
    })
    .requires(ALL.conditional().conditional_delete().transactions().streaming()),
    Target::new("stack-object-store", |ns: Namespace| async move {
        stack(format!("object-store+file:{}", ns.dir().display())).await
    })
    .requires(ALL.streaming()),
);
