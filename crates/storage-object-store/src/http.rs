//! The HTTP client that the clouds share: one attempt for each request, and errors that say what the store said.

mod address;
mod answer;
mod judge;
mod provided;
mod refusal;
mod service;
mod time;
mod transport;

use std::{fmt, path::PathBuf, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{
    HeaderValue,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, LAST_MODIFIED},
};
use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
    },
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject};
use serde::{Deserialize, Deserializer, de};
use storage_core::{Error, ErrorKind, Result};

use service::Located;
use transport::Transport;

pub use address::{is_address, is_without_login, server, shown_address, shown_name};
pub use provided::Provided;
pub use refusal::{Explain, Refusal};
pub(crate) use refusal::{explain, is_ceph_race_loser, is_left_open};
pub use service::Service;
pub use time::time;

/// How requests are made, whatever the cloud.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// How long the store may take for the answer to one request, and then for each further piece of it, in seconds up to a
    /// day; default 30. A request has a second more for each 64 KiB that it sends, and the end of an upload by parts at least
    /// five minutes.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// How long a connection may take to come about, in seconds up to a day; default 10.
    #[serde(deserialize_with = "seconds")]
    pub connect_timeout: Duration,
    /// A file of certificates (PEM) that are trusted beside those of the system, as a store of one's own may need.
    pub ca_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), connect_timeout: Duration::from_secs(10), ca_file: None }
    }
}

/// That `object_store` makes no request again: a repeated conditional write fails on its own success, and the retry layer knows
/// which may be repeated.
#[must_use]
pub fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, backoff: BackoffConfig::default() }
}

/// As much of the body of a refusal as one needs to understand it.
const ENOUGH: usize = 64 << 10;

/// What an answer said beside what `object_store` takes from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseHints {
    pub(crate) modified: Option<DateTime<Utc>>,
    /// Whether it names the encryption of what was written.
    pub(crate) encrypted: bool,
}

/// Makes the clients of a store. It never makes a request twice, and follows no redirect.
///
/// Each request is a `trace` event of the target `storage_object_store::request`, without query and headers.
#[derive(Clone)]
pub struct Connector {
    transport: Transport,
    explain: Explain,
    located: Option<Located>,
}

impl Connector {
    /// A connector for one store, whose refusals the function explains.
    ///
    /// # Errors
    /// `Config` for times out of range and certificates that cannot be read.
    pub fn new(config: &HttpConfig, explain: Explain) -> Result<Self> {
        let day = Duration::from_secs(24 * 60 * 60);
        for (name, time) in [("timeout", config.timeout), ("connect_timeout", config.connect_timeout)] {
            if time.is_zero() || time > day {
                return Err(wrong(format!("the option `{name}` must be more than 0 and at most a day")));
            }
        }
        Ok(Self { transport: Transport::new(config, tls(config)?)?, explain, located: None })
    }

    /// The same for a bucket or container at this address: what answers there is looked at whether it is of this service.
    #[must_use]
    pub fn of(self, service: &'static Service, address: &str) -> Self {
        Self { located: Some(Located::new(service, address)), ..self }
    }

    /// Says that the store has been connected, so that it is known whether its answers have a mark of the service. Then one without
    /// is somebody else's.
    pub fn connected(&self) {
        if let Some(located) = &self.located {
            located.connected();
        }
    }

    /// A client for requests that `object_store` does not make.
    #[must_use]
    pub fn client(&self) -> HttpClient {
        HttpClient::new(self.clone())
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.client())
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // What object_store sends to Google for nobody in particular, which Google takes for a token that does not hold.
        if request.headers().get(AUTHORIZATION).is_some_and(|who| who.as_bytes().trim_ascii() == b"Bearer") {
            request.headers_mut().remove(AUTHORIZATION);
        }
        // A proxy that compresses must leave values as they are. It is not signed, as nothing that may change on the way.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (asked, body) = request.into_parts();
        if !is_address(&asked.uri.to_string()) {
            let invalid = wrong(
                "invalid endpoint URL; check the `endpoint` option and the environment variable it may come from"
                    .into(),
            );
            return Err(HttpError::new(HttpErrorKind::Unknown, invalid));
        }
        tracing::trace!(target: "storage_object_store::request", method = %asked.method, path = asked.uri.path());
        let located = self.located.as_ref().filter(|located| located.has(&asked.uri));
        let mut response = self.transport.call(HttpRequest::from_parts(asked.clone(), body)).await?;
        if located.is_some_and(|located| located.is_decoded(response.headers())) {
            // Google decodes what was stored with a coding of its own, unless that is asked for.
            let mut asked = asked.clone();
            asked.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            response = self.transport.call(HttpRequest::from_parts(asked, HttpRequestBody::empty())).await?;
        }
        let (parts, body) = response.into_parts();
        match parts.status.is_success() {
            true => self.success(located, &asked, parts, body).await,
            false => self.refused(located, &asked, parts, body).await,
        }
    }
}

/// Makes a request that `object_store` does not make, which reads or can be repeated.
///
/// # Errors
/// The kind of the refusal, or of what befell the connection.
pub async fn send(client: &HttpClient, request: HttpRequest) -> Result<HttpResponse> {
    let response = client.execute(request).await.map_err(failed)?;
    if response.status().is_success() {
        return Ok(response);
    }
    // What the function of the cloud did not explain and object_store would have.
    let (parts, body) = response.into_parts();
    let body = answer::start(body, ENOUGH).await.map_err(failed)?;
    Err(failed(HttpError::new(HttpErrorKind::Unknown, Refusal::new(parts.status.as_u16(), &parts.headers, &body))))
}

/// The body of an answer, all of it.
///
/// # Errors
/// What befell the connection.
pub async fn body(response: HttpResponse) -> Result<Bytes> {
    response.into_body().bytes().await.map_err(failed)
}

/// The error of credentials that could not be had: with this message `Unauthenticated`, unless to try again may help.
#[must_use]
pub fn no_credentials(error: object_store::Error, message: &str) -> Error {
    let passing = explain(&error).map(|(known, _)| known).filter(Error::is_retryable);
    let Some(known) = passing else { return Error::new(ErrorKind::Unauthenticated, message).with_source(error) };
    let message = format!("{message}; the credential service is temporarily unavailable, retry later");
    let passing = Error::new(known.kind(), message).with_source(error);
    match known.retry_after() {
        Some(wait) => passing.with_retry_after(wait),
        None => passing,
    }
}

fn failed(error: HttpError) -> Error {
    match explain(&error) {
        Some((known, _)) => known.with_source(error),
        None => Error::new(ErrorKind::Other, "the request failed; see the cause").with_source(error),
    }
}

fn said(headers: &HeaderMap) -> ResponseHints {
    let modified = headers.get(LAST_MODIFIED).and_then(|date| date.to_str().ok());
    ResponseHints {
        modified: modified.and_then(time),
        encrypted: headers.contains_key("x-amz-server-side-encryption")
            || headers.get("x-ms-request-server-encrypted").is_some_and(|said| said == "true"),
    }
}

/// Trusts what the system trusts, and what the configuration adds.
fn tls(config: &HttpConfig) -> Result<ClientConfig> {
    static SYSTEM: LazyLock<Vec<CertificateDer<'static>>> =
        LazyLock::new(|| rustls_native_certs::load_native_certs().certs);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(SYSTEM.iter().cloned());
    if let Some(file) = &config.ca_file {
        let unusable = |e: Box<dyn std::error::Error + Send + Sync>| {
            wrong("the option `ca_file` must name a file with certificates as PEM".into()).with_source(e)
        };
        let mut none = true;
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unusable(e.into()))? {
            roots.add(certificate.map_err(|e| unusable(e.into()))?).map_err(|e| unusable(e.into()))?;
            none = false;
        }
        if none {
            return Err(unusable("there is no certificate in it".into()));
        }
    }
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| Error::new(ErrorKind::Other, "TLS cannot be set up").with_source(e))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| de::Error::custom("a time is a number of seconds, not negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_refused() {
        let client = Connector::new(&HttpConfig::default(), |_| None).unwrap().client();
        for none in ["http://localhost:99999", "http://host:port", "http://10.0.0.300:9000/path"] {
            assert!(!is_address(none), "{none}");
            let Ok(uri) = none.parse::<http::Uri>() else { continue };
            let request =
                http::Request::builder().uri(uri).body(object_store::client::HttpRequestBody::empty()).unwrap();
            assert_eq!(send(&client, request).await.unwrap_err().kind(), ErrorKind::Config, "{none}");
        }
        assert!(is_address("https://my-bucket.s3.example.org:9000/path") && is_address("http://[::1]:80"));
    }

    #[test]
    fn credentials_that_cannot_be_had_now_may_be_had_later() {
        let hidden =
            |e: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "test", source: e };
        let http = |kind| HttpError::new(kind, std::io::Error::other("no"));
        for (cause, kind) in [
            (hidden(http(HttpErrorKind::Connect).into()), ErrorKind::Unavailable),
            (hidden(http(HttpErrorKind::Timeout).into()), ErrorKind::Timeout),
            (hidden(Error::new(ErrorKind::RateLimited, "slowly").into()), ErrorKind::RateLimited),
            (hidden(Error::new(ErrorKind::Config, "no such name").into()), ErrorKind::Unauthenticated),
            (hidden("nothing".into()), ErrorKind::Unauthenticated),
        ] {
            let error = no_credentials(cause, "set `this`");
            assert!(error.kind() == kind && error.message().contains("set `this`"), "{error:?}");
        }
    }
}
