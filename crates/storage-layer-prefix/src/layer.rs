//! The settings, and how the layer is put around a backend.

use std::sync::Arc;

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Key, Layer, Result, StorageBackend};

use crate::Prefixed;

/// A namespace: everything lies below a prefix that ends at a `/`.
///
/// In a configuration: `prefix`, which must be given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Settings")]
pub struct PrefixLayer {
    pub(crate) prefix: Arc<str>,
}

impl PrefixLayer {
    /// The namespace of this name. `a` and `a/` are the same; `a` and `ab` have nothing in common.
    ///
    /// # Errors
    /// `Config` when the name is empty, contains a NUL, or is so long that no backend leaves keys of 512 bytes below it.
    pub fn new(prefix: &str) -> Result<Self> {
        let config = |message: String| Err(Error::new(ErrorKind::Config, message));
        if prefix.is_empty() {
            return config("prefix: the prefix must not be empty; leave the layer out to use the whole store".into());
        }
        if prefix.contains('\0') {
            return config("prefix: the prefix must not contain a NUL".into());
        }
        let separator = if prefix.ends_with('/') { "" } else { "/" };
        let prefix = format!("{prefix}{separator}");
        let most = Key::MAX_LEN - Key::MIN_LIMIT;
        if prefix.len() > most {
            return config(format!("prefix: the prefix has {} bytes with its `/`, the most is {most}", prefix.len()));
        }
        Ok(Self { prefix: prefix.into() })
    }

    /// The prefix with its `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.prefix
    }
}

/// Over a backend that leaves too little for keys, the limits say so. [`Prefixed::new`] refuses it.
impl<S: StorageBackend + ?Sized> Layer<S> for PrefixLayer {
    type Backend = Prefixed<S>;

    fn layer(self, inner: Arc<S>) -> Prefixed<S> {
        Prefixed::wrap(inner, self)
    }
}

/// The layer as a configuration file writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    prefix: String,
}

impl TryFrom<Settings> for PrefixLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        Self::new(&settings.prefix)
    }
}
