//! What can be configured, and the factory that connects.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use serde::Deserialize;
use storage_config::{BackendFactory, ConnectionConfig, CredentialProvider, Secret, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend};
use storage_object_store::http::{HttpConfig, shown_address, shown_name};

/// Where the bucket is and how to use it. Start from [`Config::new`] or [`Config::from_connection`] and assign.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The bucket, which must exist.
    pub bucket: String,
    /// The server, as in `http://127.0.0.1:4443`; unless set, `STORAGE_EMULATOR_HOST`, else Google's. `http://` sends everything in
    /// the clear.
    pub endpoint: Option<String>,
    /// A file with the key of a service account, as Google hands it out (JSON). Without it, see `credentials` and the README.
    pub service_account_file: Option<PathBuf>,
    /// The content of such a file.
    pub service_account_key: Option<Secret>,
    /// Names a token (OAuth 2.0) that the [`CredentialProvider`] of the [`StorageContext`] has. It is asked for each request.
    pub credentials: Option<String>,
    /// Whether to ask without credentials, as of an emulator or where the bucket allows that, writing included.
    pub anonymous: bool,
    /// Prefix, parts and the like, as in every object store.
    #[serde(skip)]
    pub store: storage_object_store::Config,
    /// Times and certificates.
    #[serde(skip)]
    pub http: HttpConfig,
}

impl Config {
    /// This bucket, with the defaults.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), ..Self::default() }
    }

    /// Reads a URI and its options, as in `gs://bucket/prefix?service_account_file=/etc/key.json`.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        let mut connection = connection.clone();
        let mut store: storage_object_store::Config = connection.take()?;
        let http = connection.take()?;
        let mut config: Self = connection.typed()?;
        store.locate(&connection, "bucket", &mut config.bucket)?;
        let config = Self { store, http, ..config };
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if self.bucket.is_empty() || !self.bucket.chars().all(legal) {
            return Err(wrong("name the bucket, as in `gs://bucket`: letters, digits, `.`, `-` and `_`".into()));
        }
        let ways = [
            self.service_account_file.is_some(),
            self.service_account_key.is_some(),
            self.credentials.is_some(),
            self.anonymous,
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err(wrong(
                "`service_account_file`, `service_account_key`, `credentials` and `anonymous` exclude each other; set one of them"
                    .into(),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    /// Without what an address may hold beside the server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, endpoint, service_account_file, service_account_key, credentials, anonymous, store, http } =
            self;
        f.debug_struct("Config")
            .field("bucket", &shown_name(bucket))
            .field("endpoint", &endpoint.as_deref().map(shown_address))
            .field("service_account_file", service_account_file)
            .field("service_account_key", service_account_key)
            .field("credentials", credentials)
            .field("anonymous", anonymous)
            .field("store", store)
            .field("http", http)
            .finish()
    }
}

/// Connects `gs://bucket/prefix`, which may be written `gcs://` too. The options are the fields of [`Config`], [`HttpConfig`] and
/// [`ObjectStoreConfig`](storage_object_store::Config).
#[derive(Clone, Copy, Debug, Default)]
pub struct GcsFactory;

#[async_trait]
impl BackendFactory for GcsFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["gs", "gcs"]
    }

    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let provider: Option<Arc<dyn CredentialProvider>> = context.credentials.clone();
        Ok(Arc::new(crate::backend::connect_with(Config::from_connection(config)?, provider).await?))
    }
}

pub(crate) fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use storage_conformance::Secrets;

    use super::*;

    #[test]
    fn debug_hides_what_an_address_may_hold() {
        let mut secrets = Secrets::default();
        secrets.add(b"hunter2");
        let put: [fn(&mut Config, String); 2] = [
            |config: &mut Config, text| config.endpoint = Some(text),
            |config: &mut Config, text| config.bucket = text,
        ];
        for address in Secrets::in_addresses("hunter2") {
            for put in put {
                let mut config = Config::new("name");
                put(&mut config, address.clone());
                assert_eq!(secrets.found_in(&format!("{config:?} {config:#?}")), None, "{address}");
            }
            let escaped: String = address.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let uri = ConnectionConfig::new(format!("gs://name?endpoint={escaped}"));
            let config = Config::from_connection(&uri).unwrap();
            assert_eq!(config.endpoint.as_ref(), Some(&address));
            assert_eq!(secrets.found_in(&format!("{config:?} {config:#?}")), None, "{address}");
        }
        let mut config = Config::new("name");
        config.endpoint = Some("http://127.0.0.1:9000".into());
        let shown = format!("{config:?}");
        assert!(shown.contains("\"http://127.0.0.1:9000\"") && shown.contains("\"name\""), "{shown}");
    }
}
