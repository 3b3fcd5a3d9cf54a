//! The whole suite through the layer, over memory and over a directory, also with a single permit: whoever held it while
//! waiting for another would wait for ever.

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Storage, StorageBackend};
use storage_fs::Fs;
use storage_layer_limit::LimitLayer;
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("limit", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(LimitLayer::new()).backend().clone())
    })
    .volatile()
    .group("all")
    .requires(Memory::new().info().capabilities),
    Target::new("limit-one", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(LimitLayer::new().concurrency(1)?).backend().clone())
    })
    .volatile()
    .requires(Memory::new().info().capabilities),
    Target::new("limit-fs", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Fs::open(ns.dir()).await?)).layer(LimitLayer::new().concurrency(1)?).backend().clone())
    })
    .group("all")
    .slow()
    .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags()),
);
