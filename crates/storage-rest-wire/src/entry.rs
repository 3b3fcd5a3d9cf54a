//! Entries as JSON and as headers.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use storage_core::{Entry, Error, ErrorKind, Etag, Key, Metadata, Result, VersionId};

use crate::{Problem, time};

/// An entry. Members that are not known are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Entry))]
pub struct EntryJson {
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Bytes of the value.
    pub size: u64,
    /// Bytes that it takes in the store, where a layer changed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_size: Option<u64>,
    /// When it was written, as of RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", with = "time")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub modified: Option<SystemTime>,
    /// When the key was first written, as of RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", with = "time")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub created: Option<SystemTime>,
    /// Changes whenever the bytes change. In headers it stands in quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Content type, fields and tags; left out where they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Metadata>,
    /// Why the value cannot be read, where it is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<Box<Problem>>,
    /// What else the store says of the value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl EntryJson {
    /// The entry, of this key where the JSON names none.
    ///
    /// # Errors
    /// `InvalidKey` when there is no key, or none that is legal.
    pub fn into_entry(self, key: Option<&Key>) -> Result<Entry> {
        let key = match (self.key, key) {
            (Some(named), _) => Key::parse(&named)?,
            (None, Some(key)) => key.clone(),
            (None, None) => return Err(Error::new(ErrorKind::InvalidKey, "the entry names no key")),
        };
        let mut entry = Entry::new(key, self.size);
        entry.stored_size = self.stored_size;
        entry.modified = self.modified;
        entry.created = self.created;
        entry.etag = self.etag.map(Etag::from);
        entry.version = self.version.map(VersionId::from);
        entry.metadata = self.metadata.map(Arc::new);
        entry.damaged = self.damaged.map(|problem| (*problem).into());
        for (name, text) in self.attributes {
            entry.attributes.insert(name, text);
        }
        Ok(entry)
    }

    /// As the header `storage-entry` has it: without key and metadata, in base64url.
    #[must_use]
    pub fn to_header(mut self) -> String {
        (self.key, self.metadata) = (None, None);
        // A struct of texts and numbers can be written as JSON.
        BASE64URL_NOPAD.encode(&serde_json::to_vec(&self).unwrap_or_default())
    }

    /// What such a header says.
    ///
    /// # Errors
    /// `InvalidInput` when it is none.
    pub fn from_header(header: &str) -> Result<Self> {
        let wrong = || Error::new(ErrorKind::InvalidInput, "the header `storage-entry` is not base64url of an entry");
        let json = BASE64URL_NOPAD.decode(header.as_bytes()).map_err(|_| wrong())?;
        serde_json::from_slice(&json).map_err(|e| wrong().with_source(e))
    }
}

impl From<Entry> for EntryJson {
    fn from(entry: Entry) -> Self {
        Self {
            key: Some(entry.key.as_str().to_owned()),
            size: entry.size,
            stored_size: entry.stored_size,
            modified: entry.modified,
            created: entry.created,
            etag: entry.etag.map(String::from),
            version: entry.version.map(String::from),
            metadata: entry.metadata.map(Arc::unwrap_or_clone),
            damaged: entry.damaged.map(|e| Box::new(Problem::from(&e))),
            attributes: entry.attributes.iter().map(|(name, text)| (name.into(), text.into())).collect(),
        }
    }
}

/// Metadata as the header `storage-metadata` has it.
#[must_use]
pub fn metadata_header(metadata: &Metadata) -> String {
    BASE64URL_NOPAD.encode(metadata.to_json().as_bytes())
}

/// What such a header says.
///
/// # Errors
/// `InvalidInput` when it is none.
pub fn parse_metadata_header(header: &str) -> Result<Metadata> {
    let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, message);
    let json = BASE64URL_NOPAD.decode(header.as_bytes()).ok().and_then(|json| String::from_utf8(json).ok());
    let json =
        json.ok_or_else(|| wrong("the header `storage-metadata` is not base64url (without padding) of UTF-8"))?;
    Metadata::from_json(&json)
        .map_err(|e| wrong("the header `storage-metadata` holds no metadata as JSON").with_source(e))
}
