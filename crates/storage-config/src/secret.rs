//! Texts and keys that must not be seen.

use std::{env, fmt, fs};

use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize, Zeroizing};

use storage_core::{Error, ErrorKind, Result};

/// A password or token: never shown by `Debug`, wiped from memory when dropped, not serializable.
///
/// As an option of a backend or layer it may be a reference, see [`Secret::resolve`]. Any other deserializer takes the text
/// as it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// What it is called where it is deserialized, so that `ConnectionConfig::typed` knows that a reference may stand there.
    pub(crate) const NAME: &str = "storage_config::Secret";

    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// What a configuration means by a text: `env:NAME` is the value of that environment variable, `file:PATH` the content of
    /// that file without a line break at its end, `plain:TEXT` is `TEXT`, and anything else is itself.
    ///
    /// # Errors
    /// `Config` when the variable is not set or empty, or the file cannot be read or is empty. The message does not repeat the
    /// text: what stands where a secret is expected may be one, whatever it begins with.
    pub fn resolve(text: &str) -> Result<Self> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::Config, message));
        match text.split_once(':') {
            Some(("plain", text)) => Ok(Self::new(text)),
            Some(("env", name)) => match env::var(name) {
                Ok(value) if !value.is_empty() => Ok(Self::new(value)),
                _ => wrong(
                    "the environment variable that `env:` names is unset, empty or not valid UTF-8; set it to the secret",
                ),
            },
            Some(("file", path)) => {
                let content = match fs::read_to_string(path) {
                    Ok(content) => Zeroizing::new(content),
                    Err(e) => return wrong(&format!("the file that `file:` names cannot be read: {}", e.kind())),
                };
                let line = content.strip_suffix('\n').unwrap_or(&content);
                match line.strip_suffix('\r').unwrap_or(line) {
                    "" => wrong("the file that `file:` names is empty; write the secret into it"),
                    secret => Ok(Self::new(secret)),
                }
            }
            _ => Ok(Self::new(text)),
        }
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
        // The name is `Secret::NAME`.
        #[derive(Deserialize)]
        #[serde(rename = "storage_config::Secret")]
        struct Text(String);
        Text::deserialize(deserializer).map(|text| Self::new(text.0))
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
