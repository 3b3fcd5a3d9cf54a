//! The whole suite through the layer: over memory and over a directory, with a budget that evicts all the time, and with
//! validation.

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Layer, StorageBackend};
use storage_fs::Fs;
use storage_layer_cache::CacheLayer;
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("cache", |ns: Namespace| async move { Ok(CacheLayer::new().layer(ns.below(Memory::new()).into())) })
        .volatile()
        .group("default")
        .requires(Memory::new().info().capabilities),
    Target::new("cache-fs", |ns: Namespace| async move {
        Ok(CacheLayer::new().layer(ns.below(Fs::open(ns.dir()).await?).into()))
    })
    .group("default")
    .slow()
    .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags()),
    Target::new("cache-small", |ns: Namespace| async move {
        Ok(CacheLayer::new().max_bytes(4096)?.layer(ns.below(Memory::new()).into()))
    })
    .volatile()
    .group("memory")
    .requires(Memory::new().info().capabilities),
    Target::new("cache-validate", |ns: Namespace| async move {
        Ok(CacheLayer::new().validate(true).layer(ns.below(Memory::new()).into()))
    })
    .volatile()
    .group("memory")
    .requires(Memory::new().info().capabilities),
);
