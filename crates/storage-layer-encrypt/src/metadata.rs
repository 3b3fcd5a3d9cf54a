//! Metadata as it is stored: in the clear, or sealed into one field. Described in `docs/encryption.md`.

use std::{borrow::Cow, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use storage_config::WrappedKey;
use storage_core::{Error, ErrorKind, FieldValue, Metadata, Result};

use crate::{
    Algorithm,
    format::{Cipher, TAG},
};

/// The field that holds sealed metadata. A caller's own field of this name is moved aside by an apostrophe, as is one that
/// would then be in its place, and so on.
pub(crate) const FIELD: &str = "storage.sealed";
/// Bytes of the canonical JSON of metadata with this field alone, the text in it empty.
const ENVELOPE: usize = r#"{"fields":{"":""}}"#.len() + FIELD.len();
/// The bytes before key id and wrapped key.
const FIXED: usize = 3;
/// The most bytes of key id and wrapped key together. With more, some stores would have no room for 1,000 bytes of metadata.
const MAX_KEY: usize = 82;
/// What moving a caller's fields aside may cost.
const ROOM: usize = 16;

/// Sealed metadata, as the field has it.
pub(crate) struct Sealed {
    pub(crate) algorithm: Algorithm,
    pub(crate) wrapped: WrappedKey,
    sealed: Vec<u8>,
}

/// The most bytes of plain metadata where the backend takes so many.
pub(crate) fn limit(below: usize, sealed: bool) -> usize {
    if !sealed {
        return below.saturating_sub(ROOM);
    }
    let bytes = below.saturating_sub(ENVELOPE) / 4 * 3;
    bytes.saturating_sub(FIXED + MAX_KEY + TAG as usize)
}

/// Metadata to be stored in the clear.
pub(crate) fn attach(metadata: Option<Arc<Metadata>>) -> Option<Arc<Metadata>> {
    metadata.map(|metadata| moved(&metadata, |name| Cow::Owned(format!("{name}'"))).map_or(metadata, Arc::new))
}

/// Metadata that was stored in the clear.
pub(crate) fn detach(stored: Arc<Metadata>) -> Arc<Metadata> {
    let plain = moved(&stored, |name| Cow::Borrowed(name.strip_suffix('\'').unwrap_or(name)));
    plain.map_or(stored, Arc::new)
}

/// Whether a field of this name is ours, or a caller's that is moved aside.
pub(crate) fn is_ours(name: &str) -> bool {
    name.trim_end_matches('\'') == FIELD
}

/// With the fields renamed whose names are ours but for apostrophes; `None` if there are none.
fn moved(metadata: &Metadata, rename: impl for<'n> Fn(&'n str) -> Cow<'n, str>) -> Option<Metadata> {
    metadata.fields.keys().any(|name| is_ours(name)).then(|| {
        let mut moved = metadata.clone();
        let fields = std::mem::take(&mut moved.fields).into_iter();
        moved.fields = fields
            .map(|(name, value)| (if is_ours(&name) { rename(&name).into_owned() } else { name }, value))
            .collect();
        moved
    })
}

/// Metadata to be stored sealed.
pub(crate) fn seal(
    metadata: Option<&Metadata>,
    algorithm: Algorithm,
    wrapped: &WrappedKey,
    cipher: &Cipher,
) -> Result<Arc<Metadata>> {
    let (id, key) = (wrapped.key_id.as_bytes(), &wrapped.wrapped);
    if id.len() + key.len() > MAX_KEY {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "the key provider's key id and wrapped key have {} bytes together, with encrypted metadata at most \
                 {MAX_KEY}; choose a shorter id, or put a `Keyring` between",
                id.len() + key.len()
            ),
        ));
    }
    let mut json = metadata.map_or_else(|| Metadata::new().to_json(), Metadata::to_json).into_bytes();
    cipher.seal_metadata(&mut json)?;
    let blob = [&[algorithm.code(), id.len() as u8, key.len() as u8][..], id, key, &json].concat();
    Ok(Arc::new(Metadata::new().field(FIELD, BASE64URL_NOPAD.encode(&blob))))
}

impl Sealed {
    /// What was stored sealed; `None` for what was not.
    pub(crate) fn parse(stored: &Metadata) -> Result<Option<Self>> {
        let Some(FieldValue::String(text)) = stored.fields.get(FIELD) else {
            return Ok(None);
        };
        // Whatever else is there, nothing authenticates it.
        let alone = stored.fields.len() == 1 && stored.tags.is_empty() && stored.content_type.is_none();
        let blob = BASE64URL_NOPAD.decode(text.as_bytes()).ok().filter(|_| alone).ok_or_else(changed)?;
        let (fixed, rest) = blob.split_at_checked(FIXED).ok_or_else(changed)?;
        let algorithm = Algorithm::from_code(fixed[0]).ok_or_else(changed)?;
        let (id, rest) = rest.split_at_checked(usize::from(fixed[1])).ok_or_else(changed)?;
        let (wrapped, sealed) = rest.split_at_checked(usize::from(fixed[2])).ok_or_else(changed)?;
        let key_id = std::str::from_utf8(id).map_err(|_| changed())?.to_owned();
        let wrapped = WrappedKey { key_id, wrapped: wrapped.to_vec() };
        Ok(Some(Self { algorithm, wrapped, sealed: sealed.to_vec() }))
    }

    pub(crate) fn open(mut self, cipher: &Cipher) -> Result<Arc<Metadata>> {
        let len = cipher.open_metadata(&mut self.sealed)?;
        let json = std::str::from_utf8(&self.sealed[..len]).map_err(|_| changed())?;
        Metadata::from_json(json).map(Arc::new)
    }
}

/// The metadata is not what this layer stored.
pub(crate) fn changed() -> Error {
    Error::new(ErrorKind::Corrupt, "the stored metadata is not that which was stored with the value: it was changed")
}

/// The metadata is in the clear, and this layer encrypts it.
pub(crate) fn in_the_clear() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the stored metadata is in the clear, though metadata is encrypted here: it was changed, or written before \
         `encrypt_metadata`; to read values written before, set `allow_plain_metadata` and write them again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_takes_1500_bytes_takes_1000_sealed() {
        assert_eq!(limit(1500, true), Metadata::MIN_LIMIT);
        assert_eq!(Metadata::new().field(FIELD, "").size(), ENVELOPE);
    }

    #[test]
    fn fields_of_our_name_are_moved_aside_and_back() {
        let own = Metadata::new().field(FIELD, 1).field(format!("{FIELD}'"), 2).field("other", 3).tag("t");
        let stored = attach(Some(Arc::new(own.clone()))).unwrap();
        assert!(!stored.fields.contains_key(FIELD) && stored.fields.len() == 3);
        assert_eq!(*detach(stored), own);
    }
}
