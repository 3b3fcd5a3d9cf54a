//! The whole suite through the layer, over memory and over a directory.

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Storage, StorageBackend};
use storage_fs::Fs;
use storage_layer_retry::RetryLayer;
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("retry", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(RetryLayer::new()).backend().clone())
    })
    .volatile()
    .group("all")
    .requires(Memory::new().info().capabilities),
    Target::new("retry-fs", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Fs::open(ns.dir()).await?)).layer(RetryLayer::new()).backend().clone())
    })
    .group("all")
    .slow()
    .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags()),
);
