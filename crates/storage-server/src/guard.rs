//! What every request goes through: its id, who it comes from, how many there are, what is logged and measured.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use storage_core::ErrorKind;
use storage_rest_wire::headers;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    answer::{Failure, set},
    app::{App, Door},
    tokens::Grant,
};

/// The header with the id of a request, which the client may choose.
const REQUEST_ID: &str = "x-request-id";

/// Around every route.
pub(crate) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&request);
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str()).to_owned();
    let path = request.uri().path().to_owned();
    metrics::gauge!("storage_server_requests_in_flight").increment(1.0);
    let mut who = String::new();
    let mut response = match admit(&app, &request) {
        Err(failure) => failure.into_response(),
        Ok((grant, permit)) => {
            who.clone_from(&grant.name);
            request.extensions_mut().insert(grant);
            next.run(request).await.map(|body| Body::new(Held { body, _permit: permit }))
        }
    };
    metrics::gauge!("storage_server_requests_in_flight").decrement(1.0);
    set(response.headers_mut(), REQUEST_ID, &id);
    let (status, seconds) = (response.status().as_u16(), begun.elapsed().as_secs_f64());
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("storage_server_requests_total", &labels).increment(1);
    metrics::histogram!("storage_server_request_seconds", &labels).record(seconds);
    // Neither headers nor parameters: there may be secrets in both.
    let error = response.headers().get(headers::ERROR).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    tracing::info!(target: "storage_server::access", id, who, method, path, status, error, seconds);
    response
}

/// Around routes that need no token, such as `/health`: whoever comes from another page is turned away all the same.
pub(crate) async fn local(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match is_at_home(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// The method, so that nobody fills the measurements with names of his own.
fn known(method: &Method) -> &'static str {
    let all = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    all.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn request_id(request: &Request) -> String {
    let legal = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    given.filter(legal).map_or_else(|| format!("{:016x}", fastrand::u64(..)), str::to_owned)
}

fn admit(app: &App, request: &Request) -> Result<(Arc<Grant>, OwnedSemaphorePermit), Failure> {
    is_at_home(app, request)?;
    let grant = app.grant(request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok()))?;
    let permit = grant.requests.clone().try_acquire_owned().map_err(|_| {
        let mut failure =
            Failure::new(ErrorKind::RateLimited, "too many requests are under way; try again in a second");
        failure.0.retry_after_ms = Some(1000);
        failure
    })?;
    Ok((grant, permit))
}

/// Without tokens, only programs on this machine that mean this server may ask: no page of another origin, and none whose name was made to
/// lead here.
fn is_at_home(app: &App, request: &Request) -> Result<(), Failure> {
    let (Door::Local(_), Some(port)) = (&app.door, app.port.get()) else { return Ok(()) };
    let text = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let hosts = ["localhost", "127.0.0.1", "[::1]"];
    let names = |host: &[u8]| {
        let named =
            |name: &&str| host == format!("{name}:{port}").as_bytes() || (*port == 80 && host == name.as_bytes());
        hosts.iter().any(named)
    };
    if !text(HOST).is_some_and(names) {
        let failure = Failure::denied(
            "without tokens this server answers to `localhost`, `127.0.0.1` and `[::1]` with its port only",
        );
        return Err(failure.status(StatusCode::MISDIRECTED_REQUEST));
    }
    match text(ORIGIN) {
        Some(origin) if !origin.strip_prefix(b"http://").is_some_and(names) => {
            Err(Failure::denied("pages of other origins may not ask this server"))
        }
        _ => Ok(()),
    }
}

/// A body that counts as a request under way until its end.
struct Held {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
