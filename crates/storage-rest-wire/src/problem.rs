//! Errors as problem details (RFC 9457), with the kind of the error.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage_core::{Error, ErrorKind, Key};

/// What the member `code` says where the kind does not say enough.
pub mod code {
    /// A write id that the server does not know any more, or that names another run of the server: nothing was done for this request.
    pub const STALE_WRITE_ID: &str = "stale_write_id";
    /// The transaction has ended, by itself or by request, or never was.
    pub const TRANSACTION_ENDED: &str = "transaction_ended";
    /// The key has no value, or not this version.
    pub const ABSENT: &str = "absent";
    /// There is no such route.
    pub const NO_ROUTE: &str = "no_route";
    /// The body broke off or was too slow: nothing was done.
    pub const BROKEN_BODY: &str = "broken_body";
    /// The bytes have another digest than the request says: nothing was done.
    pub const WRONG_DIGEST: &str = "wrong_digest";
    /// There is no such resumable upload: it has ended, or was never begun by this token.
    pub const NO_UPLOAD: &str = "no_upload";
    /// The request was refused for its size or its slowness.
    pub const LIMIT: &str = "limit";
}

/// An error. Members that are not known are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI for the kind.
    #[serde(rename = "type")]
    pub about: String,
    /// The kind in words.
    pub title: String,
    /// The status of HTTP.
    pub status: u16,
    /// What happened, and what to do.
    pub detail: String,
    /// The kind of error, as `docs/errors.md` lists them.
    pub kind: String,
    /// What the kind does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the request may have taken effect all the same.
    pub ambiguous: bool,
    /// The key concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How long to wait before the next try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Of a resumable upload: the offset at which its next bytes belong.
    #[serde(rename = "expected-offset", skip_serializing_if = "Option::is_none")]
    pub expected_offset: Option<u64>,
    /// Of a resumable upload: the offset that the request named.
    #[serde(rename = "provided-offset", skip_serializing_if = "Option::is_none")]
    pub provided_offset: Option<u64>,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self::from(&Error::new(kind, detail))
    }

    /// The same with a code.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same under another status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Whether it has this code.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// The status of HTTP for a kind.
pub(crate) fn status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::InvalidKey | ErrorKind::InvalidInput | ErrorKind::Config => 400,
        ErrorKind::Unauthenticated => 401,
        ErrorKind::PermissionDenied => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::NotModified => 304,
        ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed => 412,
        ErrorKind::Conflict => 409,
        ErrorKind::Closed => 410,
        ErrorKind::TooLarge => 413,
        ErrorKind::RangeNotSatisfiable => 416,
        ErrorKind::RateLimited => 429,
        ErrorKind::Unsupported => 501,
        ErrorKind::Unavailable => 503,
        ErrorKind::Timeout => 504,
        _ => 500,
    }
}

fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidKey => "invalid key",
        ErrorKind::InvalidInput => "invalid request",
        ErrorKind::Config => "invalid configuration",
        ErrorKind::Unsupported => "not supported",
        ErrorKind::NotFound => "not found",
        ErrorKind::NotModified => "not modified",
        ErrorKind::AlreadyExists => "the key already has a value",
        ErrorKind::PreconditionFailed => "precondition failed",
        ErrorKind::Conflict => "conflict with another request",
        ErrorKind::RangeNotSatisfiable => "range not satisfiable",
        ErrorKind::TooLarge => "too large",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::Unauthenticated => "a valid token is required",
        ErrorKind::RateLimited => "too many requests",
        ErrorKind::Timeout => "timed out",
        ErrorKind::Unavailable => "the store is unavailable",
        ErrorKind::Corrupt => "stored data is damaged",
        ErrorKind::Closed => "closed",
        _ => "request failed",
    }
}

impl From<&Error> for Problem {
    fn from(e: &Error) -> Self {
        Self {
            about: format!("https://github.com/storage-rs/storage/blob/main/docs/errors.md#{}", e.code()),
            title: title(e.kind()).into(),
            status: status(e.kind()),
            detail: e.message().into(),
            kind: e.code().into(),
            code: None,
            ambiguous: e.is_ambiguous(),
            key: e.key().map(|key| key.as_str().into()),
            retry_after_ms: e.retry_after().map(|wait| wait.as_millis().try_into().unwrap_or(u64::MAX)),
            expected_offset: None,
            provided_offset: None,
        }
    }
}

/// A kind that this version does not know is `Other`.
impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let kind = ErrorKind::ALL.iter().find(|kind| kind.code() == problem.kind).copied();
        let mut e = Self::new(kind.unwrap_or(ErrorKind::Other), problem.detail);
        if let Some(key) = problem.key.as_deref().and_then(|key| Key::parse(key).ok()) {
            e = e.with_key(&key);
        }
        if let Some(ms) = problem.retry_after_ms {
            e = e.with_retry_after(Duration::from_millis(ms));
        }
        if problem.ambiguous { e.ambiguous() } else { e }
    }
}
