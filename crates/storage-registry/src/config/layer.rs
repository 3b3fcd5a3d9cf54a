//! One layer of a configuration.

use std::{fmt, str::FromStr};

use serde::Deserialize;
use storage_config::ConnectionConfig;
use storage_core::{Error, Result};

use super::{Options, wrong};

/// A layer by its name, with options. In a configuration it is a text, `cache` or `cache?max_bytes=1000000`, or a table of
/// `name` and options. `Debug` shows the name if it is that of a known layer: anything else may be a secret.
#[derive(Clone, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct LayerConfig {
    name: String,
    pub(crate) options: ConnectionConfig,
}

impl LayerConfig {
    /// A layer with its defaults.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { options: ConnectionConfig::new(format!("{name}:")), name }
    }

    /// Adds an option.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.options = self.options.option(name, value);
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn with_options(self, options: &Options) -> Self {
        options.iter().fold(self, |layer, (name, value)| layer.option(name, value.clone()))
    }
}

impl fmt::Debug for LayerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = crate::Registry::new();
        let known = registry.layers().find(|known| *known == self.name);
        f.debug_struct("LayerConfig").field("name", &known.unwrap_or("…")).field("options", &self.options).finish()
    }
}

impl FromStr for LayerConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, options) = text.split_once('?').unwrap_or((text, ""));
        if name.is_empty() {
            return Err(wrong("layers: a layer has a name, as in `cache` or `cache?max_bytes=1000000`"));
        }
        Ok(Self { name: name.to_owned(), options: ConnectionConfig::new(format!("{name}:?{options}")) })
    }
}

impl TryFrom<serde_json::Value> for LayerConfig {
    type Error = Error;

    fn try_from(json: serde_json::Value) -> Result<Self> {
        let shape = || wrong("layers: each is a name, as `\"cache\"`, or a table with a `name` and options");
        match json {
            serde_json::Value::String(text) => text.parse(),
            serde_json::Value::Object(mut options) => match options.remove("name") {
                Some(serde_json::Value::String(name)) => {
                    Ok(Self::new(name).with_options(&options.into_iter().collect()))
                }
                _ => Err(shape()),
            },
            _ => Err(shape()),
        }
    }
}
