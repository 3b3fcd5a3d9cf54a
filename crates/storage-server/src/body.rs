//! Bodies of requests: neither too large nor too slow, and as their digests say.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{Stream, StreamExt};
use http_body::Body as _;
use ring::digest::{self, Algorithm, SHA256, SHA512};
use serde::de::DeserializeOwned;
use storage_core::{Error, ErrorKind};
use storage_rest_wire::{Problem, code};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{answer::Failure, app::App, call::Call};
use axum::http::{
    StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, TRAILER},
};

/// Bodies of at most so many bytes are read before the store is asked.
const SMALL: u64 = 64 << 10;

/// A body on its way in, and what went wrong with it.
pub(crate) struct Incoming {
    pub(crate) body: storage_core::Body,
    pub(crate) failed: Arc<OnceLock<Problem>>,
}

impl Incoming {
    /// The body of a value, of `declared` bytes if the request says so elsewhere. A small one is read here.
    pub(crate) async fn value(call: &Call, body: Body, declared: Option<u64>) -> Result<Self, Failure> {
        no_coding(call)?;
        let (len, most) = (body.size_hint().exact().or(declared), call.app.max_value());
        if len.is_some_and(|len| len > most) {
            return Err(too_large(most));
        }
        let failed = Arc::new(OnceLock::new());
        let mut pieces = Paced::new(&call.app, body, most, failed.clone());
        pieces.digests = digests(call, &["content-digest", "repr-digest"])?;
        let body = match len {
            Some(len) if len <= SMALL => {
                let mut whole = Vec::with_capacity(len as usize);
                while let Some(piece) = pieces.next().await {
                    whole.extend_from_slice(&piece.map_err(|e| explained(e, &failed))?);
                }
                whole.into()
            }
            Some(len) => storage_core::Body::with_len(len, pieces),
            None => storage_core::Body::stream(pieces),
        };
        Ok(Self { body, failed })
    }
}

/// That the bytes of the request are those to store, and no digest comes behind them, which nobody would look at.
pub(crate) fn no_coding(call: &Call) -> Result<(), Failure> {
    let is_digest = |name: &str| name.trim().to_ascii_lowercase().ends_with("-digest");
    if call.header(TRAILER)?.is_some_and(|names| names.split(',').any(is_digest)) {
        return Err(Failure::unsupported("digests in trailers; send them as headers"));
    }
    // Some SDKs of S3 leave the coding out.
    let framed = call.headers.contains_key("x-amz-decoded-content-length");
    match framed || call.header(CONTENT_ENCODING)?.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        false => Ok(()),
        true => {
            let detail =
                "content codings are not supported: bytes are stored as they come; leave out `Content-Encoding`";
            Err(Failure::new(ErrorKind::Unsupported, detail).status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
        }
    }
}

/// What the store made of a body that failed is what the body failed with.
pub(crate) fn explained(e: Error, failed: &OnceLock<Problem>) -> Failure {
    match failed.get() {
        Some(problem) => Failure(Box::new(Problem { ambiguous: e.is_ambiguous(), ..problem.clone() })),
        None => e.into(),
    }
}

/// The body of a request in JSON.
pub(crate) async fn json<T: DeserializeOwned>(call: &Call, body: Body) -> Result<T, Failure> {
    let media = call.header(CONTENT_TYPE)?.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let failure = Failure::invalid("the body must be JSON; send `Content-Type: application/json`");
        return Err(failure.status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let whole = whole(call, body).await?;
    // An array would be taken for the members in order.
    if whole.trim_ascii_start().first() != Some(&b'{') {
        return Err(Failure::invalid("the body must be a JSON object"));
    }
    serde_json::from_slice(&whole).map_err(|e| Failure::invalid(format!("invalid request body: {e}")))
}

/// The whole body of a request that is not a value.
pub(crate) async fn whole(call: &Call, body: Body) -> Result<Vec<u8>, Failure> {
    let (failed, most) = (Arc::new(OnceLock::new()), call.app.config.max_request as u64);
    if body.size_hint().lower() > most {
        return Err(too_large(most));
    }
    let mut pieces = Paced::new(&call.app, body, most, failed.clone());
    pieces.digests = digests(call, &["content-digest", "repr-digest"])?;
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        whole.extend_from_slice(&piece.map_err(|e| explained(e, &failed))?);
    }
    Ok(whole)
}

/// The pieces of a body, as long as they come.
pub(crate) struct Paced {
    pieces: axum::body::BodyDataStream,
    failed: Arc<OnceLock<Problem>>,
    pub(crate) digests: Digests,
    begun: Instant,
    patience: Duration,
    min_rate: u64,
    most: u64,
    received: u64,
    sleep: Pin<Box<Sleep>>,
}

impl Paced {
    pub(crate) fn new(app: &App, body: Body, most: u64, failed: Arc<OnceLock<Problem>>) -> Self {
        let (begun, patience) = (Instant::now(), app.config.body_timeout);
        Self {
            pieces: body.into_data_stream(),
            failed,
            digests: Digests::default(),
            begun,
            patience,
            min_rate: app.config.min_rate,
            most,
            received: 0,
            sleep: Box::pin(sleep_until(begun + patience)),
        }
    }

    fn fail(&mut self, failure: Failure) -> Error {
        let e = Error::from(*failure.0.clone());
        // Only the first counts.
        let _ = self.failed.set(*failure.0);
        e
    }

    /// Until when the next piece must have come.
    fn deadline(&self) -> Instant {
        let next = Instant::now() + self.patience;
        match self.received.checked_div(self.min_rate) {
            Some(seconds) => next.min(self.begun + self.patience + Duration::from_secs(seconds)),
            None => next,
        }
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let piece = match this.pieces.poll_next_unpin(cx) {
            Poll::Ready(piece) => piece,
            Poll::Pending => {
                ready!(this.sleep.as_mut().poll(cx));
                let slow = Failure::new(ErrorKind::Timeout, "the request body arrived too slowly; send it again");
                let slow = slow.status(StatusCode::REQUEST_TIMEOUT).code(code::BROKEN_BODY);
                return Poll::Ready(Some(Err(this.fail(slow))));
            }
        };
        match piece {
            Some(Ok(bytes)) => {
                this.received += bytes.len() as u64;
                if this.received > this.most {
                    let most = this.most;
                    return Poll::Ready(Some(Err(this.fail(too_large(most)))));
                }
                this.digests.update(&bytes);
                let deadline = this.deadline();
                this.sleep.as_mut().reset(deadline);
                Poll::Ready(Some(Ok(bytes)))
            }
            Some(Err(_)) => {
                let broken =
                    Failure::invalid("the request body ended before its declared length").code(code::BROKEN_BODY);
                Poll::Ready(Some(Err(this.fail(broken))))
            }
            None => match std::mem::take(&mut this.digests).check() {
                Ok(()) => Poll::Ready(None),
                Err(wrong) => Poll::Ready(Some(Err(this.fail(wrong)))),
            },
        }
    }
}

pub(crate) fn too_large(most: u64) -> Failure {
    Failure::new(ErrorKind::TooLarge, format!("the body is larger than {most} bytes"))
}

/// Digests that bytes must have.
#[derive(Default)]
pub(crate) struct Digests(Vec<(digest::Context, Vec<u8>)>);

impl Digests {
    /// Those of a header as of RFC 9530. Algorithms that are not known, or known to be broken, are passed over.
    pub(crate) fn parse(name: &str, header: &str) -> Result<Self, Failure> {
        let wrong = || Failure::invalid(format!("the header `{name}` is not as of RFC 9530: `sha-256=:base64:`"));
        let mut all = Vec::new();
        for item in header.split(',') {
            let (algorithm, value) = item.trim().split_once('=').ok_or_else(wrong)?;
            let algorithm: &'static Algorithm = match algorithm {
                "sha-256" => &SHA256,
                "sha-512" => &SHA512,
                _ => continue,
            };
            let value = value.strip_prefix(':').and_then(|value| value.strip_suffix(':')).ok_or_else(wrong)?;
            let value = BASE64.decode(value.as_bytes()).map_err(|_| wrong())?;
            all.push((digest::Context::new(algorithm), value));
        }
        Ok(Self(all))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|(context, _)| context.update(bytes));
    }

    /// Whether the bytes had all of them.
    pub(crate) fn check(self) -> Result<(), Failure> {
        match self.0.into_iter().all(|(context, expected)| context.finish().as_ref() == expected) {
            true => Ok(()),
            false => {
                let detail = "the bytes have another digest than the request says; nothing of it was stored";
                Err(Failure::invalid(detail).code(code::WRONG_DIGEST))
            }
        }
    }
}

/// The digests that these headers of the request say its body has. Of a request without a coding both headers of RFC 9530 mean the same
/// bytes.
pub(crate) fn digests(call: &Call, names: &[&str]) -> Result<Digests, Failure> {
    let mut all = Digests::default();
    for name in names {
        if let Some(header) = call.header(name)? {
            all.0.extend(Digests::parse(name, header)?.0);
        }
    }
    Ok(all)
}
