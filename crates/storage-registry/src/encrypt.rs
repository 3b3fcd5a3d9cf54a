//! The encryption layer from a configuration: which keys, and where they come from.

use std::{collections::BTreeMap, sync::Arc};

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use storage_config::{ConnectionConfig, DataKey, Secret, StorageContext};
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};
use storage_layer_encrypt::{Algorithm, EncryptLayer, StaticKeys};
use zeroize::Zeroizing;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// With what is written; reading takes any.
    algorithm: Algorithm,
    /// Whether metadata is encrypted too.
    encrypt_metadata: bool,
    /// Whether values are read that were written before, with their metadata in the clear.
    allow_plain_metadata: bool,
    /// The id of the key that encrypts. It may be left out if there is only one.
    current: Option<String>,
    /// From ids to references: `env:NAME`, `file:PATH`.
    keys: BTreeMap<String, String>,
}

/// Whether these are options of the layer, and name keys. Whether there must be any, only the context tells.
pub(crate) fn check(config: &ConnectionConfig) -> Result<()> {
    let Options { current, keys, encrypt_metadata, allow_plain_metadata, .. } = config.typed()?;
    if allow_plain_metadata && !encrypt_metadata {
        return Err(wrong("`allow_plain_metadata` is for stores that encrypt metadata; set `encrypt_metadata` too"));
    }
    if keys.is_empty() { Ok(()) } else { read(current, &keys).map(drop) }
}

pub(crate) fn layer(
    config: &ConnectionConfig,
    context: &StorageContext,
    inner: Arc<dyn StorageBackend>,
) -> Result<Arc<dyn StorageBackend>> {
    let Options { algorithm, encrypt_metadata, allow_plain_metadata, current, keys } = config.typed()?;
    let layer = match &context.keys {
        Some(provider) if keys.is_empty() && current.is_none() => EncryptLayer::from_arc(provider.clone()),
        Some(_) => return Err(wrong("the context has a key provider; leave `keys` and `current` out")),
        None => EncryptLayer::new(read(current, &keys)?),
    };
    let layer = layer.encrypt_metadata(encrypt_metadata).allow_plain_metadata(allow_plain_metadata);
    Ok(Arc::new(layer.algorithm(algorithm).layer(inner)))
}

fn read(current: Option<String>, keys: &BTreeMap<String, String>) -> Result<StaticKeys> {
    let current = match (current, keys.len()) {
        (_, 0) => {
            return Err(wrong(
                "there is no key; write `keys = { ID = \"env:NAME\" }` or `\"file:PATH\"`, or give the context a key provider",
            ));
        }
        (Some(current), _) => current,
        (None, 1) => keys.keys().cloned().collect(),
        (None, _) => return Err(wrong("there are several keys; name the one that encrypts in `current`")),
    };
    let Some(reference) = keys.get(&current) else {
        return Err(wrong("`current` names none of the `keys`; write the id of one of them"));
    };
    // Ids are not repeated either: whoever exchanges id and key has written the key there.
    let which = |id: &String| match keys.keys().position(|other| other == id) {
        Some(at) if keys.len() > 1 => format!("key {} of {}, in the order of their ids", at + 1, keys.len()),
        _ => "the key".to_owned(),
    };
    let mut all = StaticKeys::new(&current, &key(&which(&current), reference)?)?;
    for (id, reference) in keys.iter().filter(|(id, _)| **id != current) {
        all = all.with_older(id, &key(&which(id), reference)?)?;
    }
    Ok(all)
}

fn key(which: &str, reference: &str) -> Result<DataKey> {
    if !reference.starts_with("env:") && !reference.starts_with("file:") {
        return Err(wrong(format!(
            "{which} must not stand in the configuration itself; write `env:NAME` or `file:PATH` for where it is"
        )));
    }
    let text = Secret::resolve(reference).map_err(|e| wrong(format!("{which}: {}", e.message())))?;
    let text = text.expose().trim().as_bytes();
    let decoded = match text.len() {
        64 => HEXLOWER_PERMISSIVE.decode(text),
        43 => BASE64_NOPAD.decode(text),
        _ => BASE64.decode(text),
    };
    let decoded = decoded.map(Zeroizing::new).ok();
    let key = decoded.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    key.map(DataKey::new).ok_or_else(|| {
        wrong(format!(
            "{which} must be 32 bytes as base64 or hexadecimal digits, as `openssl rand -base64 32` prints them"
        ))
    })
}

fn wrong(message: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::Config, format!("encrypt: {}", message.as_ref()))
}
