//! Answers that say no, as Google gives them: a status, and a code and a message as XML.

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use quick_xml::escape::escape;

/// What befell a connection.
pub(crate) type Failure = std::io::Error;
/// The body of a request or an answer, whole or streamed.
pub(crate) type Body = UnsyncBoxBody<Bytes, Failure>;
pub(crate) type Result<T> = std::result::Result<T, Refusal>;

/// A refusal. The codes are those of Google's reference.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// What this translator does not do.
    pub(crate) fn unknown(what: impl std::fmt::Display) -> Self {
        let message = format!("the translator before the emulator does not know {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(crate) fn no_bucket() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist.")
    }

    pub(crate) fn no_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.")
    }

    pub(crate) fn no_upload() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchUpload", "The requested upload was not found.")
    }

    pub(crate) fn precondition() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Self::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message)
    }

    /// The emulator is not there, or does not answer as it should.
    pub(crate) fn emulator(what: impl std::fmt::Display) -> Self {
        let message = format!("the emulator behind the translator: {what}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    pub(crate) fn answer(&self) -> Response<Body> {
        let text = format!("<Error><Code>{}</Code><Message>{}</Message></Error>", self.code, escape(&self.message));
        let mut answer = xml(&text);
        *answer.status_mut() = self.status;
        answer
    }
}

/// A body of a few bytes.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of XML.
pub(crate) fn xml(element: &str) -> Response<Body> {
    let text = format!("<?xml version='1.0' encoding='UTF-8'?>{element}");
    let mut answer = Response::new(whole(text));
    let kind = http::HeaderValue::from_static("application/xml; charset=UTF-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
