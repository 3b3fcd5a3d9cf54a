//! What every request goes through: its id, who it comes from, how many there are, and what is logged.

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
        HeaderMap, HeaderName, HeaderValue, StatusCode, Version,
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
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    answer::Failure,
    app::{App, Door},
    linger::Lingering,
    measure::{UnderWay, known},
    tokens::{Grant, Place},
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
        let seen = Seen::of(request.headers());
        let (id, method) = (request_id(seen.id), known(request.method()));
        let is_logged = tracing::enabled!(target: "storage_server::access", tracing::Level::INFO);
        let shown = is_logged.then(|| (request.uri().clone(), seen.authorization.cloned()));
        let route = request.extensions().get::<MatchedPath>().cloned();
        let under_way = UnderWay::new();
        let admitted = admit(&self.app, &request, &seen).map(|(grant, permit)| {
            request.extensions_mut().insert(grant.clone());
            (grant, permit, self.route.call(request))
        });
        let app = self.app.clone();
        Box::pin(async move {
            let (who, mut response) = match admitted {
                Err(failure) => (None, failure.into_response()),
                Ok((grant, permit, answered)) => (Some(grant), held(answered.await?, permit)),
            };
            drop(under_way);
            let (status, seconds) = (response.status().as_u16(), begun.elapsed().as_secs_f64());
            let route = route.as_ref().map_or("none", MatchedPath::as_str);
            app.measured.answered(method, route, status, seconds);
            if let Some((uri, token)) = shown {
                let error =
                    response.headers().get(headers::ERROR).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                let who = who.as_ref().map_or("", |grant| grant.name.as_str());
                // Neither headers nor parameters: there may be secrets in both.
                let (id, path) = (id.to_str().unwrap_or_default(), shown_path(route, uri.path(), who, &token));
                tracing::info!(target: "storage_server::access", id, who, method, path, status, error, seconds);
            }
            let headers = response.headers_mut();
            headers.insert(REQUEST_ID, id);
            // A cache keeps what says nothing of it, errors too.
            headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            Ok(response)
        })
    }
}

/// A request counts towards the limit of its token until the end of its answer, unless that is small and has its end in sight.
fn held(response: Response, permit: Place) -> Response {
    match response.body().size_hint().exact() {
        Some(len) if len <= SMALL => response,
        _ => response.map(|body| Body::new(Held { body, _permit: permit })),
    }
}

/// Around routes that need no token, such as `/health`: whoever comes from another page is turned away all the same.
pub(crate) async fn local(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match is_at_home(&app, &Seen::of(request.headers())) {
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

/// What is looked for in the headers of a request, found in one pass.
#[derive(Default)]
struct Seen<'h> {
    /// How many bytes all of them have.
    size: usize,
    hosts: usize,
    host: Option<&'h HeaderValue>,
    origin: Option<&'h HeaderValue>,
    authorization: Option<&'h HeaderValue>,
    id: Option<&'h HeaderValue>,
}

impl<'h> Seen<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            // With `: ` and the end of the line.
            seen.size += name.as_str().len() + value.len() + 4;
            let place = match name {
                name if name == HOST => {
                    seen.hosts += 1;
                    &mut seen.host
                }
                name if name == AUTHORIZATION => &mut seen.authorization,
                name if name == ORIGIN => &mut seen.origin,
                name if name == REQUEST_ID => &mut seen.id,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        seen
    }
}

fn request_id(asked: Option<&HeaderValue>) -> HeaderValue {
    let legal = |id: &&HeaderValue| (1..=64).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let random = || {
        let mut id = [0; 16];
        HEXLOWER.encode_mut(&fastrand::u64(..).to_be_bytes(), &mut id);
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    };
    asked.filter(legal).cloned().unwrap_or_else(random)
}

fn admit(app: &App, request: &Request, seen: &Seen<'_>) -> Result<(Arc<Grant>, Place), Failure> {
    let line = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if line + seen.size > app.config.max_header {
        let failure = Failure::new(ErrorKind::TooLarge, "the headers of the request are too large");
        return Err(failure.status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    if request.version() == Version::HTTP_11 && seen.hosts != 1 {
        return Err(Failure::invalid("a request of HTTP/1.1 must have the header `Host` once"));
    }
    is_at_home(app, seen)?;
    let grant = app.grant(seen.authorization.and_then(|header| header.to_str().ok()))?;
    let permit = grant.requests.enter().ok_or_else(|| {
        let mut failure =
            Failure::new(ErrorKind::RateLimited, "too many requests are under way; try again in a second");
        failure.0.retry_after_ms = Some(1000);
        failure
    })?;
    Ok((grant, permit))
}

/// Without tokens, only programs on this machine that mean this server may ask: no page of another origin, and none whose name was made to
/// lead here.
fn is_at_home(app: &App, seen: &Seen<'_>) -> Result<(), Failure> {
    let (Door::Local(_), Some(port)) = (&app.door, app.port.get()) else { return Ok(()) };
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
    if !seen.host.is_some_and(|host| names(host.as_bytes())) {
        let failure = Failure::denied(
            "without tokens this server answers to `localhost`, `127.0.0.1` and `[::1]` with its port only",
        );
        return Err(failure.status(StatusCode::MISDIRECTED_REQUEST));
    }
    match seen.origin.map(HeaderValue::as_bytes) {
        Some(origin) if !origin.strip_prefix(b"http://").is_some_and(names) => {
            Err(Failure::denied("pages of other origins may not ask this server"))
        }
        _ => Ok(()),
    }
}

/// A body that counts as a request under way until its end.
struct Held {
    body: Body,
    _permit: Place,
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
