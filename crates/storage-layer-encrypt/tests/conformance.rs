//! The whole suite through the layer.

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, DataKey, Storage, StorageBackend};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_memory::Memory;

/// Those of the backend below and encryption, without what must be done above it.
fn capabilities() -> Capabilities {
    let mut capabilities = Memory::new().info().capabilities.encryption();
    capabilities.queryable = false;
    capabilities
}

storage_conformance::main!(
    Target::new("encrypt", |_: Namespace| async {
        let keys = StaticKeys::new("test", &DataKey::new([7; 32]))?;
        Ok(Storage::new(Memory::new()).layer(EncryptLayer::new(keys)).backend().clone())
    })
    .volatile()
    .requires(capabilities())
);
