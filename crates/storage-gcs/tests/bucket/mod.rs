//! The emulator that the tests run on, behind a translator of this process, and buckets in it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    env, io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{Method, StatusCode};
use object_store::client::HttpRequestBody;
use storage_config::Secret;
use storage_conformance::proxy::Proxy;
use storage_core::{Bytes, Error, ErrorKind, Result, Storage};
use storage_gcs::{Config, ObjectStoreBackend};
use storage_gcs_xml::Translator;
use storage_object_store::http::{Connector, HttpConfig, body, send};

/// Says where the emulator is: `http://host:port`.
pub(crate) const FAKE: &str = "STORAGE_TEST_FAKE_GCS";

/// Whether it is there; says so if not.
pub(crate) fn is_there() -> bool {
    storage_conformance::server(FAKE).is_some()
}

/// The `host:port` of the emulator itself; empty while it is not there.
fn emulator() -> String {
    env::var(FAKE).unwrap_or_default().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// The `host:port` of the translator before it, which is started when it is first asked for.
///
/// # Errors
/// `Other` when it cannot be started.
pub(crate) fn host() -> Result<String> {
    static STARTED: OnceLock<io::Result<Translator>> = OnceLock::new();
    let started = STARTED.get_or_init(|| Translator::start(&emulator()));
    started.as_ref().map(Translator::address).map_err(|e| failed(&e))
}

fn failed(e: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Other, format!("the test's own request: {e}"))
}

/// The key of a service account that does not exist, so that requests carry tokens as in production. Nobody checks them here.
pub(crate) const ACCOUNT: &str = include_str!("service-account.json");

/// The private key in it, which no error may say.
pub(crate) fn secret() -> String {
    let account: serde_json::Value = serde_json::from_str(ACCOUNT).unwrap();
    account["private_key"].as_str().unwrap().to_owned()
}

/// How to connect to one of its buckets, through whatever is at this `host:port`.
pub(crate) fn config(bucket: &str, host: &str) -> Config {
    let mut config = Config::new(bucket);
    config.endpoint = Some(format!("http://{host}"));
    config.service_account_key = Some(Secret::new(ACCOUNT));
    config
}

/// Makes a bucket, if there is none of this name, by the emulator's own interface.
///
/// # Errors
/// The emulator's.
pub(crate) async fn make(bucket: &str) -> Result<()> {
    let about = format!("{{\"name\":\"{bucket}\"}}");
    match request(Method::POST, &format!("http://{}/storage/v1/b", emulator()), about).await {
        Err(e) if e.kind() == ErrorKind::Conflict => Ok(()),
        made => made.map(drop),
    }
}

/// Puts an object there as others do.
///
/// # Errors
/// The emulator's.
pub(crate) async fn plant(path: &str) -> Result<()> {
    put(path, &[], "theirs".into()).await
}

/// The same with headers, and a value of its own.
///
/// # Errors
/// The emulator's.
pub(crate) async fn put(path: &str, headers: &[(&str, &str)], value: Bytes) -> Result<()> {
    described(Method::PUT, &format!("http://{}{path}", host()?), headers, value).await.map(drop)
}

/// How many uploads into a bucket have begun and not ended. The translator keeps what it knows of each in a bucket of the emulator.
pub(crate) async fn open_uploads(bucket: &str) -> usize {
    let objects = format!("http://{}/storage/v1/b/storage-gcs-xml-uploads/o", emulator());
    // Until the first upload there is no such bucket.
    let Ok(listed) = request(Method::GET, &objects, String::new()).await else { return 0 };
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let names = listed["items"].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str());
    let mut open = 0;
    for id in names.filter_map(|name| name.strip_suffix("/upload")) {
        // It may end meanwhile.
        let about = request(Method::GET, &format!("{objects}/{id}%2Fupload?alt=media"), String::new()).await;
        let about = about.ok().and_then(|about| serde_json::from_slice::<serde_json::Value>(&about).ok());
        open += usize::from(about.is_some_and(|about| about["bucket"] == bucket));
    }
    open
}

/// A request of our own; what it answers.
///
/// # Errors
/// The emulator's.
pub(crate) async fn request(method: Method, address: &str, text: String) -> Result<Bytes> {
    described(method, address, &[("content-type", "application/json")], text.into()).await
}

async fn described(method: Method, address: &str, headers: &[(&str, &str)], text: Bytes) -> Result<Bytes> {
    let mut request = http::Request::builder().method(method).uri(address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(HttpRequestBody::from(text)).map_err(|e| failed(&e))?;
    let client = Connector::new(&HttpConfig::default(), |_| None)?.client();
    body(send(&client, request).await?).await
}

/// The status and the text of an answer, whatever it is.
pub(crate) async fn answer(method: Method, path: &str, headers: &[(&str, &str)], text: &str) -> (StatusCode, String) {
    let mut request = http::Request::builder().method(method).uri(format!("http://{}{path}", host().unwrap()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(HttpRequestBody::from(text.to_owned())).unwrap();
    let client = Connector::new(&HttpConfig::default(), |_| None).unwrap().client();
    match send(&client, request).await {
        Ok(answer) => {
            let status = answer.status();
            (status, String::from_utf8(body(answer).await.unwrap().into()).unwrap())
        }
        Err(e) => (StatusCode::IM_A_TEAPOT, format!("{e:?}")),
    }
}

/// A new bucket behind a proxy that can spoil answers, which is before the translator.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) proxy: Proxy,
}

impl Bucket {
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let name = format!("test-{}-{}", since.as_millis(), NEXT.fetch_add(1, Ordering::Relaxed));
        make(&name).await.unwrap();
        Self { name, proxy: Proxy::start(&host().unwrap()).unwrap() }
    }

    /// How to connect to it through the proxy.
    pub(crate) fn config(&self) -> Config {
        config(&self.name, &self.proxy.address())
    }

    pub(crate) async fn open(&self) -> Storage<ObjectStoreBackend> {
        Storage::typed(storage_gcs::connect(self.config()).await.unwrap())
    }
}
