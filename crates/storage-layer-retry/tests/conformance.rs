//! The whole suite through the layer.

use storage_conformance::{Namespace, Target};
use storage_core::{Storage, StorageBackend};
use storage_layer_retry::RetryLayer;
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("retry", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(RetryLayer::new()).backend().clone())
    })
    .volatile()
    .requires(Memory::new().info().capabilities)
);
