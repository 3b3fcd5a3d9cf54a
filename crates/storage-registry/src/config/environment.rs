//! A configuration from environment variables.

use std::{collections::BTreeMap, env, ffi::OsString};

use storage_config::nearest;
use storage_core::Result;

use super::{Connection, Options, StorageConfig, wrong};

const OURS: &str = "STORAGE_";
const KNOWN: [&str; 3] = ["CONFIG", "LAYERS", "URI"];

impl StorageConfig {
    /// Reads the environment. Each variable may be missing or empty:
    ///
    /// - `STORAGE_CONFIG` names a file, as for [`from_file`](StorageConfig::from_file).
    /// - `STORAGE_URI` is the store's URI. It replaces `backend`, `connection` and `options` of the file.
    /// - `STORAGE_LAYERS` names the layers, the first sees a call first: `metrics,cache?max_bytes=1000000,retry`. It replaces
    ///   `layers` of the file.
    ///
    /// # Errors
    /// `Config` as [`from_file`](StorageConfig::from_file), and for a name that is nearly one of these.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(env::vars_os())
    }

    /// The same from variables that are given.
    ///
    /// # Errors
    /// As [`from_env`](StorageConfig::from_env).
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self> {
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.to_str()?.strip_prefix(OURS)?.to_owned();
            (!value.is_empty()).then_some((name, value))
        };
        let vars: BTreeMap<String, OsString> = vars.into_iter().filter_map(ours).collect();
        for name in vars.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
            let unset = KNOWN.into_iter().filter(|known| !vars.contains_key(*known));
            if let Some(known) = nearest(name, unset) {
                return Err(wrong(format!("the variable `{OURS}{name}` is not read; did you mean `{OURS}{known}`?")));
            }
        }
        let text = |name: &str| match vars.get(name).map(|value| value.to_str()) {
            Some(None) => Err(wrong(format!("the environment variable `{OURS}{name}` is not UTF-8"))),
            value => Ok(value.flatten()),
        };
        let mut config = vars.get("CONFIG").map_or_else(|| Ok(Self::default()), Self::from_file)?;
        if let Some(uri) = text("URI")? {
            config.backend = uri.to_owned();
            (config.connection, config.options) = (Connection::default(), Options::default());
        }
        if let Some(layers) = text("LAYERS")? {
            config.layers = layers.split(',').map(|layer| layer.trim().parse()).collect::<Result<_>>()?;
        }
        Ok(config)
    }
}
