//! The whole suite through the layer: with metadata in the clear and encrypted, over memory and over a directory, and with a
//! ring of keys beside the values.

use storage_config::DataKey;
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Key, Metadata, PutOptions, Result, Storage, StorageBackend};
use storage_fs::Fs;
use storage_layer_encrypt::{Algorithm, EncryptLayer, Keyring, StaticKeys};
use storage_layer_prefix::PrefixLayer;
use storage_memory::Memory;

/// Those of the backend below and encryption, without what must be done above it.
fn over_memory() -> Capabilities {
    let mut capabilities = Memory::new().info().capabilities.encryption();
    capabilities.queryable = false;
    capabilities
}

const OVER_FS: Capabilities =
    Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags().encryption();

/// Not a key for anything else.
const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

fn keys() -> Result<StaticKeys> {
    StaticKeys::new("test", &DataKey::new(KEY))
}

/// The value of others: too short for an encrypted one.
async fn plain_value(ns: Namespace, key: Key) -> Result<()> {
    ns.stored_below()?.put(key, "plain").await.map(drop)
}

/// The value of others, of a size that an encrypted one can have, with metadata in the clear.
async fn plain_metadata(ns: Namespace, key: Key) -> Result<()> {
    let options = PutOptions::new().metadata(Metadata::new().content_type("text/plain").tag("t").field("n", 1));
    ns.stored_below()?.put_with(key, vec![0; 300], options).await.map(drop)
}

fn with_metadata() -> Result<EncryptLayer> {
    Ok(EncryptLayer::new(keys()?).encrypt_metadata(true).algorithm(Algorithm::ChaCha20Poly1305))
}

storage_conformance::main!(
    Target::new("encrypt", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(EncryptLayer::new(keys()?)).backend().clone())
    })
    .volatile()
    .secret(KEY)
    .damage(plain_value)
    .group("values")
    .requires(over_memory()),
    Target::new("encrypt-fs", |ns: Namespace| async move {
        let below = ns.below(Fs::open(ns.dir()).await?);
        Ok(Storage::new(below).layer(EncryptLayer::new(keys()?)).backend().clone())
    })
    .secret(KEY)
    .damage(plain_value)
    .group("values")
    .slow()
    .requires(OVER_FS),
    Target::new("encrypt-metadata", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Memory::new())).layer(with_metadata()?).backend().clone())
    })
    .volatile()
    .secret(KEY)
    .damage(plain_metadata)
    .group("metadata")
    .requires(over_memory()),
    Target::new("encrypt-metadata-fs", |ns: Namespace| async move {
        Ok(Storage::new(ns.below(Fs::open(ns.dir()).await?)).layer(with_metadata()?).backend().clone())
    })
    .secret(KEY)
    .damage(plain_metadata)
    .group("metadata")
    .slow()
    .requires(OVER_FS),
    Target::new("encrypt-keyring", |ns: Namespace| async move {
        let below = Storage::new(ns.below(Fs::open(ns.dir()).await?));
        let ring = below.clone().layer(PrefixLayer::new("keys/")?);
        let ring = Keyring::open(ring, keys()?).await?;
        let values = below.layer(PrefixLayer::new("values/")?);
        Ok(values.layer(EncryptLayer::new(ring).encrypt_metadata(true)).backend().clone())
    })
    .secret(KEY)
    .damage(|ns, key| async move { plain_metadata(ns, Key::parse(&format!("values/{key}"))?).await })
    .group("metadata")
    .slow()
    .requires(OVER_FS),
);
