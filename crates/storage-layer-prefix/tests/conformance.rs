//! The whole suite through the layer, in a store where others have values all around the namespace.

use std::sync::Arc;

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Result, Storage, StorageBackend};
use storage_fs::Fs;
use storage_layer_prefix::{PrefixLayer, Prefixed};
use storage_memory::Memory;

async fn among_others<B: StorageBackend>(backend: B) -> Result<Prefixed<B>> {
    let backend = Arc::new(backend);
    let below = Storage::from_arc(backend.clone());
    for key in ["a", "user", "user0/a", "user1", "user1 /a", "user1/", "user1.", "user10/a", "user2/a", "z"] {
        below.put(key, "not yours").await?;
    }
    Prefixed::new(backend, PrefixLayer::new("user1")?)
}

storage_conformance::main!(
    Target::new("prefix", |ns: Namespace| among_others(ns.below(Memory::new())))
        .volatile()
        .group("all")
        .requires(Memory::new().info().capabilities),
    Target::new("prefix-fs", |ns: Namespace| async move { among_others(ns.below(Fs::open(ns.dir()).await?)).await })
        .group("all")
        .slow()
        .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags()),
);
