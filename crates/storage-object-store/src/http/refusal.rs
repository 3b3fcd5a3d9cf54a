//! Requests that came to nothing: what the store said, or why it could not say anything.

use std::{error::Error as StdError, fmt, io, time::Duration};

use chrono::{DateTime, Utc};
use http::header::{HeaderMap, RETRY_AFTER};
use object_store::client::{HttpError, HttpErrorKind};
use storage_core::{Error, ErrorKind};

/// The longest wait that a store can ask for.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a cloud makes of a refusal: the kind, and a message that names the setting to change. `None` for what is best told by
/// the status alone.
pub type Explain = fn(&Refusal) -> Option<(ErrorKind, String)>;

/// An answer that is not the one that was asked for. The body of the answer is left out but for code and message, because
/// stores repeat tokens in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The status of HTTP.
    pub status: u16,
    /// The store's own code, empty where it says none.
    pub code: String,
    /// The store's own message.
    pub message: String,
    /// Where the bucket is, if the store says that.
    pub region: Option<String>,
    retry_after: Option<Duration>,
    means: Option<(ErrorKind, String)>,
    /// The service whose answer this is not.
    pub(crate) foreign: Option<&'static str>,
    /// Whether another request can say what this one left open.
    pub(crate) unsaid: bool,
}

impl Refusal {
    /// Whether this code of the store's is the cause of the error.
    #[must_use]
    pub fn is(error: &Error, code: &str) -> bool {
        let mut cause = std::error::Error::source(error);
        while let Some(e) = cause {
            if let Some(refusal) = e.downcast_ref::<Self>() {
                return refusal.code == code;
            }
            cause = e.source();
        }
        false
    }

    pub(crate) fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        let body = String::from_utf8_lossy(body);
        Self {
            status,
            // Azure says it in a header, too, which answers to HEAD have.
            code: element(&body, "Code").or_else(|| header("x-ms-error-code")).unwrap_or_default(),
            message: element(&body, "Message").unwrap_or_default(),
            region: header("x-amz-bucket-region").or_else(|| element(&body, "Region")),
            retry_after: headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()).and_then(wait),
            means: None,
            foreign: None,
            unsaid: false,
        }
    }

    /// The same as the answer of something before the service.
    pub(crate) fn by_another(self, service: &'static str) -> Self {
        Self { foreign: Some(service), code: String::new(), message: String::new(), ..self }
    }

    /// The same as an answer that leaves open what was asked for.
    pub(crate) fn left_open(self) -> Self {
        Self { unsaid: true, ..self }
    }

    /// Asks the cloud; says whether it knows.
    pub(crate) fn explained_by(&mut self, explain: Explain) -> bool {
        self.means = explain(self);
        self.means.is_some()
    }

    fn kind(&self) -> (ErrorKind, String) {
        if let Some(service) = self.foreign {
            return self.kind_of_another(service);
        }
        if let Some((kind, message)) = &self.means {
            return (*kind, message.clone());
        }
        if self.unsaid && (200..300).contains(&self.status) {
            let message = "the server does not say how long the value is, or something before it compresses values; it must send \
                           `Content-Length` or honour ranges";
            return (ErrorKind::Unsupported, message.to_owned());
        }
        let (kind, message) = match self.status {
            401 => (
                ErrorKind::Unauthenticated,
                "the store does not accept the credentials; check that they are right and not expired",
            ),
            403 => {
                (ErrorKind::PermissionDenied, "the store refuses access; grant the credentials the right to do this")
            }
            404 => (
                ErrorKind::NotFound,
                "the store does not know what was asked for; check the bucket or container, and the `endpoint`",
            ),
            408 => (ErrorKind::Timeout, "the store waited too long for the request"),
            409 => (ErrorKind::Conflict, "write conflict: another request changed the same object first; retry"),
            413 => (ErrorKind::TooLarge, "the store takes no value of this size"),
            416 => (ErrorKind::RangeNotSatisfiable, "the range starts beyond the end of the value"),
            429 => (ErrorKind::RateLimited, "the store takes no more requests at the moment; make fewer"),
            501 => (ErrorKind::Unsupported, "the store cannot do this"),
            507 => (ErrorKind::Unavailable, "the store has no space left"),
            511 => (ErrorKind::Unavailable, "the network wants a login before it lets requests through; log in"),
            // What begins as a success and then says that it is none, S3 wants to be taken for an error of its own.
            200..=299 | 500..=599 => (ErrorKind::Unavailable, "the store cannot answer at the moment; try again later"),
            300..=399 => (ErrorKind::Config, "the store is elsewhere; correct the endpoint or the region"),
            _ => (ErrorKind::Other, "the store refuses the request; see the cause"),
        };
        (kind, message.to_owned())
    }

    /// A proxy or load balancer may be right about itself, and knows nothing of objects.
    fn kind_of_another(&self, service: &'static str) -> (ErrorKind, String) {
        let kind = match self.status {
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::PermissionDenied,
            407 => ErrorKind::Config,
            408 => ErrorKind::Timeout,
            413 => ErrorKind::TooLarge,
            429 => ErrorKind::RateLimited,
            _ => ErrorKind::Unavailable,
        };
        let message = format!(
            "the server does not answer as {service} does, but with a page or redirect of its own (HTTP {}); check `endpoint`, and the \
             proxy, load balancer or login page before it",
            self.status
        );
        (kind, message)
    }

    /// Whether the store did nothing for sure.
    fn is_definite(&self) -> bool {
        matches!(self.status, 300..=407 | 409..=499 | 501 | 507) || self.kind().0 == ErrorKind::RateLimited
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answered {}", self.status)?;
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                write!(f, ", {part}")?;
            }
        }
        Ok(())
    }
}

impl StdError for Refusal {}

/// Whether the store says that something went wrong which it has no name for. Ceph says so to the losers of a race under
/// `If-Match`: another write came between its look at the etag and the comparison that guards the write itself.
pub(crate) fn is_ceph_race_loser(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(refusal) = e.downcast_ref::<Refusal>() {
            return refusal.status == 500 && refusal.code == "UnknownError";
        }
        cause = e.source();
    }
    false
}

/// Whether another request can say what this one left open: whether there is an object, or how long it is.
pub(crate) fn is_left_open(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(refusal) = e.downcast_ref::<Refusal>() {
            return refusal.unsaid;
        }
        cause = e.source();
    }
    false
}

/// The error of a request, and whether it certainly did nothing; `None` where the chain of causes holds no request.
pub(crate) fn explain(error: &(dyn StdError + 'static)) -> Option<(Error, bool)> {
    let mut cause = Some(error);
    let mut kind = None;
    while let Some(e) = cause {
        if let Some(own) = e.downcast_ref::<Error>() {
            return Some((own.clone(), true));
        }
        if let Some(refusal) = e.downcast_ref::<Refusal>() {
            let (kind, message) = refusal.kind();
            let mut error = Error::new(kind, message);
            if let Some(wait) = refusal.retry_after {
                error = error.with_retry_after(wait);
            }
            return Some((error, refusal.is_definite()));
        }
        if let Some(tls) = tls(e) {
            return Some((Error::new(ErrorKind::Config, certificate(tls)), true));
        }
        kind = kind.or_else(|| e.downcast_ref().map(HttpError::kind));
        cause = e.source();
    }
    let (kind, message, definite) = match kind? {
        HttpErrorKind::Connect => {
            (ErrorKind::Unavailable, "the store cannot be reached; check `endpoint` and the network", true)
        }
        HttpErrorKind::Timeout => {
            (ErrorKind::Timeout, "the store did not answer in time; try again, or raise `timeout`", false)
        }
        _ => (ErrorKind::Unavailable, "the connection to the store broke; try again", false),
    };
    Some((Error::new(kind, message), definite))
}

/// An error of TLS, which an error of the system may hide from the chain of causes.
fn tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let hidden = || tls(error.downcast_ref::<io::Error>()?.get_ref()?);
    error.downcast_ref().or_else(hidden)
}

fn certificate(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(_) => {
            "the certificate of the store is not trusted, or is for another name; check `endpoint`, or name the certificate of \
             its authority in `ca_file`"
        }
        rustls::Error::InvalidMessage(_) => {
            "the store does not speak TLS; write `http://` in `endpoint` if that is meant"
        }
        _ => "TLS handshake failed; check `endpoint` and `ca_file`",
    }
}

/// Seconds, or a date. More than a day is not meant.
fn wait(text: &str) -> Option<Duration> {
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(text).ok()?.to_utc();
            (until - Utc::now()).to_std().ok()?
        }
    };
    Some(asked.min(DAY))
}

/// The text of the first element of this name, as errors have it: without attributes, and nothing in it.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    Some(text.replace("&amp;", "&").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_message_and_wait_are_read_and_no_token() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, http::HeaderValue::from_static("7"));
        let body =
            b"<?xml?><Error><Code>InvalidToken</Code><Message>no &amp; no</Message><Token-0>hush</Token-0></Error>";
        let refusal = Refusal::new(400, &headers, body);
        assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("InvalidToken", "no & no"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        assert!(!format!("{refusal} {refusal:?}").contains("hush"));
    }

    #[test]
    fn no_wait_is_longer_than_a_day() {
        for long in ["18446744073709551615", "90000", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(wait(long), Some(DAY), "{long}");
        }
        assert_eq!((wait("60"), wait("soon"), wait("-1")), (Some(Duration::from_secs(60)), None, None));
    }

    #[test]
    fn what_may_have_happened_is_not_definite() {
        for (status, kind, definite) in [
            (500, ErrorKind::Unavailable, false),
            (503, ErrorKind::Unavailable, false),
            (429, ErrorKind::RateLimited, true),
            (408, ErrorKind::Timeout, false),
            (403, ErrorKind::PermissionDenied, true),
        ] {
            let refusal = Refusal::new(status, &HeaderMap::new(), b"not XML");
            let error = HttpError::new(HttpErrorKind::Unknown, refusal);
            let (error, certain) = explain(&error).unwrap();
            assert_eq!((error.kind(), certain), (kind, definite), "{status}");
        }
    }
}
