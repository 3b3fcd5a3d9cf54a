//! What can be configured, and the factory that connects.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de};
use storage_config::{BackendFactory, ConnectionConfig, Secret, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend, async_trait};

use crate::Rest;

/// Where the server is and how to speak to it. Start from [`Config::from_connection`] and assign.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The URL below which the routes are, without user and parameters.
    #[serde(skip)]
    pub url: String,
    /// The token, sent as `Authorization: Bearer`. Over a connection that is not encrypted everybody on the way can read it.
    pub token: Option<Secret>,
    /// Which routes to use; the server is asked unless this is set.
    pub api: Api,
    /// How long the server may take to answer, and for each further piece of an answer or a body, up to a day; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// How long a connection may take to come about, up to a day; 10 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub connect_timeout: Duration,
    /// A file of certificates (PEM) that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Which routes of a server are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Api {
    /// What the server has: `/v1` if it answers as a storage-server, the plain routes if it has none.
    #[default]
    Auto,
    /// The whole contract below `/v1`.
    V1,
    /// The six plain routes below `/files`, without metadata, etags and dates.
    Files,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            token: None,
            api: Api::Auto,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            ca_file: None,
        }
    }
}

impl Config {
    /// A server by the URL below which its routes are, with the other defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Reads a URI and its options, as in `https://host/base?token=env:TOKEN` or `rest:https://host/base`.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        let (scheme, location) = (connection.scheme()?.to_ascii_lowercase(), connection.encoded_location());
        let url = match scheme.as_str() {
            "http" | "https" => format!("{scheme}://{location}"),
            "rest" if location.starts_with("http://") || location.starts_with("https://") => location.to_owned(),
            "rest" => return Err(wrong("write the server's URL behind `rest:`, as in `rest:https://host/base`")),
            _ => return Err(wrong("the scheme is not one of HTTP; write `http://`, `https://` or `rest:` and a URL")),
        };
        let config = Self { url, ..connection.typed()? };
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let day = Duration::from_secs(24 * 60 * 60);
        for (name, time) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)] {
            if time.is_zero() || time > day {
                return Err(wrong(format!("the option `{name}` must be more than 0 and at most a day")));
            }
        }
        self.base().map(drop)
    }

    /// The URL, to which paths are added.
    pub(crate) fn base(&self) -> Result<reqwest::Url> {
        // Not repeated in the message: a password may stand in it.
        let bad =
            || wrong("the URL of the server cannot be read; it is `http://` or `https://`, a host, and perhaps a path");
        let url = reqwest::Url::parse(&self.url).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https")
            || !url.has_host()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(bad());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("the server takes no user and no password; set the option `token`"));
        }
        Ok(url)
    }
}

/// Connects `rest:`, `http://` and `https://`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestFactory;

#[async_trait]
impl BackendFactory for RestFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["rest", "http", "https"]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        Ok(Arc::new(Rest::connect(Config::from_connection(config)?).await?))
    }
}

pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| de::Error::custom("a time is a number of seconds, not negative"))
}
