//! What a store says about a value.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Error, Key, Metadata, Result};

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps the store's own token.
            pub fn new(token: impl Into<Arc<str>>) -> Self {
                Self(token.into())
            }

            /// The store's own token.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<String> for $name {
            fn from(token: String) -> Self {
                Self(token.into())
            }
        }

        impl From<$name> for String {
            fn from(token: $name) -> Self {
                token.0.as_ref().to_owned()
            }
        }
    };
}
token! {
    /// An opaque token that changes whenever the bytes change; with the capability `version_etags`, with every write.
    Etag
}
token! {
    /// An opaque token that names one version of a value.
    VersionId
}

/// What a store says about one value.
///
/// # Damaged entries
/// A listing or query does not fail because of one value whose record, framing or metadata is there but not readable: it
/// yields an entry with [`damaged`](Entry::damaged). `get` and `stat` of the key fail with that error; `put`, `delete` and
/// `clear` work on it, so that it can be replaced or removed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Bytes of the plain value, whatever layers do to it below; of a damaged one what the store knows, or 0.
    pub size: u64,
    /// Bytes the value takes in the store, where a layer changed them.
    pub stored_size: Option<u64>,
    /// When this value was written, by the store's clock, at [`Limits::time_granularity`](crate::Limits::time_granularity).
    pub modified: Option<SystemTime>,
    /// When the key was first written, where the store knows.
    pub created: Option<SystemTime>,
    /// Changes whenever the bytes change.
    pub etag: Option<Etag>,
    /// The version, on a backend with `versioning`.
    pub version: Option<VersionId>,
    /// The metadata, empty when none was given; `None` when it was not asked for (a listing without metadata).
    pub metadata: Option<Arc<Metadata>>,
    /// Why the value cannot be read, an error of the kind `Corrupt`; `None` for a sound one. A damaged entry has no metadata,
    /// and of the rest what can still be known. Only listings that read what is damaged can tell: one without metadata may
    /// yield the entry as if it were sound.
    pub damaged: Option<Error>,
    /// What else the store says of the value, by name: its content identifier (`cid`), which replica answered (`source`). It is never
    /// written back and not queried, and a layer that changes the bytes of values takes it away.
    pub attributes: Attributes,
}

/// Names and texts of [`Entry::attributes`], shared by clones. Most entries have none, so they take no more than a pointer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Option<Arc<BTreeMap<String, String>>>);

impl Attributes {
    /// The text of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.get(name).map(String::as_str)
    }

    /// Names and texts, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|all| all.iter()).map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// For backends: sets the text of a name.
    pub fn insert(&mut self, name: impl Into<String>, text: impl Into<String>) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(name.into(), text.into());
    }

    /// For layers: takes them all away.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        // All fields by name, so that a new one does not compile until it is decided here.
        let Self { key, size, stored_size, modified, created, etag, version, metadata, damaged, attributes } = self;
        // An error is not comparable; where it came from does not make the entry another.
        let what = |damaged: &Option<Error>| damaged.as_ref().map(|e| (e.kind(), e.message().to_owned()));
        *key == other.key
            && *size == other.size
            && *stored_size == other.stored_size
            && *modified == other.modified
            && *created == other.created
            && *etag == other.etag
            && *version == other.version
            && *metadata == other.metadata
            && *attributes == other.attributes
            && what(damaged) == what(&other.damaged)
    }
}

impl Entry {
    /// An entry of which only key and size are known; the rest is set by assignment.
    #[must_use]
    pub fn new(key: Key, size: u64) -> Self {
        Self {
            key,
            size,
            stored_size: None,
            modified: None,
            created: None,
            etag: None,
            version: None,
            metadata: None,
            damaged: None,
            attributes: Attributes::default(),
        }
    }

    /// The same entry, damaged for this reason: without metadata and without an etag, for no condition holds of it.
    #[must_use]
    pub fn into_damaged(mut self, reason: Error) -> Self {
        self.metadata = None;
        self.etag = None;
        self.damaged = Some(reason.with_key(&self.key));
        self
    }

    /// The entry, unless it is damaged: what a `stat` that finds one must do.
    ///
    /// # Errors
    /// `Corrupt`, why it is damaged.
    pub fn sound(self) -> Result<Self> {
        match self.damaged {
            Some(reason) => Err(reason),
            None => Ok(self),
        }
    }
}

/// What a listing yields: an entry, or (in a one-level listing) a common prefix ending in `/`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ListItem {
    /// A value.
    Entry(Entry),
    /// All the keys that share this prefix.
    Prefix(String),
}

impl ListItem {
    /// The key or prefix: what the listing is ordered by, and what `start_after` resumes from.
    #[must_use]
    pub fn position(&self) -> &str {
        match self {
            Self::Entry(entry) => entry.key.as_str(),
            Self::Prefix(prefix) => prefix,
        }
    }

    /// The entry, if this is one.
    #[must_use]
    pub fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Prefix(_) => None,
        }
    }
}
