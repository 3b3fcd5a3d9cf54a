//! The whole suite through the layer: over memory, over a directory, and over a backend of which little can be asked.

mod hashed;

use std::{path::Path, sync::Arc};

use hashed::Hashed;
use storage_conformance::{
    Namespace, Target,
    saboteurs::{damage, damageable},
};
use storage_core::{Capabilities, Error, ErrorKind, Key, Metadata, PutOptions, Result, StorageBackend};
use storage_fs::Fs;
use storage_layer_versioned::{Versioned, VersionedLayer};
use storage_memory::Memory;

fn over_memory() -> Capabilities {
    let mut capabilities = Memory::new().info().capabilities;
    capabilities.queryable = false;
    capabilities
}

/// A token that is none.
async fn damaged_token(ns: Namespace, key: Key) -> Result<()> {
    let options = PutOptions::new().metadata(Metadata::new().field("storage.version", 7).tag("t").field("n", 1));
    ns.stored_below()?.put_with(key, "damaged", options).await.map(drop)
}

storage_conformance::main!(
    Target::new("versioned", |ns: Namespace| async move {
        let below = damageable(Arc::new(ns.below(Memory::new())));
        Versioned::new(below, VersionedLayer::new().max_versions(1000))
    })
    .volatile()
    .damage(|ns, key| async move { damage(&**ns.stored_below()?.backend(), &key).await })
    .stored_by_others(|ns, key, value| async move { ns.stored_below()?.put(key, value).await.map(drop) })
    .group("all")
    .requires(over_memory()),
    Target::new("versioned-filesystem", |ns: Namespace| async move {
        Versioned::new(Arc::new(ns.below(Fs::open(ns.dir()).await?)), VersionedLayer::new())
    })
    .damage(|ns: Namespace, key| async move { damaged_record(&ns.dir().join(key.as_str())) })
    .group("all")
    .slow()
    .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags().versioning()),
    Target::new("versioned-minimal", |ns: Namespace| async move {
        Versioned::new(Arc::new(ns.below(Hashed::default())), VersionedLayer::new())
    })
    .volatile()
    .damage(damaged_token)
    .group("all")
    .requires(Capabilities::new().atomic().versioning()),
);

/// A record of which only the beginning is left.
fn damaged_record(file: &Path) -> Result<()> {
    let damaged = rustix::fs::setxattr(file, "user.storage.v1", b"damaged", rustix::fs::XattrFlags::empty());
    damaged.map_err(|e| Error::new(ErrorKind::Other, "the value cannot be damaged").with_source(e))
}
