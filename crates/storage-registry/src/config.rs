//! A store and the layers around it, as a configuration says it.

mod connection;
mod environment;
mod layer;
mod unique;

use std::{collections::BTreeMap, fmt, fs, path::Path};

use serde::Deserialize;
use storage_config::{ConnectionConfig, StorageContext};
use storage_core::{Error, ErrorKind, Result};

use crate::Registry;
pub use connection::Connection;
pub use layer::LayerConfig;
#[cfg(feature = "toml")]
use unique::NOT_FINITE;
use unique::Unique;

/// Options by name.
pub type Options = BTreeMap<String, serde_json::Value>;

/// A store and the layers around it. Start from [`StorageConfig::new`] and assign, or read one from TOML, JSON or the
/// environment; `docs/configuration.md` shows the format. Without anything it is a store in memory.
///
/// `Debug` shows known schemes and layers and how many options there are: anything else may be a secret.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "serde_json::Value")]
#[non_exhaustive]
pub struct StorageConfig {
    /// The scheme, as `sqlite`, or a whole URI, as `sqlite:./data.db?table=docs`; `memory` unless set.
    pub backend: String,
    /// Where the store is, if `backend` is a scheme, and as whom to connect.
    pub connection: Connection,
    /// Options of the backend, as behind the `?` of a URI.
    pub options: Options,
    /// Options of the layer `retry`, which is put at its place among the others; without it there is none.
    pub retry: Option<Options>,
    /// Options of the layer `timeout`, in the same way.
    pub timeout: Option<Options>,
    /// The layers. The first sees a call first, the last is next to the store.
    pub layers: Vec<LayerConfig>,
}

impl StorageConfig {
    /// A store by its scheme or URI, without layers.
    pub fn new(backend: impl Into<String>) -> Self {
        Self { backend: backend.into(), ..Self::default() }
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// `Config` for text that is no JSON, a field that stands there twice, an unknown field (the message lists the known ones) and a value of the wrong type. No
    /// message repeats a value.
    pub fn from_json(text: &str) -> Result<Self> {
        let place = |e: serde_json::Error| {
            let what = if e.is_data() { "a field stands here twice" } else { "this is no JSON" };
            wrong(format!("configuration: {what}, in line {}, column {}", e.line(), e.column()))
        };
        let unique: Unique = serde_json::from_str(text).map_err(place)?;
        Self::read(unique.0)
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// As [`from_json`](StorageConfig::from_json), and for a number that is not finite.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self> {
        // The error's own text would show the line, in which there may be a secret.
        let place = |e: toml::de::Error| {
            let what = if e.message() == NOT_FINITE { NOT_FINITE } else { "this is no TOML" };
            let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
            wrong(format!("configuration: {what}, in line {}", before.matches('\n').count() + 1))
        };
        let unique: Unique = toml::from_str(text).map_err(place)?;
        Self::read(unique.0)
    }

    /// Reads a file whose name ends in `.toml` or `.json`.
    ///
    /// # Errors
    /// `Config` when it cannot be read, for another name, and as [`from_json`](StorageConfig::from_json).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let read = || {
            fs::read_to_string(path)
                .map_err(|e| wrong(format!("the configuration{} cannot be read: {}", shown(path), e.kind())))
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            #[cfg(feature = "toml")]
            Some("toml") => Self::from_toml(&read()?),
            Some("json") => Self::from_json(&read()?),
            _ => Err(wrong(
                "the name of a configuration file must end in `.json`, or in `.toml` with the cargo feature `toml`",
            )),
        }
    }

    fn read(json: serde_json::Value) -> Result<Self> {
        let serde_json::Value::Object(fields) = json else {
            return Err(wrong("configuration: it must be an object, as in `{\"backend\": \"memory\"}`"));
        };
        let empty = ConnectionConfig::new("configuration:");
        let all = fields.into_iter().fold(empty, |config, (name, value)| config.option(name, value));
        let Fields { backend, connection, options, retry, timeout, layers } = all.typed()?;
        Ok(Self { backend, connection, options, retry, timeout, layers })
    }

    /// What the backend's factory is given.
    pub(crate) async fn connection(&self, context: &StorageContext) -> Result<ConnectionConfig> {
        let Connection { location, user, password } = &self.connection;
        let uri = match self.backend.as_str() {
            "" if location.is_empty() => "memory:".to_owned(),
            "" => return Err(wrong("`connection` says where, but no `backend` says what; write its scheme")),
            scheme if !scheme.contains(':') => format!("{scheme}:{location}"),
            uri if location.is_empty() => uri.to_owned(),
            _ => return Err(wrong("`backend` is a whole URI already; leave the location out of `connection`")),
        };
        if location.contains('?') {
            return Err(wrong(
                "options have no place in `connection`; write them into `options`, a `?` in a name as `%3F`",
            ));
        }
        // A host may have the scheme's name, as in `postgres:5432/app`.
        let is_port = |rest: &str| rest.split('/').next().is_some_and(|port| port.parse::<u16>().is_ok());
        if location.split_once(':').is_some_and(|(scheme, rest)| scheme == self.backend && !is_port(rest)) {
            return Err(wrong(
                "`connection` is what stands behind the scheme; leave the scheme out, or write the whole URI into `backend`",
            ));
        }
        let mut config = ConnectionConfig::new(uri);
        if user.is_some() || password.is_some() {
            let password = match password {
                Some(text) => Some(connection::resolve(text, context).await?),
                None => None,
            };
            config = config.credentials(user.as_deref(), password.as_ref())?;
        }
        Ok(self.options.iter().fold(config, |config, (name, value)| config.option(name, value.clone())))
    }
}

/// What a configuration may write.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    backend: String,
    connection: Connection,
    options: Options,
    retry: Option<Options>,
    timeout: Option<Options>,
    layers: Vec<LayerConfig>,
}

/// For those who have a configuration within another one. No message of this crate repeats what stands there, but the parser of
/// the whole may quote the line: read text with [`StorageConfig::from_toml`] or [`StorageConfig::from_json`].
impl TryFrom<serde_json::Value> for StorageConfig {
    type Error = Error;

    fn try_from(json: serde_json::Value) -> Result<Self> {
        Self::read(json)
    }
}

impl fmt::Debug for StorageConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = Registry::new();
        let scheme = self.backend.split(':').next().unwrap_or_default();
        // Whatever else stands there may be a secret in the wrong place.
        let known = registry.schemes().find(|known| known.eq_ignore_ascii_case(scheme));
        f.debug_struct("StorageConfig")
            .field("backend", &known.unwrap_or(if self.backend.is_empty() { "" } else { "…" }))
            .field("connection", &self.connection)
            .field("options", &self.options.len())
            .field("retry", &self.retry.as_ref().map(BTreeMap::len))
            .field("timeout", &self.timeout.as_ref().map(BTreeMap::len))
            .field("layers", &self.layers)
            .finish()
    }
}

/// A path, unless it is a URI that was put there by mistake, with a password in it.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.contains(['@', '?']) || text.contains("://") { String::new() } else { format!(" {path:?}") }
}

pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
