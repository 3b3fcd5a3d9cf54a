//! What can be configured, and the factory that connects.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de};
use storage_config::{BackendFactory, ConnectionConfig, Secret, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend, async_trait};

use crate::Mongo;

/// Where the database is and how to use it. Start from [`Config::from_connection`] and assign.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// `mongodb` or `mongodb+srv`, and what stands behind it: users, servers, database.
    #[serde(skip)]
    scheme: String,
    #[serde(skip)]
    location: Option<Secret>,
    /// The collection of the keys, and how the names of the others begin; `storage` unless set.
    pub collection: String,
    /// Values of more bytes than this are stored in files, in the layout of GridFS; 1 MiB unless set, 15 MiB at most.
    pub inline_limit: usize,
    /// How long one command may take, up to a day; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// How long the write of a large value may receive nothing before another connection takes it for abandoned and removes what
    /// it has stored; a day unless set.
    #[serde(deserialize_with = "seconds")]
    pub sweep_after: Duration,
    /// The most connections at once; 10 unless set.
    pub max_connections: u32,
    /// How many versions of each value are kept, the newest included; without it no older ones.
    pub versions: Option<NonZeroU32>,
    /// Uses a server that does not keep what every write rests on. Only for a single client.
    pub unsafe_server: bool,
    /// The database that knows the user, as the driver's `authSource`.
    #[serde(rename = "authSource")]
    pub auth_source: Option<String>,
    /// How the user is known, as the driver's `authMechanism`.
    #[serde(rename = "authMechanism")]
    pub auth_mechanism: Option<String>,
    /// The name of the replica set, as the driver's `replicaSet`.
    #[serde(rename = "replicaSet")]
    pub replica_set: Option<String>,
    /// Whether connections are encrypted, as the driver's `tls`.
    pub tls: Option<bool>,
    /// The file with certificates that the server's is checked against, as the driver's `tlsCAFile`.
    #[serde(rename = "tlsCAFile")]
    pub tls_ca_file: Option<PathBuf>,
    /// The file with the client's certificate and key, as the driver's `tlsCertificateKeyFile`.
    #[serde(rename = "tlsCertificateKeyFile")]
    pub tls_certificate_key_file: Option<PathBuf>,
    /// Whether to speak to the one server named and to no other of its replica set, as the driver's `directConnection`.
    #[serde(rename = "directConnection")]
    pub direct_connection: Option<bool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheme: "mongodb".into(),
            location: None,
            collection: "storage".into(),
            inline_limit: 1 << 20,
            timeout: Duration::from_secs(30),
            sweep_after: Duration::from_secs(24 * 60 * 60),
            max_connections: 10,
            versions: None,
            unsafe_server: false,
            auth_source: None,
            auth_mechanism: None,
            replica_set: None,
            tls: None,
            tls_ca_file: None,
            tls_certificate_key_file: None,
            direct_connection: None,
        }
    }
}

impl Config {
    /// Reads a URI and its options, as in `mongodb://user:password@host/database?collection=documents`. The database is `storage`
    /// unless the URI names one.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        let scheme = connection.scheme()?.to_ascii_lowercase();
        if scheme != "mongodb" && scheme != "mongodb+srv" {
            return Err(wrong("the scheme is not one of MongoDB; write `mongodb://` or `mongodb+srv://` and a server"));
        }
        if scheme == "mongodb+srv" && !cfg!(feature = "srv") {
            return Err(wrong(
                "`mongodb+srv` needs the feature `srv` of storage-mongodb; enable it, or name the servers",
            ));
        }
        let location = connection.encoded_location();
        if location.split('/').next().is_none_or(str::is_empty) {
            return Err(wrong("name the server, as in `mongodb://host/database`"));
        }
        let config = Self { scheme, location: Some(Secret::new(location)), ..connection.typed()? };
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let named = !self.collection.is_empty() && self.collection.len() <= 100 && self.collection.chars().all(legal);
        if !named || self.collection.starts_with(['.', '-']) || self.collection.starts_with("system.") {
            return Err(wrong(
                "the option `collection` must be letters, digits, `_`, `-` and `.`, 100 at most, and not begin with `.`, `-` or \
                 `system.`",
            ));
        }
        let day = Duration::from_secs(24 * 60 * 60);
        if self.timeout.is_zero() || self.timeout > day {
            return Err(wrong("the option `timeout` must be more than 0 and at most a day"));
        }
        if self.inline_limit > 15 << 20 {
            return Err(wrong("the option `inline_limit` must be at most 15728640 bytes"));
        }
        if self.max_connections == 0 {
            return Err(wrong("the option `max_connections` must be at least 1"));
        }
        Ok(())
    }

    /// Whether no user is named: none in the URI, nor a certificate that stands for one.
    pub(crate) fn is_anonymous(&self) -> bool {
        let location = self.location.as_ref().map_or("", Secret::expose);
        !location.split('/').next().unwrap_or_default().contains('@') && self.auth_mechanism.is_none()
    }

    /// The name of the database.
    pub(crate) fn database(&self) -> &str {
        let location = self.location.as_ref().map_or("", Secret::expose);
        location.split_once('/').map(|(_, database)| database).filter(|name| !name.is_empty()).unwrap_or("storage")
    }

    /// The URI for the driver. It holds secrets.
    pub(crate) fn uri(&self) -> Secret {
        let location = self.location.as_ref().map_or("localhost", Secret::expose);
        let servers = location.split('/').next().unwrap_or_default();
        let mut uri = format!("{}://{servers}/{}?appName=storage", self.scheme, self.database());
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        for (name, value) in [
            ("authSource", self.auth_source.clone()),
            ("authMechanism", self.auth_mechanism.clone()),
            ("replicaSet", self.replica_set.clone()),
            ("tls", self.tls.map(|tls| tls.to_string())),
            ("tlsCAFile", path(&self.tls_ca_file)),
            ("tlsCertificateKeyFile", path(&self.tls_certificate_key_file)),
            ("directConnection", self.direct_connection.map(|direct| direct.to_string())),
        ] {
            if let Some(value) = value {
                uri += &format!("&{name}={}", encoded(&value));
            }
        }
        Secret::new(uri)
    }
}

/// Percent-encoded, all but letters and digits.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Connects `mongodb://` and `mongodb+srv://` and a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct MongoFactory;

#[async_trait]
impl BackendFactory for MongoFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &[
            "mongodb",
            #[cfg(feature = "srv")]
            "mongodb+srv",
        ]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        Ok(Arc::new(Mongo::connect(Config::from_connection(config)?).await?))
    }
}

fn wrong(message: &str) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| de::Error::custom("a time is a number of seconds, not negative"))
}
