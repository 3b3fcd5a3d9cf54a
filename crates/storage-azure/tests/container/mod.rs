//! The emulator that the tests run on, and containers in it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use http::Method;
use object_store::{
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::HttpRequestBody,
};
use ring::hmac;
use storage_azure::{Config, ObjectStoreBackend};
use storage_config::Secret;
use storage_conformance::proxy::Proxy;
use storage_core::{Bytes, Error, ErrorKind, Result, Storage};
use storage_object_store::http::{Connector, HttpConfig, body, send};

/// Says where the emulator is: a connection string with the address of its blobs.
pub(crate) const AZURITE: &str = "STORAGE_TEST_AZURITE";

/// Whether it is there; says so if not.
pub(crate) fn is_there() -> bool {
    storage_conformance::server(AZURITE).is_some()
}

/// A field of the connection string; empty while the emulator is not there.
fn field(name: &str) -> String {
    let text = env::var(AZURITE).unwrap_or_default();
    let found = text.split(';').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_default().to_owned()
}

/// The emulator's account.
pub(crate) fn account() -> String {
    field("AccountName")
}

/// The account's key, which no error may say.
pub(crate) fn key() -> String {
    field("AccountKey")
}

/// The emulator's `host:port`.
pub(crate) fn host() -> String {
    let endpoint = field("BlobEndpoint");
    endpoint.split('/').nth(2).unwrap_or_default().to_owned()
}

/// The address of the account at this host.
pub(crate) fn endpoint(host: &str) -> String {
    format!("http://{host}/{}", account())
}

/// A connection string with the emulator at this host.
pub(crate) fn connection_string(host: &str) -> Secret {
    let text = env::var(AZURITE).unwrap_or_default();
    Secret::new(text.replace(&field("BlobEndpoint"), &endpoint(host)))
}

/// Makes a container, if there is none of this name.
///
/// # Errors
/// The emulator's.
pub(crate) async fn make(container: &str) -> Result<()> {
    match request(Method::PUT, &format!("/{container}?restype=container"), "").await {
        Err(e) if e.kind() == ErrorKind::Conflict => Ok(()),
        made => made.map(drop),
    }
}

/// Puts a blob there as others do.
///
/// # Errors
/// The emulator's.
pub(crate) async fn plant(path: &str) -> Result<()> {
    request(Method::PUT, path, "theirs").await.map(drop)
}

/// A signed request; what it answers.
///
/// # Errors
/// The emulator's.
pub(crate) async fn request(method: Method, path: &str, text: impl Into<Bytes>) -> Result<Bytes> {
    described(method, path, &[], text.into()).await
}

/// The same with headers.
///
/// # Errors
/// The emulator's.
pub(crate) async fn described(method: Method, path: &str, headers: &[(&str, &str)], text: Bytes) -> Result<Bytes> {
    let failed = |e: &dyn std::error::Error| Error::new(ErrorKind::Other, format!("the test's own request: {e}"));
    let mut request = http::Request::builder().method(method).uri(format!("{}{path}", endpoint(&host())));
    request = request.header("content-length", text.len()).header("x-ms-blob-type", "BlockBlob");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(HttpRequestBody::from(text)).map_err(|e| failed(&e))?;
    let key = AzureAccessKey::try_new(&key()).map_err(|e| failed(&e))?;
    let credential = AzureCredential::AccessKey(key);
    let account = account();
    AzureAuthorizer::new(&credential, &account).try_authorize(&mut request).map_err(|e| failed(&e))?;
    let client = Connector::new(&HttpConfig::default(), |_| None)?.client();
    body(send(&client, request).await?).await
}

/// A shared access signature of the whole container with these rights, which ends at this time.
pub(crate) fn sas(container: &str, rights: &str, until: &str) -> Secret {
    let version = "2020-12-06";
    let resource = format!("/blob/{}/{container}", account());
    let text = format!("{rights}\n\n{until}\n{resource}\n\n\n\n{version}\nc\n\n\n\n\n\n\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(key().as_bytes()).unwrap());
    let signature = BASE64.encode(hmac::sign(&key, text.as_bytes()).as_ref());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    Secret::new(format!("sv={version}&sp={rights}&se={}&sr=c&sig={signature}", until.replace(':', "%3A")))
}

/// A new container behind a proxy that can spoil its answers.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) proxy: Proxy,
}

impl Container {
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let name = format!("test-{}-{}", since.as_millis(), NEXT.fetch_add(1, Ordering::Relaxed));
        make(&name).await.unwrap();
        Self { name, proxy: Proxy::start(&host()).unwrap() }
    }

    /// How to connect to it through the proxy, by account and key.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(&self.name);
        config.account = Some(account());
        config.account_key = Some(Secret::new(key()));
        config.endpoint = Some(endpoint(&self.proxy.address()));
        config.http.timeout = Duration::from_secs(5);
        config
    }

    pub(crate) async fn open(&self) -> Storage<ObjectStoreBackend> {
        Storage::typed(storage_azure::connect(self.config()).await.unwrap())
    }
}
