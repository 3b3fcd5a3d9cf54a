//! Connecting. What a connected bucket does is in `storage-object-store`, and in `calls.rs` what only Google can.

use std::{env, sync::Arc, time::Duration};

use object_store::gcp::GoogleCloudStorageBuilder;
use storage_config::CredentialProvider;
use storage_core::Result;
use storage_object_store::{
    Naming, ObjectStoreBackend, Profile,
    http::{Connector, no_retries, server},
};

use crate::{
    Config,
    calls::Calls,
    config::wrong,
    credentials::{self, Who},
    error,
};

/// Google's own server.
const GOOGLE: &str = "https://storage.googleapis.com";
/// Says where an emulator is, to Google's own libraries too.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";

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
    let emulator = env::var(EMULATOR).ok().filter(|host| !host.is_empty());
    let (endpoint, emulated) = endpoint(config.endpoint.as_deref(), emulator.as_deref())?;
    let bucket = format!("{endpoint}/{}", config.bucket);
    let connector = connector.of(&error::GOOGLE, &bucket);
    let who = Who::find(&config, emulated, provider, |name| env::var_os(name)).await?;
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&config.bucket)
        .with_base_url(&endpoint)
        .with_http_connector(connector.clone())
        .with_retry(no_retries());
    let store = Arc::new(credentials::build(who, builder)?);
    let calls = Calls { store: store.clone(), client: connector.client(), name: config.bucket.clone(), bucket };
    calls.verify(config.store.root()).await.map_err(|e| error::GOOGLE.at_connect(e))?;
    let mut profile = profile();
    profile.timeout = config.http.timeout;
    // Google documents conditions, and takes one write of an object a second; to try them takes more. An emulator may ignore them.
    profile.tries_conditions = !is_google(&endpoint);
    let connected = ObjectStoreBackend::connect_native(store, Arc::new(calls), profile, config.store).await;
    connector.connected();
    connected.map_err(|e| error::GOOGLE.at_connect(e))
}

fn profile() -> Profile {
    let mut profile = Profile::new("gcs");
    profile.name = "Google Cloud Storage".to_owned();
    profile.naming = Naming::Flat;
    profile.name_limit = 1024;
    profile.sorted = true;
    profile.max_parts = 10_000;
    // Every write gets a generation of its own, by which the conditions are; the etag is mostly a hash of the content.
    profile.by_version = true;
    profile.version_etags = true;
    profile.time_granularity = Duration::from_secs(1);
    profile
}

/// Whether this is Google's, which has servers for regions and for private networks, too.
fn is_google(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    host.to_ascii_lowercase().ends_with(".googleapis.com")
}

/// The server, without a slash at its end, and whether it is an emulator that the environment names.
fn endpoint(configured: Option<&str>, emulator: Option<&str>) -> Result<(String, bool)> {
    let (text, source) = match (configured, emulator) {
        (Some(endpoint), _) => (endpoint.to_owned(), "the option `endpoint`"),
        // Google's libraries take it with and without.
        (None, Some(host)) if !host.contains("://") => (format!("http://{host}"), "`STORAGE_EMULATOR_HOST`"),
        (None, Some(host)) => (host.to_owned(), "`STORAGE_EMULATOR_HOST`"),
        (None, None) => (GOOGLE.to_owned(), "the option `endpoint`"),
    };
    let unusable = || {
        wrong(format!("{source} must be a server, as in `http://127.0.0.1:4443`, without `?`, `#`, user or password"))
    };
    let text = server(&text).ok_or_else(unusable)?;
    Ok((text.to_owned(), configured.is_none() && emulator.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_googles_unless_something_else_is_said() {
        let at = |configured, emulator| endpoint(configured, emulator).unwrap();
        assert_eq!(at(None, None), (GOOGLE.to_owned(), false));
        assert_eq!(at(Some("http://host:1/"), Some("other:2")), ("http://host:1".to_owned(), false));
        assert_eq!(at(None, Some("localhost:4443")), ("http://localhost:4443".to_owned(), true));
        assert_eq!(at(None, Some("https://localhost:4443/")), ("https://localhost:4443".to_owned(), true));
        for wrong in [
            "host:1",
            "ftp://host",
            "https://",
            "https://u:p@host",
            "https://u:hunter2@host",
            "https://u%3Ahunter2%40host",
            "https://host?sig=hunter2",
            "https://host?x",
            "https://h h",
            "http://h:99999",
            "http://h:port",
            "http://10.0.0.300:9000",
        ] {
            let error = endpoint(Some(wrong), None).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        for wrong in ["a b", "localhost:99999", "http://10.0.0.300:9000", "u:hunter2@host", "http://u:hunter2@host"] {
            let error = endpoint(None, Some(wrong)).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn google_has_many_servers() {
        for (endpoint, google) in [
            (GOOGLE, true),
            ("https://storage.europe-west3.rep.googleapis.com", true),
            ("https://Private.GoogleAPIs.com:443/path", true),
            ("http://127.0.0.1:4443", false),
            ("https://googleapis.com.example.org", false),
            ("https://example.org/storage.googleapis.com", false),
        ] {
            assert_eq!(is_google(endpoint), google, "{endpoint}");
        }
    }
}
