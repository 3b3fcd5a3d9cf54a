//! No data key and no nonce is used twice. By default over 20,000 writes; `STORAGE_TEST_WRITES` says another number.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use storage_config::{DataKey, KeyProvider, WrappedKey};
use storage_core::{Result, Storage, async_trait};
use storage_layer_encrypt::{Algorithm, EncryptLayer, Keyring, StaticKeys};
use storage_memory::Memory;

/// Notes the data keys that are wrapped, and the nonces under which.
#[derive(Debug)]
struct Watching<K> {
    keys: K,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    data_keys: HashSet<[u8; 32]>,
    nonces: HashSet<[u8; 12]>,
    repeated: u64,
}

#[async_trait]
impl<K: KeyProvider> KeyProvider for Watching<K> {
    async fn wrap(&self, key: &DataKey, context: &[u8]) -> Result<WrappedKey> {
        let wrapped = self.keys.wrap(key, context).await?;
        let mut seen = self.seen.lock().unwrap();
        let nonce = wrapped.wrapped[..12].try_into().unwrap();
        let fresh = seen.data_keys.insert(*key.expose()) & seen.nonces.insert(nonce);
        seen.repeated += u64::from(!fresh);
        Ok(wrapped)
    }

    async fn unwrap(&self, key: &WrappedKey, context: &[u8]) -> Result<DataKey> {
        self.keys.unwrap(key, context).await
    }
}

/// A value has one data key, and under it one nonce for each chunk (a unit test of the format counts them) and one for the
/// metadata. So what must not repeat are data keys, and the nonces under which a key wraps them.
#[tokio::test]
async fn data_keys_and_wrapping_nonces_are_distinct() -> Result<()> {
    let writes = std::env::var("STORAGE_TEST_WRITES").map_or(20_000, |n| n.parse().unwrap());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let ring = Keyring::open(Storage::new(Memory::new()), StaticKeys::generate("kek")?).await?;
    let layer = EncryptLayer::new(Watching { keys: ring, seen: seen.clone() }).encrypt_metadata(true);
    let memory = Storage::new(Memory::new());
    let aes = memory.clone().layer(layer.clone());
    let chacha = memory.layer(layer.algorithm(Algorithm::ChaCha20Poly1305));
    for n in 0..writes {
        // Always the same key and value: nothing but chance tells these writes apart.
        let storage = if n % 2 == 0 { &aes } else { &chacha };
        storage.put("key", "value").await?;
    }
    let seen = seen.lock().unwrap();
    println!("{} data keys, {} nonces in {writes} writes", seen.data_keys.len(), seen.nonces.len());
    assert_eq!((seen.data_keys.len(), seen.nonces.len(), seen.repeated), (writes, writes, 0));
    Ok(())
}
