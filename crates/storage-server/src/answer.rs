//! What the server answers: small answers that can be kept, and errors as problem details.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use storage_core::{Entry, Error, ErrorKind};
use storage_rest_wire::{EntryJson, Problem, code, etag, headers};

/// The version of a value.
const VERSION: HeaderName = HeaderName::from_static(headers::VERSION);

/// An answer whose body is in memory.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: no_store(), body: Bytes::new() }
    }

    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let mut answer = Self::empty(status);
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The types of the protocol are texts, numbers and maps with texts as keys.
        answer.body = serde_json::to_vec(value).unwrap_or_default().into();
        answer
    }

    /// What was written, without its metadata, which the writer knows.
    pub(crate) fn written(status: StatusCode, mut entry: Entry) -> Self {
        entry.metadata = None;
        let tags = validators(&entry);
        let mut answer = Self::json(status, &EntryJson::from(entry));
        answer.headers.extend(tags);
        answer
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) Box<Problem>);

impl Failure {
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(kind, detail)))
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, detail)
    }

    pub(crate) fn denied(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::PermissionDenied, detail)
    }

    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("this server does not support {what}"))
    }

    pub(crate) fn code(self, code: &str) -> Self {
        Self(Box::new(self.0.code(code)))
    }

    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self(Box::new(self.0.status(status.as_u16())))
    }

    pub(crate) fn into_answer(self) -> Answer {
        let problem = self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = Answer::json(status, &problem);
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let word = if problem.is(code::ABSENT) { headers::ABSENT } else { &problem.kind };
        set(&mut answer.headers, headers::ERROR, word);
        if let Some(ms) = problem.retry_after_ms {
            set(&mut answer.headers, RETRY_AFTER, &ms.div_ceil(1000).to_string());
        }
        if status == StatusCode::UNAUTHORIZED {
            answer.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::NOT_MODIFIED {
            answer.headers.remove(CONTENT_TYPE);
            answer.body = Bytes::new();
        }
        answer
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        if problem_of_ours(&e) {
            // The client hears what kind of thing went wrong, whoever runs the server hears all of it.
            tracing::warn!(target: "storage_server", error = ?e, "a call of the store failed");
        }
        Self(Box::new(Problem::from(&e)))
    }
}

/// Whether it is the store that failed, and not the request.
fn problem_of_ours(e: &Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Corrupt | ErrorKind::Other | ErrorKind::Config
    )
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.into_answer().into_response()
    }
}

/// Sets a header, unless its value cannot be one.
pub(crate) fn set<N>(headers: &mut HeaderMap, name: N, value: &str)
where
    HeaderName: TryFrom<N>,
{
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// Etag and version as headers.
pub(crate) fn validators(entry: &Entry) -> HeaderMap {
    // Room for all that values have, so that it need not grow.
    let mut map = HeaderMap::with_capacity(12);
    if let Some(tag) = entry.etag.as_ref().and_then(|tag| HeaderValue::try_from(etag::quoted(tag)).ok()) {
        map.insert(ETAG, tag);
    }
    if let Some(version) = &entry.version
        && let Ok(version) = HeaderValue::try_from(etag::token(version.as_str()))
    {
        map.insert(VERSION, version);
    }
    map
}

fn no_store() -> HeaderMap {
    HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-store"))])
}
