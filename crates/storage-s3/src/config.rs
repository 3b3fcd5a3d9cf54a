//! What can be configured, and the factory that connects.

use std::{fmt, sync::Arc};

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
    /// The region of the bucket; unless set, `AWS_REGION` or `AWS_DEFAULT_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// The server, as in `https://s3.example.org`; unless set, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, else Amazon's of the
    /// region. `http://` sends everything in the clear.
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the path of addresses, not in the name of the host. Unless set, it does at an `endpoint`, and at
    /// Amazon's where the bucket has a `.` in its name.
    pub path_style: Option<bool>,
    /// Names the access key. No secret by itself, but kept beside one, and so it may be a reference too. Without it, see
    /// `credentials` and the README.
    pub access_key_id: Option<Secret>,
    /// The secret of the access key.
    pub secret_access_key: Option<Secret>,
    /// What belongs to an access key for a limited time.
    pub session_token: Option<Secret>,
    /// Names credentials that the [`CredentialProvider`] of the [`StorageContext`] has: the texts of `access_key_id`,
    /// `secret_access_key` and, if there is one, `session_token`, with a space between them.
    pub credentials: Option<String>,
    /// The section of the file of credentials; unless set, `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
    /// Whether to ask without credentials, where the bucket allows that, writing included.
    pub anonymous: bool,
    /// How the store encrypts values.
    pub encryption: Encryption,
    /// Which key of the key management service encrypts them, under `aws:kms` and `aws:kms:dsse`. Unless set, Amazon's own.
    pub kms_key: Option<String>,
    /// Prefix, parts and the like, as in every object store.
    #[serde(skip)]
    pub store: storage_object_store::Config,
    /// Times and certificates.
    #[serde(skip)]
    pub http: HttpConfig,
}

impl fmt::Debug for Config {
    /// Without what an address may hold beside the server.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bucket,
            region,
            endpoint,
            path_style,
            access_key_id,
            secret_access_key,
            session_token,
            credentials,
            profile,
            anonymous,
            encryption,
            kms_key,
            store,
            http,
        } = self;
        f.debug_struct("Config")
            .field("bucket", &shown_name(bucket))
            .field("region", &region.as_deref().map(shown_name))
            .field("endpoint", &endpoint.as_deref().map(shown_address))
            .field("path_style", path_style)
            .field("access_key_id", access_key_id)
            .field("secret_access_key", secret_access_key)
            .field("session_token", session_token)
            .field("credentials", credentials)
            .field("profile", profile)
            .field("anonymous", anonymous)
            .field("encryption", encryption)
            .field("kms_key", kms_key)
            .field("store", store)
            .field("http", http)
            .finish()
    }
}

/// How the store encrypts values where they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Encryption {
    /// By keys that the store keeps (SSE-S3).
    #[default]
    #[serde(rename = "aes256")]
    Aes256,
    /// By a key of the key management service.
    #[serde(rename = "aws:kms")]
    Kms,
    /// Twice by such a key.
    #[serde(rename = "aws:kms:dsse")]
    KmsTwice,
    /// As the bucket is set up: it is not asked for.
    #[serde(rename = "none")]
    None,
}

impl Config {
    /// This bucket, with the defaults.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), ..Self::default() }
    }

    /// Reads a URI and its options, as in `s3://bucket/prefix?region=eu-central-1`.
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
        if !is_name(&self.bucket) {
            return Err(wrong("name the bucket, as in `s3://bucket`: letters, digits, `.`, `-` and `_`".into()));
        }
        if let Some(region) = &self.region
            && !is_name(region)
        {
            return Err(wrong("the option `region` must be a name like `eu-central-1`".into()));
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return Err(wrong("`access_key_id` and `secret_access_key` belong together; set both or neither".into()));
        }
        if self.session_token.is_some() && self.access_key_id.is_none() {
            return Err(wrong(
                "`session_token` belongs to `access_key_id` and `secret_access_key`; set them too".into(),
            ));
        }
        let ways = [self.access_key_id.is_some(), self.credentials.is_some(), self.profile.is_some(), self.anonymous];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err(wrong(
                "`access_key_id`, `credentials`, `profile` and `anonymous` exclude each other; set one of them".into(),
            ));
        }
        // They become parts of HTTP headers.
        for (name, text) in [
            ("access_key_id", self.access_key_id.as_ref().map(Secret::expose)),
            ("secret_access_key", self.secret_access_key.as_ref().map(Secret::expose)),
            ("session_token", self.session_token.as_ref().map(Secret::expose)),
            ("kms_key", self.kms_key.as_deref()),
        ] {
            if text.is_some_and(|text| !is_visible(text)) {
                return Err(wrong(format!("the option `{name}` must be visible ASCII characters, without spaces")));
            }
        }
        if self.kms_key.is_some() && !matches!(self.encryption, Encryption::Kms | Encryption::KmsTwice) {
            return Err(wrong("`kms_key` is for `encryption=aws:kms`; set that, or leave the key out".into()));
        }
        Ok(())
    }
}

/// Connects `s3://bucket/prefix`. The options are the fields of [`Config`], [`HttpConfig`] and
/// [`ObjectStoreConfig`](storage_object_store::Config).
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Factory;

#[async_trait]
impl BackendFactory for S3Factory {
    fn schemes(&self) -> &'static [&'static str] {
        &["s3"]
    }

    async fn connect(&self, config: &ConnectionConfig, context: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let provider: Option<Arc<dyn CredentialProvider>> = context.credentials.clone();
        Ok(Arc::new(crate::backend::connect_with(Config::from_connection(config)?, provider).await?))
    }
}

/// Whether this can be the name of a bucket or a region.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Whether this can be a part of an HTTP header.
pub(crate) fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic())
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
            |config: &mut Config, text| config.bucket = text,
            |config: &mut Config, text| config.region = Some(text),
        ];
        for address in Secrets::in_addresses("hunter2") {
            for put in put {
                let mut config = Config::new("name");
                put(&mut config, address.clone());
                assert_eq!(secrets.found_in(&format!("{config:?} {config:#?}")), None, "{address}");
            }
            let escaped: String = address.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let uri = ConnectionConfig::new(format!("s3://name?endpoint={escaped}"));
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
