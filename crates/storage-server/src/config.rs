//! How the server is set up.

use std::{path::PathBuf, time::Duration};

use axum::http::HeaderValue;
use serde::{Deserialize, Deserializer, de};
use storage_core::{Error, ErrorKind, Result};

/// How a server listens, and what it takes from clients. Start from [`Config::default`] and assign.
///
/// Times are seconds where they are deserialized.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Address and port; `127.0.0.1:8080` unless set. Without `tokens` only addresses of this machine are taken.
    pub listen: String,
    /// The file with the tokens of the clients, which is read again when it changes. Without it everybody on this machine may read and write.
    pub tokens: Option<PathBuf>,
    /// Whether everything may be deleted at once where there is no file of tokens.
    pub allow_clear: bool,
    /// The file with the server's certificates as PEM, its own first. Without it connections are not encrypted.
    pub tls_cert: Option<PathBuf>,
    /// The file with the key of the first certificate as PEM.
    pub tls_key: Option<PathBuf>,
    /// The most bytes of a value, beside what the store takes.
    pub max_value: Option<u64>,
    /// The most bytes of the headers of a request; 256 KiB unless set.
    pub max_header: usize,
    /// The most bytes of a request that is not a value; 16 MiB unless set.
    pub max_request: usize,
    /// The most items of a batch; 1,000 unless set.
    pub max_batch: usize,
    /// The most filters of a query, and tags within them; 10,000 unless set.
    pub max_filters: usize,
    /// The most connections at once; 4,096 unless set. Others wait.
    pub max_connections: usize,
    /// The most requests at once of one token; 256 unless set. Others are told to come again.
    pub max_requests: usize,
    /// The most transactions at once of one token; 64 unless set.
    pub max_transactions: usize,
    /// The most resumable uploads at once of one token; 64 unless set.
    pub max_uploads: usize,
    /// How long a resumable upload may take from its creation; 24 hours unless set. Then it is deleted.
    #[serde(deserialize_with = "seconds")]
    pub upload_lifetime: Duration,
    /// How long the headers of a request may take, and a connection may be idle; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub header_timeout: Duration,
    /// How long each piece of a body may take; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub body_timeout: Duration,
    /// Bytes a second that a body must have on average, beside the time of `body_timeout`; 1,024 unless set, 0 for any.
    pub min_rate: u64,
    /// How long a client may take nothing of an answer; 60 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub write_timeout: Duration,
    /// A transaction is rolled back when no request of it came for so long; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub lease: Duration,
    /// How long requests under way may take once the server is to end; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub shutdown_timeout: Duration,
    /// What caches may do with values, by the beginning of their keys; the first that fits.
    pub cache: Vec<CacheRule>,
}

/// What caches may do with values whose keys begin so.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheRule {
    /// How the keys begin.
    pub prefix: String,
    /// The header `Cache-Control`, such as `max-age=1`. Where there are tokens, `private` is put before it.
    pub control: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            tokens: None,
            allow_clear: false,
            tls_cert: None,
            tls_key: None,
            max_value: None,
            max_header: 256 << 10,
            max_request: 16 << 20,
            max_batch: 1000,
            max_filters: 10_000,
            max_connections: 4096,
            max_requests: 256,
            max_transactions: 64,
            max_uploads: 64,
            upload_lifetime: Duration::from_secs(24 * 60 * 60),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            min_rate: 1024,
            write_timeout: Duration::from_secs(60),
            lease: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            cache: Vec::new(),
        }
    }
}

impl Config {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// `Config`, with what to change.
    pub fn check(&self) -> Result<()> {
        for (name, number) in [
            ("max_request", self.max_request),
            ("max_batch", self.max_batch),
            ("max_filters", self.max_filters),
            ("max_connections", self.max_connections),
            ("max_requests", self.max_requests),
            ("max_transactions", self.max_transactions),
            ("max_uploads", self.max_uploads),
        ] {
            if number == 0 {
                return Err(wrong(format!("`{name}` must be at least 1")));
            }
        }
        for (name, time) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
            ("lease", self.lease),
            ("upload_lifetime", self.upload_lifetime),
        ] {
            if time.is_zero() {
                return Err(wrong(format!("`{name}` must be more than 0 seconds")));
            }
        }
        if self.max_header < 8 << 10 {
            return Err(wrong("`max_header` must be at least 8192 bytes"));
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(wrong("`tls_cert` and `tls_key` belong together; set both or none"));
        }
        if self.tokens.is_some() && self.allow_clear {
            return Err(wrong("`allow_clear` is for servers without tokens; give a token the scope `clear`"));
        }
        let legal = |rule: &CacheRule| HeaderValue::from_str(&rule.control).is_ok() && !rule.control.is_empty();
        if !self.cache.iter().all(legal) {
            return Err(wrong("the `control` of each rule in `cache` must be a value of the header `Cache-Control`"));
        }
        Ok(())
    }
}

/// What caches may do with values: the header of each rule, ready to be sent.
pub(crate) struct Caching {
    rules: Vec<(String, HeaderValue)>,
    other: HeaderValue,
}

impl Caching {
    pub(crate) fn new(config: &Config) -> Self {
        // The values of all rules were checked.
        let header = |control: &str| {
            let text = cache_control(control, config.tokens.is_some());
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("no-store"))
        };
        let rules = config.cache.iter().map(|rule| (rule.prefix.clone(), header(&rule.control))).collect();
        Self { rules, other: header("no-cache") }
    }

    /// That for the value of a key.
    pub(crate) fn of(&self, key: &str) -> HeaderValue {
        let rule = self.rules.iter().find(|(prefix, _)| key.starts_with(prefix));
        rule.map_or(&self.other, |(_, control)| control).clone()
    }
}

fn cache_control(control: &str, private: bool) -> String {
    // Nothing is transformed on its way: a weakened etag helps nobody, and ranges are those of the stored bytes.
    let is_private = control.split(',').any(|word| word.trim() == "private");
    match private && !is_private {
        true => format!("private, {}, no-transform", without_public(control)),
        false => format!("{control}, no-transform"),
    }
}

/// A proxy may not look at `Authorization`, so what needs a token is shared by nobody.
fn without_public(control: &str) -> String {
    let words = control.split(',').map(str::trim).filter(|word| *word != "public" && !word.starts_with("s-maxage"));
    words.collect::<Vec<_>>().join(", ")
}

pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| de::Error::custom("a time is a number of seconds, not negative"))
}
