//! The whole suite through the layer, over memory and over a directory.

use std::sync::Arc;

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Key, Metadata, PutOptions, Result, StorageBackend};
use storage_fs::Fs;
use storage_layer_compress::{Algorithm, CompressLayer, Compressed, Foreign};
use storage_memory::Memory;

/// Those of the backend below and compression, without what must be done above it.
fn over_memory() -> Capabilities {
    let mut capabilities = Memory::new().info().capabilities.compression();
    capabilities.queryable = false;
    capabilities
}

/// A note of the size that is none.
async fn damage(ns: Namespace, key: Key) -> Result<()> {
    let options = PutOptions::new().metadata(Metadata::new().field("storage.compress", "many").tag("t").field("n", 1));
    ns.stored_below()?.put_with(key, "damaged", options).await.map(drop)
}

storage_conformance::main!(
    Target::new("compress", |ns: Namespace| async move {
        Compressed::new(Arc::new(ns.below(Memory::new())), CompressLayer::default())
    })
    .volatile()
    .damage(damage)
    .group("all")
    .requires(over_memory()),
    Target::new("compress-gzip", |ns: Namespace| async move {
        Compressed::new(Arc::new(ns.below(Memory::new())), CompressLayer::new(Algorithm::Gzip).foreign(Foreign::Pass))
    })
    .volatile()
    .stored_by_others(|ns, key, value| async move { ns.stored_below()?.put(key, value).await.map(drop) })
    .damage(damage)
    .group("all")
    .requires(over_memory()),
    Target::new("compress-fs", |ns: Namespace| async move {
        Compressed::new(Arc::new(ns.below(Fs::open(ns.dir()).await?)), CompressLayer::default())
    })
    .damage(damage)
    .group("all")
    .slow()
    .requires(
        Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags().compression()
    ),
);
