//! Servers that the tests run on, and buckets in them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use http::Method;
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::HttpRequestBody,
};
use storage_config::Secret;
use storage_conformance::proxy::Proxy;
use storage_core::{Bytes, Error, ErrorKind, Result, Storage};
use storage_object_store::http::{Connector, HttpConfig, body as http_body, send};
use storage_s3::{Config, ObjectStoreBackend};

/// A server, by the environment variable that says where it is: `http://KEY:SECRET@host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server(pub(crate) &'static str);

/// A real one.
pub(crate) const CEPH: Server = Server("STORAGE_TEST_CEPH");
/// An emulator.
pub(crate) const MOTO: Server = Server("STORAGE_TEST_MOTO");

impl Server {
    /// Those that there are; says which are not.
    pub(crate) fn all() -> Vec<Self> {
        let there = |server: &Self| storage_conformance::server(server.0).is_some();
        [CEPH, MOTO].into_iter().filter(there).collect()
    }

    /// Key, secret, and `host:port`; empty texts while it is not there.
    fn parts(self) -> [String; 3] {
        let uri = env::var(self.0).unwrap_or_default();
        let (who, place) = uri.rsplit_once('@').unwrap_or_default();
        let who = who.rsplit_once("//").unwrap_or_default().1;
        let (key, secret) = who.split_once(':').unwrap_or_default();
        [key, secret, place].map(str::to_owned)
    }

    /// Its `host:port`.
    pub(crate) fn host(self) -> String {
        let [_, _, host] = self.parts();
        host
    }

    /// What no error may say.
    pub(crate) fn secret(self) -> String {
        let [_, secret, _] = self.parts();
        secret
    }

    /// How to connect to one of its buckets.
    pub(crate) fn config(self, bucket: &str) -> Config {
        let [key, secret, host] = self.parts();
        let mut config = Config::new(bucket);
        config.region = Some("us-east-1".into());
        config.endpoint = Some(format!("http://{host}"));
        config.access_key_id = Some(Secret::new(key));
        config.secret_access_key = Some(Secret::new(secret));
        config
    }

    /// Makes a bucket, if there is none of this name.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn make(self, bucket: &str, versions: bool) -> Result<()> {
        self.request(Method::PUT, &format!("/{bucket}"), "").await?;
        if versions {
            let on = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status>\
                      </VersioningConfiguration>";
            self.request(Method::PUT, &format!("/{bucket}?versioning="), on).await?;
        }
        Ok(())
    }

    /// A signed request; what it answers.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn request(self, method: Method, path: &str, text: impl Into<Bytes>) -> Result<Bytes> {
        self.described(method, path, &[], text.into()).await
    }

    /// The same with headers.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn described(
        self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes> {
        let [key_id, secret_key, host] = self.parts();
        let failed = |e: &dyn std::error::Error| Error::new(ErrorKind::Other, format!("the test's own request: {e}"));
        let mut request = http::Request::builder().method(method).uri(format!("http://{host}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(HttpRequestBody::from(body)).map_err(|e| failed(&e))?;
        let credential = AwsCredential { key_id, secret_key, token: None };
        let signed = AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(&mut request, None);
        signed.map_err(|e| failed(&e))?;
        let client = Connector::new(&HttpConfig::default(), |_| None)?.client();
        http_body(send(&client, request).await?).await
    }
}

/// A new bucket behind a proxy that can spoil its answers.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) server: Server,
    pub(crate) name: String,
    pub(crate) proxy: Proxy,
}

impl Bucket {
    pub(crate) async fn new(server: Server, versions: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let name = format!("test-{}-{}", since.as_millis(), NEXT.fetch_add(1, Ordering::Relaxed));
        server.make(&name, versions).await.unwrap();
        Self { server, name, proxy: Proxy::start(&server.host()).unwrap() }
    }

    /// How to connect to it through the proxy.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.server.config(&self.name);
        config.endpoint = Some(format!("http://{}", self.proxy.address()));
        config.http.timeout = Duration::from_secs(3);
        config
    }

    pub(crate) async fn open(&self) -> Storage<ObjectStoreBackend> {
        Storage::typed(storage_s3::connect(self.config()).await.unwrap())
    }
}
