//! The whole suite through the layer, over memory, with validation, and over a directory.

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Storage, StorageBackend};
use storage_fs::Fs;
use storage_layer_cache::CacheLayer;
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("cache", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(CacheLayer::new()).backend().clone())
    })
    .volatile()
    .requires(Memory::new().info().capabilities),
    Target::new("cache-validate", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(CacheLayer::new().validate(true)).backend().clone())
    })
    .volatile()
    .requires(Memory::new().info().capabilities),
    Target::new("cache-fs", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Fs::open(ns.dir()).await?)).layer(CacheLayer::new()).backend().clone())
    })
    .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().unique_etags()),
);
