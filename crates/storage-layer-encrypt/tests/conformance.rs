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

/// Not a key for anything else.
const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

storage_conformance::main!(
    Target::new("encrypt", |ns: Namespace| async move {
        let keys = StaticKeys::new("test", &DataKey::new(KEY))?;
        Ok(Storage::new(ns.below(Memory::new())).layer(EncryptLayer::new(keys)).backend().clone())
    })
    .volatile()
    .secret(KEY)
    .requires(capabilities())
);
