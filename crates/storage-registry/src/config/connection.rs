//! Where a store is, and as whom to connect.

use std::fmt;

use serde::Deserialize;
use storage_config::{ConnectionConfig, Secret, StorageContext};
use storage_core::{Error, Result};

use super::wrong;

/// What stands behind the scheme in a URI, or its parts. In a configuration it is a text, or a table of `location`, `user`
/// and `password`.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "serde_json::Value")]
#[non_exhaustive]
pub struct Connection {
    /// A path, or `host:port/database`, percent-encoded as in a URI.
    pub location: String,
    /// The user, as it is.
    pub user: Option<String>,
    /// The password, as [`Secret::resolve`] reads it; `credential:NAME` asks the context's credential provider.
    pub password: Option<Secret>,
}

/// The table that a configuration writes.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    location: String,
    user: Option<String>,
    password: Option<String>,
}

impl TryFrom<serde_json::Value> for Connection {
    type Error = Error;

    fn try_from(json: serde_json::Value) -> Result<Self> {
        match json {
            serde_json::Value::String(location) => Ok(Self { location, ..Self::default() }),
            serde_json::Value::Object(fields) => {
                let empty = ConnectionConfig::new("connection:");
                let all = fields.into_iter().fold(empty, |config, (name, value)| config.option(name, value));
                let Table { location, user, password } = all.typed()?;
                Ok(Self { location, user, password: password.map(Secret::new) })
            }
            _ => Err(wrong("connection: it must be a text, or a table of `location`, `user` and `password`")),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// The password itself.
pub(super) async fn resolve(text: &Secret, context: &StorageContext) -> Result<Secret> {
    let Some(name) = text.expose().strip_prefix("credential:") else {
        return Secret::resolve(text.expose());
    };
    match &context.credentials {
        Some(provider) => provider.credential(name).await,
        None => Err(wrong("the password is named `credential:…`, but the context has no credential provider")),
    }
}
