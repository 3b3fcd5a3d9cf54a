//! Texts and keys that must not be seen.

use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize, Zeroizing};

/// A password or token: never shown by `Debug`, wiped from memory when dropped, not serializable.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Whoever asks is responsible for where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A 256-bit key that encrypts one value: never shown by `Debug`, wiped from memory when dropped.
#[derive(Clone)]
pub struct DataKey(Box<Zeroizing<[u8; 32]>>); // In one place, so that moving it leaves no copies behind.

impl DataKey {
    /// Hides a key.
    #[must_use]
    pub fn new(mut key: [u8; 32]) -> Self {
        let hidden = Self::from(&key);
        key.zeroize();
        hidden
    }

    /// The key itself. Whoever asks is responsible for where it goes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Copies straight to where it is hidden.
impl From<&[u8; 32]> for DataKey {
    fn from(key: &[u8; 32]) -> Self {
        let mut hidden = Box::new(Zeroizing::new([0; 32]));
        hidden.copy_from_slice(key);
        Self(hidden)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}
