//! What every request goes through: its id, who it comes from, how many there are, what is logged and measured.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode, Version,
        header::{AUTHORIZATION, CACHE_CONTROL, HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};
use storage_core::ErrorKind;
use storage_rest_wire::headers;
use tokio::sync::OwnedSemaphorePermit;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    answer::Failure,
    app::{App, Door},
    linger::Lingering,
    tokens::Grant,
};

/// The header with the id of a request, which the client may choose.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Answers of at most so many bytes are as good as sent.
const SMALL: u64 = 64 << 10;

/// Around every route.
#[derive(Clone)]
pub(crate) struct Guard(pub(crate) Arc<App>);

/// A route that is guarded. Unlike a function as middleware it takes no copy of the route for each request.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    app: Arc<App>,
    route: S,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, route: S) -> Guarded<S> {
        Guarded { app: self.0.clone(), route }
    }
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let begun = Instant::now();
        let mut request = request.map(Lingering::around);
        let id = request_id(&request);
        let (method, uri) = (known(request.method()), request.uri().clone());
        let route = request.extensions().get::<MatchedPath>().cloned();
        let token = request.headers().get(AUTHORIZATION).cloned();
        let under_way = UnderWay::new();
        let admitted = admit(&self.app, &request).map(|(grant, permit)| {
            request.extensions_mut().insert(grant.clone());
            (grant, permit, self.route.call(request))
        });
        Box::pin(async move {
            let (who, mut response) = match admitted {
                Err(failure) => (None, failure.into_response()),
                Ok((grant, permit, answered)) => (Some(grant), held(answered.await?, permit)),
            };
            drop(under_way);
            let (status, seconds) = (response.status().as_u16(), begun.elapsed().as_secs_f64());
            let route = route.as_ref().map_or("none", MatchedPath::as_str);
            measure(method, route, &response, seconds);
            if tracing::enabled!(target: "storage_server::access", tracing::Level::INFO) {
                let error =
                    response.headers().get(headers::ERROR).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                let who = who.as_ref().map_or("", |grant| grant.name.as_str());
                // Neither headers nor parameters: there may be secrets in both.
                let (shown, path) = (id.to_str().unwrap_or_default(), shown_path(route, uri.path(), who, &token));
                tracing::info!(target: "storage_server::access", id = shown, who, method, path, status, error, seconds);
            }
            let headers = response.headers_mut();
            headers.insert(REQUEST_ID, id);
            // A cache keeps what says nothing of it, errors too.
            headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            Ok(response)
        })
    }
}

/// Counts a request, also one whose client has gone before it is answered.
struct UnderWay(metrics::Gauge);

impl UnderWay {
    fn new() -> Self {
        let gauge = metrics::gauge!("storage_server_requests_in_flight");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A request counts towards the limit of its token until the end of its answer, unless that is small and has its end in sight.
fn held(response: Response, permit: OwnedSemaphorePermit) -> Response {
    match response.body().size_hint().exact() {
        Some(len) if len <= SMALL => response,
        _ => response.map(|body| Body::new(Held { body, _permit: permit })),
    }
}

fn measure(method: &'static str, route: &str, response: &Response, seconds: f64) {
    let text = |text: &str| metrics::SharedString::from_owned(text.to_owned());
    let status = text(response.status().as_str());
    let labels = vec![
        metrics::Label::from_static_parts("method", method),
        metrics::Label::new("route", text(route)),
        metrics::Label::new("status", status),
    ];
    metrics::counter!("storage_server_requests_total", labels.clone()).increment(1);
    metrics::histogram!("storage_server_request_seconds", labels).record(seconds);
}

/// Around routes that need no token, such as `/health`: whoever comes from another page is turned away all the same.
pub(crate) async fn local(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match is_at_home(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// What the log shows of a path: that of a value, unless it holds the token or comes from somebody without one. Elsewhere the route is enough: in
/// its place there may be an id by which somebody else could go on, or what was meant for another server.
fn shown_path<'p>(route: &'p str, path: &'p str, who: &str, token: &Option<HeaderValue>) -> &'p str {
    let names_a_value = ["/files", "/v1/objects/", "/v1/entries/", "/v1/versions/"];
    let token = token.as_ref().and_then(|header| header.to_str().ok()?.split(' ').next_back());
    match names_a_value.iter().any(|begin| route.starts_with(begin)) && !who.is_empty() {
        true if token.is_none_or(|token| token.is_empty() || !path.contains(token)) => path,
        _ => route,
    }
}

/// The method, so that nobody fills the measurements with names of his own.
fn known(method: &Method) -> &'static str {
    let all = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    all.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn request_id(request: &Request) -> HeaderValue {
    let legal = |id: &&HeaderValue| (1..=64).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let random = || {
        let id = HEXLOWER.encode(&fastrand::u64(..).to_be_bytes());
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    };
    request.headers().get(REQUEST_ID).filter(legal).cloned().unwrap_or_else(random)
}

fn admit(app: &App, request: &Request) -> Result<(Arc<Grant>, OwnedSemaphorePermit), Failure> {
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let line = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if line + request.headers().iter().map(size).sum::<usize>() > app.config.max_header {
        let failure = Failure::new(ErrorKind::TooLarge, "the headers of the request are too large");
        return Err(failure.status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
        return Err(Failure::invalid("a request of HTTP/1.1 must have the header `Host` once"));
    }
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
    let is_port = |digits: &[u8]| {
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
        number == Some(*port) && digits.first().is_some_and(|first| (b'1'..=b'9').contains(first))
    };
    let names = |host: &[u8]| {
        let named = |name: &&str| match host.strip_prefix(name.as_bytes()) {
            Some([b':', digits @ ..]) => is_port(digits),
            Some(rest) => rest.is_empty() && *port == 80,
            None => false,
        };
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
