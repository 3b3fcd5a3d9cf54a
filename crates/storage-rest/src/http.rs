//! Requests: how they are made, and how long they may take.

use std::{
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Method, Request, Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use storage_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Config, config::wrong, error};

/// Answers that are not values have at most so many bytes.
const MOST: usize = 64 << 20;

/// The client of one server.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    base: Url,
    token: Option<HeaderValue>,
    pub(crate) timeout: Duration,
}

/// When a body was last seen to go on.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When to ask for the outcome of a write that is not answered, and when to give up.
    pub(crate) fn until(&self, timeout: Duration) -> (Instant, Instant) {
        let last = self.last();
        (last + timeout * 4 / 5, last + timeout)
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) error: Error,
    /// Whether the server may have got the request.
    pub(crate) sent: bool,
}

/// An answer whose body is in memory.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The error that it is, unless it is a success.
    pub(crate) fn success(self) -> Result<Self> {
        match self.status.is_success() {
            true => Ok(self),
            false => Err(error::from_answer(self.status, &self.headers, &self.body)),
        }
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|e| error::strange("it is not the JSON that was asked for").with_source(e))
    }
}

impl Http {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        config.check()?;
        let token = config.token.as_ref().map(|token| {
            let header = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut header = header.map_err(|_| wrong("the option `token` has characters that no header can have"))?;
            header.set_sensitive(true);
            Ok::<_, Error>(header)
        });
        let client = Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .connect_timeout(config.connect_timeout)
            // The server closes a connection that was idle for 30 seconds.
            .pool_idle_timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .tcp_nodelay(true)
            // Whatever another part of the program has switched on: values are the bytes that are stored.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .user_agent(concat!("storage-rest/", env!("CARGO_PKG_VERSION")))
            .build();
        let client =
            client.map_err(|e| Error::new(ErrorKind::Other, "the HTTP client cannot be set up").with_source(e))?;
        Ok(Self { client, base: config.base()?, token: token.transpose()?, timeout: config.timeout })
    }

    /// A request to a path below the base, which is encoded already, with parameters.
    pub(crate) fn request(&self, method: Method, path: &str, params: &[(&str, &str)]) -> Result<Request> {
        let mut url = self.base.clone();
        let path = format!("{}/{path}", self.base.path().trim_end_matches('/'));
        url.set_path(&path);
        // A library that takes segments away or changes them would name another value.
        if url.path() != path {
            return Err(Error::new(ErrorKind::InvalidKey, "the key cannot stand in a URL as it is"));
        }
        if !params.is_empty() {
            url.query_pairs_mut().extend_pairs(params);
        }
        let mut request = Request::new(method, url);
        // A proxy that compresses must leave values as they are.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }

    /// Sends a request; the answer begins in time after the body was last seen to go on.
    pub(crate) async fn send(&self, request: Request, progress: &Progress) -> Result<Response, Lost> {
        tracing::trace!(target: "storage_rest::request", method = %request.method(), path = request.url().path());
        progress.note();
        let mut sending = std::pin::pin!(self.client.execute(request));
        loop {
            let until = progress.last() + self.timeout;
            match timeout_at(until, &mut sending).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(e)) => {
                    let sent = !e.is_connect() && !e.is_builder();
                    return Err(Lost { error: error::from_reqwest(e), sent });
                }
                Err(_) if progress.last() + self.timeout > Instant::now() => {}
                Err(_) => return Err(Lost { error: error::timed_out(), sent: true }),
            }
        }
    }

    /// Makes a request that changes nothing, or can be made twice: once more if the connection breaks.
    pub(crate) async fn read(&self, request: Request) -> Result<Response> {
        let again = request.try_clone();
        match (self.send(request, &Progress::new()).await, again) {
            (Ok(response), _) => Ok(response),
            (Err(Lost { error, sent: true }), Some(again)) if error.kind() == ErrorKind::Unavailable => {
                self.send(again, &Progress::new()).await.map_err(|lost| lost.error)
            }
            (Err(lost), _) => Err(lost.error),
        }
    }

    /// The same, with its body in memory.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer> {
        let response = self.read(request).await?;
        self.collect(response).await
    }

    /// The whole of an answer that is not a value.
    pub(crate) async fn collect(&self, response: Response) -> Result<Answer> {
        let (status, headers) = (response.status(), response.headers().clone());
        let declared = declared(&headers);
        let body = self.bytes(response, MOST).await?;
        if declared.is_some_and(|len| len != body.len() as u64) && !body.is_empty() {
            return Err(error::broke_off());
        }
        Ok(Answer { status, headers, body })
    }

    /// A body that is in memory afterwards, and its pieces in time.
    pub(crate) async fn bytes(&self, mut response: Response, most: usize) -> Result<Bytes> {
        let Some(first) = self.piece(&mut response).await? else { return Ok(Bytes::new()) };
        let Some(second) = self.piece(&mut response).await? else { return Ok(first) };
        let mut whole = BytesMut::from(&first[..]);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.piece(&mut response).await? {
            if whole.len() + piece.len() > most {
                return Err(error::strange("it is too large"));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// The next piece of a body, in time.
    pub(crate) async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>> {
        match timeout(self.timeout, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(e)) if e.is_timeout() => Err(error::timed_out()),
            Ok(Err(e)) => Err(error::broke_off().with_source(e.without_url())),
            Err(_) => Err(error::timed_out()),
        }
    }
}

/// What the header `Content-Length` says.
pub(crate) fn declared(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-length")?.parse().ok()
}

/// A header as a text.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn tls(config: &Config) -> Result<ClientConfig> {
    static SYSTEM: LazyLock<Vec<CertificateDer<'static>>> =
        LazyLock::new(|| rustls_native_certs::load_native_certs().certs);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(SYSTEM.iter().cloned());
    if let Some(file) = &config.ca_file {
        let unusable = |e: Box<dyn std::error::Error + Send + Sync>| {
            wrong("the option `ca_file` must name a file with certificates as PEM").with_source(e)
        };
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unusable(e.into()))? {
            roots.add(certificate.map_err(|e| unusable(e.into()))?).map_err(|e| unusable(e.into()))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| Error::new(ErrorKind::Other, "TLS cannot be set up").with_source(e))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("host", &self.base.host_str())
            .field("port", &self.base.port())
            .finish_non_exhaustive()
    }
}
