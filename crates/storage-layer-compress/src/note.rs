//! The plain size, noted in the metadata, so that a listing knows it.

use std::sync::Arc;

use storage_core::{FieldValue, Metadata};

/// The metadata field that holds it.
pub(crate) const FIELD: &str = "storage.compress";
/// The bytes that the note takes of the metadata, with room for what keeps a caller's own fields apart.
pub(crate) const OVERHEAD: usize = 64;

/// What the metadata of a stored value says about its plain size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Size(u64),
    /// The stream did not declare it: it is in the trailer.
    InTrailer,
}

impl Note {
    fn value(self) -> i64 {
        match self {
            // No value has more bytes: `limits.value` says so.
            Self::Size(size) => i64::try_from(size).unwrap_or(i64::MAX),
            Self::InTrailer => -1,
        }
    }
}

/// The metadata to store. A caller's own field of our name gets an apostrophe more.
pub(crate) fn attach(metadata: Option<&Metadata>, note: Note) -> Metadata {
    let mut stored = metadata.cloned().unwrap_or_default();
    let own: Vec<String> = stored.fields.keys().filter(|name| is_ours(name)).cloned().collect();
    // From the longest, so that none takes the place of another.
    for name in own.into_iter().rev() {
        if let Some(value) = stored.fields.remove(&name) {
            stored.fields.insert(format!("{name}'"), value);
        }
    }
    stored.fields.insert(FIELD.into(), FieldValue::Int(note.value()));
    stored
}

/// Whether there is a note, readable or not.
pub(crate) fn is_there(stored: &Metadata) -> bool {
    stored.fields.contains_key(FIELD)
}

/// The caller's metadata and the note; `None` for a value that this layer did not write, and for a note that is damaged.
pub(crate) fn detach(stored: &Arc<Metadata>) -> Option<(Arc<Metadata>, Note)> {
    let note = match stored.fields.get(FIELD) {
        Some(FieldValue::Int(-1)) => Note::InTrailer,
        Some(FieldValue::Int(size)) => Note::Size(u64::try_from(*size).ok()?),
        _ => return None,
    };
    let mut metadata = (**stored).clone();
    metadata.fields.remove(FIELD);
    let own: Vec<String> = metadata.fields.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in own {
        if let (Some(value), Some(plain)) = (metadata.fields.remove(&name), name.strip_suffix('\'')) {
            metadata.fields.insert(plain.to_owned(), value);
        }
    }
    Some((metadata.into(), note))
}

/// Whether a field is, or could be taken for, the note.
pub(crate) fn is_ours(name: &str) -> bool {
    name.strip_prefix(FIELD).is_some_and(|rest| rest.bytes().all(|byte| byte == b'\''))
}
