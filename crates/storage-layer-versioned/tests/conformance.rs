//! The whole suite through the layer: over memory, over a directory, and over a backend of which little can be asked.

mod hashed;

use std::sync::Arc;

use hashed::Hashed;
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, StorageBackend};
use storage_fs::Fs;
use storage_layer_versioned::{Versioned, VersionedLayer};
use storage_memory::Memory;

fn over_memory() -> Capabilities {
    let mut capabilities = Memory::new().info().capabilities;
    capabilities.queryable = false;
    capabilities
}

storage_conformance::main!(
    Target::new("versioned", |ns: Namespace| async move {
        Versioned::new(Arc::new(ns.below(Memory::new())), VersionedLayer::new().max_versions(1000))
    })
    .volatile()
    .requires(over_memory()),
    Target::new("versioned-filesystem", |ns: Namespace| async move {
        Versioned::new(Arc::new(ns.below(Fs::open(ns.dir()).await?)), VersionedLayer::new())
    })
    .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().unique_etags().versioning()),
    Target::new("versioned-minimal", |ns: Namespace| async move {
        Versioned::new(Arc::new(ns.below(Hashed::default())), VersionedLayer::new())
    })
    .volatile()
    .requires(Capabilities::new().atomic().versioning()),
);
