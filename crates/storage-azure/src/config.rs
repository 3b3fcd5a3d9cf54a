//! What can be configured, and the factory that connects.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::Deserialize;
use storage_config::{BackendFactory, ConnectionConfig, Secret, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend};
use storage_object_store::http::{HttpConfig, shown_address, shown_name};

/// Where the container is and how to use it. Start from [`Config::new`] or [`Config::from_connection`] and assign.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The container, which must exist.
    pub container: String,
    /// Account, credentials and endpoint in one, as Azure's portal shows it.
    pub connection_string: Option<Secret>,
    /// The storage account.
    pub account: Option<String>,
    /// One of the account's two keys.
    pub account_key: Option<Secret>,
    /// A shared access signature, as in `sv=…&sig=…`. It needs the rights to read, write, delete and list in the container.
    pub sas: Option<Secret>,
    /// Names what the [`CredentialProvider`](storage_config::CredentialProvider) of the [`StorageContext`] has: an account key, or
    /// a shared access signature.
    pub credentials: Option<String>,
    /// Whether to ask without credentials.
    pub anonymous: bool,
    /// Whether to use the account that Microsoft's emulators have, by default at `http://127.0.0.1:10000/devstoreaccount1`.
    pub emulator: bool,
    /// Where the account's blobs are, as in `https://account.blob.core.windows.net`, which is the default. `http://` sends
    /// everything in the clear.
    pub endpoint: Option<String>,
    /// Prefix, parts and the like, as in every object store.
    #[serde(skip)]
    pub store: storage_object_store::Config,
    /// Times and certificates.
    #[serde(skip)]
    pub http: HttpConfig,
}

impl Config {
    /// This container, with the defaults.
    pub fn new(container: impl Into<String>) -> Self {
        Self { container: container.into(), ..Self::default() }
    }

    /// Reads a URI and its options, as in `azure://container/prefix?account=name`.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        let mut connection = connection.clone();
        let mut store: storage_object_store::Config = connection.take()?;
        let http = connection.take()?;
        let mut config: Self = connection.typed()?;
        store.locate(&connection, "container", &mut config.container)?;
        let config = Self { store, http, ..config };
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = self.container.strip_prefix('$').unwrap_or(&self.container);
        if name.is_empty() || !name.chars().all(legal) {
            return Err(wrong(
                "name the container, as in `azure://container`: small letters, digits and `-`".to_owned(),
            ));
        }
        let ways = [
            self.connection_string.is_some(),
            self.account_key.is_some(),
            self.sas.is_some(),
            self.credentials.is_some(),
            self.anonymous,
            self.emulator,
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err(wrong(
                "`connection_string`, `account_key`, `sas`, `credentials`, `anonymous` and `emulator` exclude each other; set one \
                 of them"
                    .to_owned(),
            ));
        }
        if self.connection_string.is_some() && (self.account.is_some() || self.endpoint.is_some()) {
            return Err(wrong(
                "`account` and `endpoint` stand in the `connection_string`; leave them out beside it".to_owned(),
            ));
        }
        if self.emulator && self.account.is_some() {
            return Err(wrong("the `emulator` has an account of its own; leave `account` out".to_owned()));
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    /// Without what an address may hold beside the server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            container,
            connection_string,
            account,
            account_key,
            sas,
            credentials,
            anonymous,
            emulator,
            endpoint,
            store,
            http,
        } = self;
        f.debug_struct("Config")
            .field("container", &shown_name(container))
            .field("connection_string", connection_string)
            .field("account", &account.as_deref().map(shown_name))
            .field("account_key", account_key)
            .field("sas", sas)
            .field("credentials", credentials)
            .field("anonymous", anonymous)
            .field("emulator", emulator)
            .field("endpoint", &endpoint.as_deref().map(shown_address))
            .field("store", store)
            .field("http", http)
            .finish()
    }
}

/// Connects `azure://container/prefix`. The options are the fields of [`Config`], [`HttpConfig`] and
/// [`ObjectStoreConfig`](storage_object_store::Config).
#[derive(Clone, Copy, Debug, Default)]
pub struct AzureFactory;

#[async_trait]
impl BackendFactory for AzureFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["azure"]
    }

    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let provider = context.credentials.clone();
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
        let put: [fn(&mut Config, String); 3] = [
            |config: &mut Config, text| config.endpoint = Some(text),
            |config: &mut Config, text| config.container = text,
            |config: &mut Config, text| config.account = Some(text),
        ];
        for address in Secrets::in_addresses("hunter2") {
            for put in put {
                let mut config = Config::new("name");
                put(&mut config, address.clone());
                assert_eq!(secrets.found_in(&format!("{config:?} {config:#?}")), None, "{address}");
            }
            let escaped: String = address.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let uri = ConnectionConfig::new(format!("azure://name?endpoint={escaped}"));
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
