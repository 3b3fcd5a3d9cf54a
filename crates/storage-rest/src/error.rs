//! The one place where an answer or a broken connection becomes an error.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use storage_core::{Error, ErrorKind};
use storage_rest_wire::{Problem, headers};

/// Something befell the connection.
pub(crate) fn from_reqwest(e: reqwest::Error) -> Error {
    let (kind, message) = match &e {
        e if e.is_timeout() => {
            (ErrorKind::Timeout, "the connection did not come about in time; check the server's address")
        }
        e if e.is_connect() => {
            (ErrorKind::Unavailable, "the server cannot be reached; check its address, and that it runs")
        }
        e if e.is_builder() => (ErrorKind::Config, "the request cannot be made; check the server's URL and the token"),
        _ => (ErrorKind::Unavailable, "the connection to the server broke; try again"),
    };
    Error::new(kind, message).with_source(e.without_url())
}

pub(crate) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the server did not answer in time; try again, or raise `timeout`")
}

pub(crate) fn broke_off() -> Error {
    Error::new(ErrorKind::Unavailable, "the answer of the server broke off; try again")
}

/// An answer that the server would not give, so that something between is to blame.
pub(crate) fn strange(what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the answer is not one of this server: {what}; look what stands before it"),
    )
}

/// Whether an error is the server's own, not that of something between.
pub(crate) fn is_of_server(headers: &HeaderMap) -> bool {
    headers.contains_key(headers::ERROR)
}

/// What an answer that is no success says.
pub(crate) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    if is_of_server(headers)
        && let Some(problem) = problem(body)
    {
        return problem.into();
    }
    let wait =
        headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
    let kind = match status.as_u16() {
        400 => ErrorKind::InvalidInput,
        401 => ErrorKind::Unauthenticated,
        403 | 407 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        412 => ErrorKind::PreconditionFailed,
        413 | 414 | 431 => ErrorKind::TooLarge,
        416 => ErrorKind::RangeNotSatisfiable,
        408 | 504 => ErrorKind::Timeout,
        429 => ErrorKind::RateLimited,
        405 | 501 => ErrorKind::Unsupported,
        500 | 502 | 503 => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    };
    let e = Error::new(kind, format!("the server, or what stands before it, answered {}", status.as_u16()));
    match wait {
        Some(wait) => e.with_retry_after(wait),
        None => e,
    }
}

/// The problem details of an answer, if it has some.
pub(crate) fn problem(body: &[u8]) -> Option<Problem> {
    let problem: Problem = serde_json::from_slice(body).ok()?;
    (!problem.kind.is_empty()).then_some(problem)
}
