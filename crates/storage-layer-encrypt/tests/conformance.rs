//! The whole suite through the layer.

use storage_conformance::{Namespace, Target};
use storage_core::{DataKey, Storage};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("encrypt", |_: Namespace| async {
        let keys = StaticKeys::new("test", &DataKey::new([7; 32]))?;
        Ok(Storage::new(Memory::new()).layer(EncryptLayer::new(keys)).backend().clone())
    })
    .volatile()
);
