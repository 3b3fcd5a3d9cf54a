//! What can be configured, and the factory that connects.

use std::{sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de};
use storage_config::{BackendFactory, ConnectionConfig, Durability, Secret, StorageContext, StoreConfig};
use storage_core::{Error, Key, Result, StorageBackend, async_trait};

use crate::{Ipfs, error::wrong};

/// The address of a node's RPC API unless another is named.
const LOCAL: &str = "http://127.0.0.1:5001";
/// Where the index is unless it is named.
const INDEX: &str = "sqlite:./storage-ipfs.db";

/// Where the node is and how to use it. Start from [`Config::new`] or [`Config::from_connection`] and assign.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The RPC API, without user and password.
    #[serde(skip)]
    pub(crate) address: String,
    #[serde(skip)]
    pub(crate) user: Option<(String, Secret)>,
    /// The store that knows which key has which content, for [`IpfsFactory`]; `sqlite:./storage-ipfs.db` unless set.
    pub index: Option<StoreConfig>,
    /// How all keys begin in the index, so that several stores can share it and a node; empty unless set.
    pub prefix: String,
    /// How long one call may take, and how long content is looked for, up to an hour; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// A bearer token for the RPC API, in place of a user and a password in the address.
    pub token: Option<Secret>,
    /// Whether every block that is read is compared with its name; it is unless this is `false`.
    pub verify: bool,
    /// What an acknowledged write survives: `full` wants a node whose datastore is synced at each write; `relaxed` unless set.
    pub durability: Durability,
    /// Uses a node that another store uses too. Nothing is ever unpinned then.
    pub shared_node: bool,
    /// How long content may be pinned under no key before it is taken for left behind; an hour unless set.
    #[serde(deserialize_with = "seconds")]
    pub sweep_after: Duration,
    /// A pinning service that is asked to keep all content, too: the address before `/pins` of the Pinning Service API.
    pub pinning_service: Option<String>,
    /// The bearer token for the pinning service.
    pub pinning_token: Option<Secret>,
    /// Whether a write waits until the pinning service has the content; it need only have been asked unless this is `true`.
    pub pinning_wait: bool,
    /// Reads through this gateway, without a node, and writes nothing.
    pub gateway: Option<String>,
}

/// What somebody may look for that is a call.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Mfs {
    mfs: Option<serde_json::Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: LOCAL.into(),
            user: None,
            index: None,
            prefix: String::new(),
            timeout: Duration::from_secs(30),
            token: None,
            verify: true,
            durability: Durability::Relaxed,
            shared_node: false,
            sweep_after: Duration::from_secs(60 * 60),
            pinning_service: None,
            pinning_token: None,
            pinning_wait: false,
            gateway: None,
        }
    }
}

impl Config {
    /// A node by the address of its RPC API, which may hold a user and a password.
    ///
    /// # Errors
    /// `Config` for what is no address of a node.
    pub fn new(address: &str) -> Result<Self> {
        let mut config = Self::default();
        config.set_address(address)?;
        Ok(config)
    }

    /// Reads a URI and its options, as in `ipfs:http://127.0.0.1:5001?index=sqlite:./index.db`.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        if connection.clone().take::<Mfs>()?.mfs.is_some() {
            return Err(wrong(
                "there is no option `mfs`: MFS that followed each write would show readers files that are never whole; call `Ipfs::export` \
                 with the path whenever an export is wanted",
            ));
        }
        let mut config: Self = connection.typed()?;
        config.set_address(connection.encoded_location())?;
        config.check()?;
        Ok(config)
    }

    fn set_address(&mut self, location: &str) -> Result<()> {
        // Credentials that a configuration names apart from the address stand before all of it.
        let (before, address) = match location.split_once("@http") {
            Some((before, rest)) if !before.contains('/') => (Some(before), format!("http{rest}")),
            _ => (None, location.to_owned()),
        };
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (scheme.to_owned(), rest.to_owned()),
            Some(_) => return Err(wrong("the address of the node must begin with `http://` or `https://`")),
            None => ("http".to_owned(), address),
        };
        let host = rest.split('/').next().unwrap_or_default();
        let within = host.rsplit_once('@').map(|(user, _)| user);
        let rest = rest.get(within.map_or(0, |user| user.len() + 1)..).unwrap_or_default();
        let (user, password) = match before.or(within) {
            None => ("", ""),
            Some(user) => user.split_once(':').ok_or_else(|| wrong("a user of the node needs a password"))?,
        };
        if !user.is_empty() {
            let text = |part: &str| percent_decode_str(part).decode_utf8().map(Into::<String>::into);
            let decoded = text(user).and_then(|user| Ok((user, Secret::new(text(password)?))));
            self.user = Some(decoded.map_err(|_| wrong("user and password of the node must be UTF-8"))?);
        }
        self.address =
            if rest.is_empty() { LOCAL.into() } else { format!("{scheme}://{}", rest.trim_end_matches('/')) };
        let url = reqwest::Url::parse(&self.address)
            .map_err(|_| wrong("invalid address of the node; write `http://host:port`"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(
                "the address of the node must have no query; options stand behind the `?` of the whole URI",
            ));
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.timeout < Duration::from_millis(10) || self.timeout > Duration::from_secs(60 * 60) {
            return Err(wrong("the option `timeout` must be at least 0.01 and at most 3600 seconds"));
        }
        if self.prefix.len() > Key::MAX_LEN || self.prefix.contains('\0') {
            return Err(wrong("the option `prefix` must leave room for keys, and have no NUL"));
        }
        if self.token.is_some() && self.user.is_some() {
            return Err(wrong("the node takes either a `token` or a user and a password"));
        }
        let is_address = |text: &String| {
            reqwest::Url::parse(text)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty())
        };
        if self.pinning_service.as_ref().is_some_and(|service| !is_address(service)) {
            return Err(wrong("the option `pinning_service` must be an address, as in `https://pins.example/psa`"));
        }
        if self.pinning_service.is_none() && (self.pinning_token.is_some() || self.pinning_wait) {
            return Err(wrong("`pinning_token` and `pinning_wait` are of no use without `pinning_service`"));
        }
        if let Some(gateway) = &self.gateway {
            let parsed = reqwest::Url::parse(gateway).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            if parsed.is_none_or(|url| url.query().is_some() || !url.username().is_empty()) {
                return Err(wrong("the option `gateway` must be an address, as in `https://gateway.example`"));
            }
            if !self.verify {
                return Err(wrong("what a gateway delivers is always verified; leave `verify` out"));
            }
        }
        Ok(())
    }
}

/// Connects `ipfs:` and the address of a node, and opens its index through the context.
#[derive(Clone, Copy, Debug, Default)]
pub struct IpfsFactory;

#[async_trait]
impl BackendFactory for IpfsFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["ipfs"]
    }

    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let config = Config::from_connection(config)?;
        let index = config.index.clone().unwrap_or_else(|| StoreConfig::uri(INDEX));
        let index = context.open(&index).await.map_err(|e| in_index(&e))?;
        Ok(Arc::new(Ipfs::with_index(config, index, true).await?))
    }
}

/// Tells an error of the index from one of the node.
fn in_index(e: &Error) -> Error {
    Error::new(e.kind(), format!("the index cannot be opened: {}", e.message())).with_source(e.clone())
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| de::Error::custom("a time is a number of seconds, not negative"))
}
