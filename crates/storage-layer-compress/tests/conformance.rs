//! The whole suite through the layer, over memory and over a directory.

use std::sync::Arc;

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, StorageBackend};
use storage_fs::Fs;
use storage_layer_compress::{Algorithm, CompressLayer, Compressed};
use storage_memory::Memory;

/// Those of the backend below and compression, without what must be done above it.
fn over_memory() -> Capabilities {
    let mut capabilities = Memory::new().info().capabilities.compression();
    capabilities.queryable = false;
    capabilities
}

storage_conformance::main!(
    Target::new("compress", |ns: Namespace| async move {
        Compressed::new(Arc::new(ns.below(Memory::new())), CompressLayer::default())
    })
    .volatile()
    .requires(over_memory()),
    Target::new("compress-gzip", |ns: Namespace| async move {
        Compressed::new(Arc::new(ns.below(Memory::new())), CompressLayer::new(Algorithm::Gzip))
    })
    .volatile()
    .requires(over_memory()),
    Target::new("compress-fs", |ns: Namespace| async move {
        Compressed::new(Arc::new(ns.below(Fs::open(ns.dir()).await?)), CompressLayer::default())
    })
    .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().unique_etags().compression()),
);
