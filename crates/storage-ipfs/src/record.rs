//! What the index holds, and how it becomes entries.
//!
//! | key in the index | what |
//! |---|---|
//! | `k/` prefix key | the record of a key: metadata of the value, and in the fields `$cid` and `$size` its content and size. Etag and dates are the index's own |
//! | `c/` cid | a [`Count`] as JSON: how many keys have this content, what keeps it pinned, or what is being done about it |
//! | `q/` cid | nothing: that content may have to be unpinned |
//! | `i/` cid | nothing: that a CAR with this root is being imported |
//! | `s/store` | the version of all this, and the id of the store |
//! | `s/clock` | nothing: its date is the index's time |

use std::sync::Arc;

use cid::Cid;
use serde::{Deserialize, Serialize};
use storage_core::{Entry, Error, ErrorKind, FieldValue, Key, Metadata, Result};

use crate::unixfs::Part;

/// The version of the records. Those of version 1 are read, too: their counts know no [`pin`](Count::pin).
pub(crate) const SCHEMA: u32 = 2;
pub(crate) const OLDEST_SCHEMA: u32 = 1;
/// Bytes that a key of the index has beside the prefix and the key itself.
pub(crate) const KEY_OVERHEAD: usize = 2;
/// Bytes that the fields of a record take of the index's limit on metadata, at most.
pub(crate) const METADATA_OVERHEAD: usize = 512;

const CID: &str = "$cid";
pub(crate) const SIZE: &str = "$size";

/// The names of records in the index.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    keys: Arc<str>,
    file: Arc<str>,
}

impl Names {
    /// Those in the index of the store with this id, whose keys begin so.
    pub(crate) fn new(prefix: &str, id: &str) -> Self {
        Self { keys: format!("k/{prefix}").into(), file: format!("storage-ipfs-{id}").into() }
    }

    /// What content is called in the directory that is pinned to keep it, and that holds nothing else. Only this store calls it so, so that
    /// nobody else's pin is ever the same.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// How the records of keys that begin so do.
    pub(crate) fn prefix(&self, prefix: &str) -> String {
        format!("{}{prefix}", self.keys)
    }

    pub(crate) fn key(&self, key: &Key) -> Result<Key> {
        Key::parse(&self.prefix(key.as_str()))
    }

    /// The text behind that prefix: a key, or a common prefix.
    pub(crate) fn within<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(&*self.keys).unwrap_or(key)
    }

    pub(crate) fn own(&self, key: &Key) -> Result<Key> {
        Key::parse(self.within(key.as_str()))
    }
}

pub(crate) fn count_key(cid: &Cid) -> Result<Key> {
    Key::parse(&format!("c/{cid}"))
}

/// How the names of notes of imports begin.
pub(crate) const IMPORTS: &str = "i/";

pub(crate) fn import_key(root: &Cid) -> Result<Key> {
    Key::parse(&format!("{IMPORTS}{root}"))
}

pub(crate) fn queue_key(cid: &Cid) -> Result<Key> {
    Key::parse(&format!("q/{cid}"))
}

/// How many keys have some content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) keys: u64,
    #[serde(default, skip_serializing_if = "State::is_kept")]
    pub(crate) state: State,
    /// The directory that is pinned to keep the content; the content itself in what version 1 has written.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text")]
    pub(crate) pin: Option<Cid>,
    /// In what version 1 has written, the name of a pin of the content itself that somebody else had made before: it is never removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) foreign: Option<String>,
}

/// Content identifiers as text.
mod text {
    use cid::Cid;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(cid: &Option<Cid>, serializer: S) -> Result<S::Ok, S::Error> {
        match cid {
            Some(cid) => serializer.collect_str(cid),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cid>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Cid::try_from(text).map_err(|_| de::Error::custom("a pin is a content identifier"))).transpose()
    }
}

/// What is being done about content that no key has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It is pinned.
    #[default]
    Kept,
    /// It is pinned, and was found under no key: perhaps somebody is about to name it.
    Found,
    /// Whoever has this token is unpinning it.
    Claimed(String),
    /// It was unpinned. That is kept for a while, for those who have pinned it before and are about to name it.
    Released,
}

impl State {
    fn is_kept(&self) -> bool {
        *self == Self::Kept
    }
}

impl Count {
    /// Whether the content is certainly pinned as long as this record does not change.
    pub(crate) fn is_pinned(&self) -> bool {
        self.keys > 0 || (self.foreign.is_none() && matches!(self.state, State::Kept | State::Found))
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "a record of the index is not readable: how many keys have some content")
                .with_source(e)
        })
    }

    pub(crate) fn write(&self) -> String {
        // Numbers and texts into memory cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The metadata of a record. A field whose name begins with `$` gets another one before it.
pub(crate) fn metadata(part: &Part, metadata: Option<&Metadata>) -> Metadata {
    let mut record = Metadata::new();
    if let Some(metadata) = metadata {
        record.content_type.clone_from(&metadata.content_type);
        record.tags.clone_from(&metadata.tags);
        record.fields = metadata.fields.iter().map(|(name, value)| (field(name), value.clone())).collect();
    }
    // Sizes are at most `i64::MAX`, the limit of values.
    record.field(CID, part.cid.to_string()).field(SIZE, part.size as i64)
}

/// What a field of a value is called in the index.
pub(crate) fn field(name: &str) -> String {
    if name.starts_with('$') { format!("${name}") } else { name.to_owned() }
}

/// The content of the value whose record this is.
pub(crate) fn part(record: &Entry) -> Option<Part> {
    let fields = &record.metadata.as_ref()?.fields;
    let Some(FieldValue::String(cid)) = fields.get(CID) else { return None };
    let Some(FieldValue::Int(size)) = fields.get(SIZE) else { return None };
    Some(Part { cid: Cid::try_from(cid.as_str()).ok()?, size: u64::try_from(*size).ok()? })
}

/// The entry of the value whose record this is, with its metadata; a damaged one if the record is not readable.
pub(crate) fn entry(record: Entry, names: &Names) -> Result<Entry> {
    let mut entry = Entry::new(names.own(&record.key)?, 0);
    entry.modified = record.modified;
    entry.created = record.created;
    if let Some(reason) = record.damaged {
        return Ok(entry.into_damaged(Error::new(reason.kind(), reason.message()).with_source(reason)));
    }
    let Some(part) = part(&record) else {
        return Ok(entry.into_damaged(damaged()));
    };
    entry.size = part.size;
    entry.etag = record.etag;
    entry.attributes.insert("cid", part.cid.to_string());
    let mut metadata = record.metadata.unwrap_or_default();
    let own = Arc::make_mut(&mut metadata);
    own.fields.remove(CID);
    own.fields.remove(SIZE);
    if own.fields.keys().any(|name| name.starts_with('$')) {
        let fields = std::mem::take(&mut own.fields);
        own.fields = fields.into_iter().map(|(name, value)| (unfield(name), value)).collect();
    }
    entry.metadata = Some(metadata);
    Ok(entry)
}

fn unfield(name: String) -> String {
    name.strip_prefix('$').map_or(name.clone(), str::to_owned)
}

pub(crate) fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "the record of the value in the index is not readable")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unixfs::leaf;

    fn names() -> Names {
        Names::new("p/", "id")
    }

    #[test]
    fn fields_may_be_called_anything() {
        let names = names();
        let part = Part { cid: leaf(b"x"), size: 1 };
        let own = ["$cid", "$size", "$", "$$", "$$cid", "", "cid"];
        let metadata = own.iter().fold(Metadata::new().tag("t"), |metadata, name| metadata.field(*name, *name));
        let mut record = Entry::new(names.key(&Key::parse("a/b").unwrap()).unwrap(), 0);
        record.metadata = Some(super::metadata(&part, Some(&metadata)).into());
        let entry = entry(record, &names).unwrap();
        assert_eq!(entry.metadata.as_deref(), Some(&metadata));
        assert_eq!((entry.key.as_str(), entry.size), ("a/b", 1));
        assert_eq!(entry.attributes.get("cid"), Some(part.cid.to_string().as_str()));
    }

    #[test]
    fn counts_are_read_as_they_were_written() {
        for count in [
            Count { keys: 3, ..Count::default() },
            Count { state: State::Claimed("t".into()), ..Count::default() },
            Count { state: State::Released, foreign: Some(String::new()), ..Count::default() },
            Count { keys: 1, pin: Some(leaf(b"x")), ..Count::default() },
        ] {
            assert_eq!(Count::read(count.write().as_bytes()).unwrap(), count);
        }
        assert_eq!(Count { keys: 1, ..Count::default() }.write(), r#"{"keys":1}"#);
    }
}
