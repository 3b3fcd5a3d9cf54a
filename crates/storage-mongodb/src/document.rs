//! A key's document: what is written into it, and how it is read.
//!
//! ```text
//! { _id: key, rev: text, born: text, size: long, created: date, modified: date,
//!   metadata: { content_type: text, tags: [text], fields: [text], minus_zeros: [text], type: any },
//!   data: binary  or  file: id, chunk: int }
//! ```

use std::{sync::Arc, time::SystemTime};

use mongodb::bson::{Binary, Bson, DateTime, Document, doc, oid::ObjectId, spec::BinarySubtype};
use storage_core::{Bytes, Entry, Error, ErrorKind, Etag, FieldValue, Key, Metadata, Result};

use crate::fields;

/// Where a value is.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Inline(Bytes),
    File { id: ObjectId, size: u64, chunk: u32 },
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }
}

/// What a document says.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// `None` where it was not asked for, or cannot be read.
    pub(crate) content: Option<Content>,
}

/// An update that makes this the value, with new metadata. `n` counts the writes of the key, where versions are kept.
pub(crate) fn update(
    rev: &str,
    content: &Content,
    metadata: &Metadata,
    created: DateTime,
    n: Option<i64>,
) -> Result<Document> {
    let mut set = doc! { "rev": rev, "size": content.size().cast_signed(), "metadata": described(metadata)? };
    let unset = match content {
        Content::Inline(bytes) => {
            set.insert("data", Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() });
            doc! { "file": "", "chunk": "" }
        }
        Content::File { id, chunk, .. } => {
            set.insert("file", id);
            set.insert("chunk", chunk.cast_signed());
            doc! { "data": "" }
        }
    };
    set.extend(n.map(|n| ("n".to_owned(), n.into())));
    Ok(doc! {
        "$set": set,
        "$unset": unset,
        "$setOnInsert": { "created": created, "born": rev },
        "$currentDate": { "modified": true },
    })
}

fn described(metadata: &Metadata) -> Result<Document> {
    let texts = metadata.fields.iter().map(|(name, value)| fields::encode(name, value));
    let mut described = doc! {
        "tags": metadata.tags.iter().collect::<Vec<_>>(),
        "fields": texts.collect::<Result<Vec<_>>>()?,
    };
    if let Some(content_type) = &metadata.content_type {
        described.insert("content_type", content_type);
    }
    let is_minus_zero = |value: &FieldValue| matches!(value, FieldValue::Float(f) if *f == 0.0 && f.is_sign_negative());
    let zeros: Vec<&String> = metadata.fields.iter().filter(|(_, v)| is_minus_zero(v)).map(|(name, _)| name).collect();
    if !zeros.is_empty() {
        described.insert("minus_zeros", zeros);
    }
    // For people and other programs, and the index on it; ours look at `fields`.
    if let Some(value) = metadata.fields.get("type") {
        described.insert("type", natural(value));
    }
    Ok(described)
}

fn natural(value: &FieldValue) -> Bson {
    match value {
        FieldValue::Bool(value) => (*value).into(),
        FieldValue::Int(value) => (*value).into(),
        FieldValue::Float(value) => (*value).into(),
        FieldValue::String(value) => value.into(),
        _ => Bson::Null,
    }
}

/// Holds of the documents that [`found`] can read, so that no etag is that of a damaged one.
pub(crate) fn sound() -> Document {
    let each = |what: Document| doc! { "$type": "array", "$not": { "$elemMatch": { "$not": what } } };
    doc! {
        "size": { "$type": "long", "$gte": 0_i64 },
        // Not a list of texts.
        "rev.0": { "$exists": false },
        "metadata.fields": each(doc! { "$regex": fields::PATTERN }),
        "metadata.tags": each(doc! { "$type": "string" }),
        "$and": [
            { "$or": [{ "metadata.content_type": { "$exists": false } }, { "metadata.content_type": { "$type": "string" } }] },
            { "$or": [{ "data": { "$type": "binData" } }, { "file": { "$type": "objectId" }, "chunk": { "$type": "int" } }] },
        ],
    }
}

/// Reads a document that was asked for with `data` and `metadata`, or without either. `None` for one whose `_id` is no key.
pub(crate) fn found(mut document: Document, with_data: bool, with_metadata: bool) -> Option<Found> {
    let key = match document.remove("_id") {
        Some(Bson::String(key)) => Key::parse(&key).ok()?,
        _ => return None,
    };
    let size = document.get_i64("size").ok().and_then(|size| u64::try_from(size).ok());
    let mut entry = Entry::new(key, size.unwrap_or_default());
    entry.created = document.get_datetime("created").ok().map(|time| time.to_system_time());
    entry.modified = document.get_datetime("modified").ok().map(|time| time.to_system_time());
    entry.etag = document.get_str("rev").ok().map(Etag::new);
    let mut damaged = size.is_none() || entry.etag.is_none();
    if with_metadata {
        match document.get_document("metadata").ok().and_then(metadata) {
            Some(metadata) => entry.metadata = Some(Arc::new(metadata)),
            None => damaged = true,
        }
    }
    let file = document.get_object_id("file").ok();
    let chunk = document.get_i32("chunk").ok().and_then(|chunk| u32::try_from(chunk).ok()).filter(|chunk| *chunk > 0);
    let content = match (file, document.remove("data")) {
        (Some(id), _) => chunk.map(|chunk| Content::File { id, size: entry.size, chunk }),
        (None, Some(Bson::Binary(data))) => {
            Some(Content::Inline(data.bytes.into())).filter(|content| content.size() == entry.size)
        }
        _ => None,
    };
    damaged |= with_data && content.is_none();
    if damaged {
        entry = entry.into_damaged(unreadable());
    }
    Some(Found { entry, content })
}

pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "the document of the key is not readable; write the value again or restore a backup")
}

fn metadata(stored: &Document) -> Option<Metadata> {
    let mut metadata = Metadata::new();
    metadata.content_type = match stored.get("content_type") {
        None => None,
        Some(text) => Some(text.as_str()?.to_owned()),
    };
    for tag in stored.get_array("tags").ok()? {
        metadata.tags.insert(tag.as_str()?.to_owned());
    }
    for field in stored.get_array("fields").ok()? {
        let (name, value) = fields::decode(field.as_str()?)?;
        metadata.fields.insert(name, value);
    }
    for name in stored.get_array("minus_zeros").into_iter().flatten() {
        if let Some(FieldValue::Float(float)) = name.as_str().and_then(|name| metadata.fields.get_mut(name)) {
            *float = -0.0;
        }
    }
    Some(metadata)
}

/// A moment as the database keeps it, in milliseconds.
pub(crate) fn date(time: SystemTime) -> DateTime {
    DateTime::from_system_time(time)
}

/// A revision, never used again.
pub(crate) fn revision() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The keys that begin so, as a condition on `_id`.
pub(crate) fn prefixed(prefix: &str) -> Document {
    let mut range = doc! { "$gte": prefix };
    if let Some(end) = behind(prefix) {
        range.insert("$lt", end);
    }
    range
}

/// The least text behind all that begin so; `None` if there is none.
pub(crate) fn behind(prefix: &str) -> Option<String> {
    let mut rest = prefix.to_owned();
    while let Some(last) = rest.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            rest.push(next);
            return Some(rest);
        }
    }
    None
}
