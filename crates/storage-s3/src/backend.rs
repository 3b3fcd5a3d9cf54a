//! Connecting. What a connected bucket does is in `storage-object-store`, and in `calls.rs` what only S3 can.

use std::{env, sync::Arc, time::Duration};

use http::HeaderName;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, S3ConditionalPut};
use storage_config::CredentialProvider;
use storage_core::Result;
use storage_object_store::{
    Naming, ObjectStoreBackend, Profile,
    http::{Connector, is_address, no_retries, server},
};

use crate::{
    Config, Encryption,
    calls::Calls,
    config::{is_name, wrong},
    credentials::{self, variable},
    error::{self, S3},
};

/// Connects to a bucket.
///
/// The bucket is listed below the prefix, and a few objects below `.storage/probe/` are written and deleted, which shows whether the credentials
/// suffice and what the server honours.
///
/// # Errors
/// `Config`, `NotFound` for a bucket that does not exist, `Unauthenticated`, `PermissionDenied`, `Unavailable` and `Timeout` for a
/// server that cannot be reached; the message names the setting to change.
pub async fn connect(config: Config) -> Result<ObjectStoreBackend> {
    connect_with(config, None).await
}

pub(crate) async fn connect_with(
    config: Config,
    provider: Option<Arc<dyn CredentialProvider>>,
) -> Result<ObjectStoreBackend> {
    config.check()?;
    let connector = Connector::new(&config.http, error::explain)?;
    let place = Place::new(&config, variable)?;
    let connector = connector.of(&S3, &place.bucket);
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&place.region)
        .with_endpoint(&place.endpoint)
        .with_virtual_hosted_style_request(place.virtual_hosted)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_http_connector(connector.clone())
        .with_retry(no_retries());
    let builder = encryption(&config, credentials::apply(&config, provider, builder, |name| env::var_os(name)).await?)?;
    let store = Arc::new(builder.build().map_err(error::build)?);
    let mut calls = Calls {
        store: store.clone(),
        client: connector.client(),
        name: config.bucket.clone(),
        bucket: place.bucket,
        region: place.region,
        anonymous: config.anonymous,
        versioned: false,
        encryption: encryption_headers(&config),
    };
    calls.verify(&config.store.root()).await.map_err(|e| S3.at_connect(e))?;
    calls.versioned = calls.is_versioned().await.map_err(|e| S3.at_connect(e))?;
    let mut profile = profile();
    profile.timeout = config.http.timeout;
    let connected = ObjectStoreBackend::connect_native(store, Arc::new(calls), profile, config.store).await;
    connector.connected();
    connected.map_err(|e| S3.at_connect(e))
}

fn profile() -> Profile {
    let mut profile = Profile::new("s3");
    profile.name = "S3".to_owned();
    profile.naming = Naming::Flat;
    profile.name_limit = 1024;
    profile.sorted = true;
    profile.max_parts = 10_000;
    // An etag is a hash of the content.
    profile.version_etags = false;
    profile.time_granularity = Duration::from_secs(1);
    profile
}

/// How S3 names the configured encryption; `None` where nothing is asked for.
fn algorithm(config: &Config) -> Option<&'static str> {
    match config.encryption {
        Encryption::Aes256 => Some("AES256"),
        Encryption::Kms => Some("aws:kms"),
        Encryption::KmsTwice => Some("aws:kms:dsse"),
        Encryption::None => None,
    }
}

fn encryption(config: &Config, builder: AmazonS3Builder) -> Result<AmazonS3Builder> {
    let Some(algorithm) = algorithm(config) else { return Ok(builder) };
    let name = |name: &str| name.parse::<Key>().map_err(error::build);
    let builder = builder.with_config(name("aws_server_side_encryption")?, algorithm);
    Ok(match &config.kms_key {
        Some(key) => builder.with_config(name("aws_sse_kms_key_id")?, key),
        None => builder,
    })
}

/// The headers with which a request that is not the client's own asks for the same encryption.
fn encryption_headers(config: &Config) -> Vec<(HeaderName, String)> {
    let Some(algorithm) = algorithm(config) else { return Vec::new() };
    let algorithm = (HeaderName::from_static("x-amz-server-side-encryption"), algorithm.to_owned());
    let key = config.kms_key.iter();
    let key = key.map(|key| (HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id"), key.clone()));
    [algorithm].into_iter().chain(key).collect()
}

/// Where the bucket is.
struct Place {
    region: String,
    /// As the builder takes it.
    endpoint: String,
    virtual_hosted: bool,
    /// The address of the bucket.
    bucket: String,
}

impl Place {
    fn new(config: &Config, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let region = config.region.clone().or_else(|| variable("AWS_REGION"));
        let region = region.or_else(|| variable("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".to_owned());
        if !is_name(&region) {
            return Err(wrong("`AWS_REGION` or `AWS_DEFAULT_REGION` must be a name like `eu-central-1`".into()));
        }
        let given = config.endpoint.clone().or_else(|| variable("AWS_ENDPOINT_URL_S3"));
        let given = given.or_else(|| variable("AWS_ENDPOINT_URL"));
        let dotted = config.bucket.contains('.');
        let path_style = config.path_style.unwrap_or(given.is_some() || dotted);
        let text = given.unwrap_or_else(|| {
            let china = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://s3.{region}.amazonaws.com{china}")
        });
        let unusable = || {
            wrong("the option `endpoint` must be a server, as in `https://s3.example.org`, without `?`, `#`, user or password".into())
        };
        let server = server(&text).ok_or_else(unusable)?;
        let (scheme, host) = server.split_once("://").ok_or_else(unusable)?;
        let name = &config.bucket;
        let (endpoint, bucket) = if path_style {
            (server.to_owned(), format!("{server}/{name}"))
        } else {
            let bucket = format!("{scheme}://{name}.{host}");
            (bucket.clone(), bucket)
        };
        if !is_address(&bucket) {
            return Err(unusable());
        }
        Ok(Self { region, endpoint, virtual_hosted: !path_style, bucket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(change: impl FnOnce(&mut Config)) -> Result<(String, bool)> {
        let mut config = Config::new("my-bucket");
        config.region = Some("eu-central-1".into());
        change(&mut config);
        Place::new(&config, |_| None).map(|place| (place.bucket, place.virtual_hosted))
    }

    #[test]
    fn the_bucket_stands_where_the_server_expects_it() {
        let amazon = place(|config| config.path_style = None).unwrap();
        assert_eq!(amazon, ("https://my-bucket.s3.eu-central-1.amazonaws.com".into(), true));
        let dotted = place(|config| config.bucket = "my.bucket".into()).unwrap();
        assert_eq!(dotted, ("https://s3.eu-central-1.amazonaws.com/my.bucket".into(), false));
        let own = place(|config| config.endpoint = Some("http://127.0.0.1:9000/".into())).unwrap();
        assert_eq!(own, ("http://127.0.0.1:9000/my-bucket".into(), false));
        let hosted = place(|config| {
            config.endpoint = Some("https://s3.example.org".into());
            config.path_style = Some(false);
        });
        assert_eq!(hosted.unwrap(), ("https://my-bucket.s3.example.org".into(), true));
        for wrong in [
            "s3.example.org",
            "ftp://s3.example.org",
            "https://",
            "https://u:p@host",
            "https://u:hunter2@host",
            "https://u%3Ahunter2%40host",
            "https://host?sig=hunter2",
            "https://host?x",
            "https://h h",
            "http://localhost:99999",
            "http://host:port",
            "http://10.0.0.300:9000",
        ] {
            let error = place(|config| config.endpoint = Some(wrong.into())).unwrap_err();
            assert!(error.message().contains("`endpoint`"), "{wrong}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            let error = Place::new(&Config::new("b"), |name| (name == "AWS_ENDPOINT_URL").then(|| wrong.to_owned()));
            assert!(error.is_err_and(|e| !format!("{e:?}").contains("hunter2")), "{wrong}");
        }
        let error = Place::new(&Config::new("b"), |name| (name == "AWS_REGION").then(|| "\u{e9}".to_owned()));
        assert!(error.is_err_and(|e| e.message().contains("`AWS_REGION`")));
    }
}
