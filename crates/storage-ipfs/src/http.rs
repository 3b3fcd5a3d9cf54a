//! Requests: a client, an answer to its end, and the trailer behind it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use rustls::{ClientConfig, RootCertStore};
use storage_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::error;

/// Where the node says that an answer which began well has failed.
const STREAM_ERROR: &str = "x-stream-error";
/// The most of an answer that is no value.
const MAX_ANSWER: usize = 64 << 20;

pub(crate) fn client(limit: Duration) -> Result<reqwest::Client> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Other, "the HTTP client cannot be set up").with_source(e)
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = rustls::crypto::ring::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(limit)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .tcp_nodelay(true)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .user_agent(concat!("storage/", env!("CARGO_PKG_VERSION")));
    client.build().map_err(|e| failed(e.into()))
}

/// An answer whose body comes piece by piece, each within a time.
pub(crate) struct Answer {
    body: reqwest::Body,
    limit: Duration,
}

impl Answer {
    /// Sends a request, and looks at the status.
    pub(crate) async fn to(request: reqwest::RequestBuilder, limit: Duration) -> Result<Self> {
        let response = timeout(limit, request.send()).await.map_err(|_| error::timed_out())?;
        Self::of(response.map_err(error::from_http)?, limit).await
    }

    /// An answer that has begun.
    pub(crate) async fn of(response: reqwest::Response, limit: Duration) -> Result<Self> {
        let status = response.status();
        let answer = Self { body: http::Response::<reqwest::Body>::from(response).into_body(), limit };
        if status == http::StatusCode::OK {
            return Ok(answer);
        }
        let said = answer.whole(MAX_ANSWER).await.unwrap_or_default();
        Err(error::from_status(status, &said))
    }

    /// The next piece; `None` at an end that is one.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = timeout(self.limit, self.body.frame()).await.map_err(|_| error::timed_out())?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = match frame.map_err(error::from_http)?.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(other) => other,
            };
            let failure = frame.trailers_ref().and_then(|trailers| trailers.get(STREAM_ERROR));
            if let Some(message) = failure {
                return Err(error::from_trailer(&String::from_utf8_lossy(message.as_bytes())));
            }
        }
    }

    /// All of it, to its end.
    pub(crate) async fn whole(mut self, max: usize) -> Result<Bytes> {
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        let mut all: Option<Vec<u8>> = None;
        while let Some(piece) = self.piece().await? {
            let all = all.get_or_insert_with(|| first.to_vec());
            if all.len() + piece.len() > max {
                return Err(error::unreadable());
            }
            all.extend_from_slice(&piece);
        }
        if all.is_none() && first.len() > max {
            return Err(error::unreadable());
        }
        Ok(all.map_or(first, Bytes::from))
    }

    /// All of it, as JSON. An answer without any is what the node gives to a time that it cannot read, for example.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let whole = self.whole(MAX_ANSWER).await?;
        serde_json::from_slice(&whole).map_err(|_| match whole.first() {
            Some(b'<') => error::no_node(),
            _ => error::unreadable(),
        })
    }

    pub(crate) fn stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::try_unfold(self, |mut answer| async move {
            let piece = answer.piece().await?;
            Ok(piece.map(|piece| (piece, answer)))
        })
    }
}
