//! The test vectors of `docs/encryption.md`, byte for byte in both directions.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use ring::digest;
use serde::Deserialize;
use storage_config::{DataKey, WrappedKey};
use storage_core::{Key, Metadata};

use crate::{
    Algorithm,
    format::{Cipher, HEADER, Header, MetadataForm, plain_context, sealed_context},
    metadata, record,
    seal::{open_whole, seal_whole},
    wrap::WrappingKey,
};

#[derive(Deserialize)]
struct Vectors {
    values: Vec<Value>,
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Value {
    name: String,
    kek_id: String,
    kek: String,
    algorithm: u8,
    sealed: bool,
    key: String,
    metadata: String,
    data_key: String,
    plain: String,
    wrapped: String,
    stored_metadata: String,
    stored_sha256: String,
    stored: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    name: String,
    kek_id: String,
    kek: String,
    wrapping_key: String,
    record: String,
}

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.as_bytes()).unwrap()
}

fn key(hex: &str) -> DataKey {
    DataKey::new(bytes(hex).try_into().unwrap())
}

fn plain(text: &str) -> Vec<u8> {
    match text.strip_prefix("pattern of ").and_then(|rest| rest.strip_suffix(" bytes")) {
        Some(len) => (0..len.parse().unwrap()).map(|i: usize| (i * 7 + i / 251) as u8).collect(),
        None => bytes(text),
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../tests/vectors.json")).unwrap()
}

#[test]
fn values_are_encoded_and_decoded_as_described() {
    for v in vectors().values {
        let algorithm = Algorithm::from_code(v.algorithm).unwrap();
        let (name, plain, data_key) = (Key::parse(&v.key).unwrap(), plain(&v.plain), key(&v.data_key));
        let own = Arc::new(Metadata::from_json(&v.metadata).unwrap());
        assert_eq!(own.to_json(), v.metadata);
        let wrapped = WrappedKey { key_id: v.kek_id.clone(), wrapped: bytes(&v.wrapped) };
        let cipher = Cipher::new(algorithm, &data_key, &name).unwrap();
        let (form, context, stored_metadata) = if v.sealed {
            let sealed = metadata::seal(Some(&own), algorithm, &wrapped, &cipher).unwrap();
            (MetadataForm::Sealed, sealed_context(algorithm, &name), sealed)
        } else {
            (MetadataForm::Plain, plain_context(algorithm, &name, Some(&own)), own.clone())
        };
        assert_eq!(stored_metadata.to_json(), v.stored_metadata, "{}", v.name);
        let wrapping = WrappingKey::new(v.kek_id, &key(&v.kek)).unwrap();
        let unwrapped = wrapping.unwrap(&wrapped.wrapped, &context).unwrap();
        assert_eq!(unwrapped.expose(), data_key.expose(), "{}", v.name);

        let header = Header { algorithm, metadata: form, wrapped }.encode().unwrap();
        let stored = seal_whole(&header, &cipher, &plain).unwrap();
        let digest = digest::digest(&digest::SHA256, &stored);
        assert_eq!(HEXLOWER.encode(digest.as_ref()), v.stored_sha256, "{}", v.name);
        if let Some(expected) = v.stored {
            assert_eq!(stored, bytes(&expected), "{}", v.name);
        }

        let header = Header::decode(&stored[..HEADER as usize]).unwrap();
        assert_eq!((header.algorithm, header.metadata), (algorithm, form));
        // One that is shared, which is copied, and one that is not.
        assert_eq!(open_whole(&cipher, stored.clone()).unwrap(), plain, "{}", v.name);
        assert_eq!(open_whole(&cipher, stored).unwrap(), plain, "{}", v.name);
        if v.sealed {
            let sealed = metadata::Sealed::parse(&stored_metadata).unwrap().unwrap();
            assert!(sealed.algorithm == algorithm && sealed.wrapped == header.wrapped, "{}", v.name);
            assert_eq!(sealed.open(&cipher).unwrap(), own, "{}", v.name);
        }
    }
}

#[test]
fn records_are_encoded_and_decoded_as_described() {
    for v in vectors().records {
        let stored = bytes(&v.record);
        let wrapped = record::decode(&stored).unwrap();
        assert_eq!(wrapped.key_id, v.kek_id);
        assert_eq!(record::encode(&wrapped).unwrap(), stored);
        let kek = WrappingKey::new(v.kek_id, &key(&v.kek)).unwrap();
        let unwrapped = kek.unwrap(&wrapped.wrapped, &record::context(&v.name)).unwrap();
        assert_eq!(unwrapped.expose(), key(&v.wrapping_key).expose());
    }
}
