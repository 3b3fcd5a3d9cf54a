//! The name of a value.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// A validated key: UTF-8, 1 to [`Key::MAX_LEN`] bytes, without NUL. Everything else is legal and nothing is normalised.
///
/// Keys are ordered bytewise, on every backend. Cloning is cheap (a reference count). A backend may allow less than
/// `MAX_LEN`, see [`Limits::key`](crate::Limits::key), but never less than [`Key::MIN_LIMIT`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// The most bytes a key can have on any backend.
    pub const MAX_LEN: usize = 1024;
    /// Every backend takes keys of at least this many bytes.
    pub const MIN_LIMIT: usize = 512;

    /// Validates and copies.
    ///
    /// # Errors
    /// `InvalidKey` when the string is empty, longer than [`Key::MAX_LEN`] bytes, or contains a NUL.
    pub fn parse(key: &str) -> Result<Self> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidKey, what));
        if key.is_empty() {
            return wrong("a key must not be empty".into());
        }
        if key.len() > Self::MAX_LEN {
            return wrong(format!("the key has {} bytes, the most is {}", key.len(), Self::MAX_LEN));
        }
        if key.as_bytes().contains(&0) {
            return wrong("a key must not contain a NUL".into());
        }
        Ok(Self(key.into()))
    }

    /// The key as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = Error;
    fn from_str(key: &str) -> Result<Self> {
        Self::parse(key)
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;
    fn try_from(key: &str) -> Result<Self> {
        Self::parse(key)
    }
}

impl TryFrom<String> for Key {
    type Error = Error;
    fn try_from(key: String) -> Result<Self> {
        Self::parse(&key)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.as_str().to_owned()
    }
}

/// What the methods of [`Storage`](crate::Storage) take as a key.
///
/// An own trait rather than `TryInto<Key>`, for a compile error that a person can read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a key",
    note = "pass a `&str`, `String`, `Cow<str>`, `&Key` or `Key`"
)]
pub trait IntoKey: Send {
    /// The key.
    ///
    /// # Errors
    /// As [`Key::parse`].
    fn into_key(self) -> Result<Key>;
}

impl IntoKey for &str {
    fn into_key(self) -> Result<Key> {
        Key::parse(self)
    }
}

impl IntoKey for String {
    fn into_key(self) -> Result<Key> {
        Key::parse(&self)
    }
}

impl IntoKey for &String {
    fn into_key(self) -> Result<Key> {
        Key::parse(self)
    }
}

impl IntoKey for Cow<'_, str> {
    fn into_key(self) -> Result<Key> {
        Key::parse(&self)
    }
}

impl IntoKey for Key {
    fn into_key(self) -> Result<Key> {
        Ok(self)
    }
}

impl IntoKey for &Key {
    fn into_key(self) -> Result<Key> {
        Ok(self.clone())
    }
}
