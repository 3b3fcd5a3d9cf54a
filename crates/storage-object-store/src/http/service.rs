//! Whose answer it is: the service's own, or that of something before it, such as a load balancer, a console or a login page.
//!
//! The services say who answers by a header, and every error by an element `Error` of XML. A page that somebody else answers with
//! has neither, whatever its status.

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG},
    request, response,
};
use storage_core::{Error, ErrorKind};

use super::answer::root;

/// What tells the answers of a service from those of others.
#[derive(Debug)]
#[non_exhaustive]
pub struct Service {
    /// As messages name it.
    pub name: &'static str,
    /// Headers, in lower case, of which each answer of the service has one, and no other server's has any.
    pub marks: &'static [&'static str],
    /// The codes by which it says that an object, or this version of it, does not exist.
    pub absent: &'static [&'static str],
    /// Whether each object has an etag. That of an object without one is then no answer of the service.
    pub etags: bool,
    /// The header that names the coding of the bytes that are stored, where the service may answer with others.
    pub stored_coding: Option<&'static str>,
}

impl Service {
    /// A service of this name, with all else to be set.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, marks: &[], absent: &[], etags: false, stored_coding: None }
    }

    /// An answer to a request that is not what the service answers, for a caller that read it.
    #[must_use]
    pub fn malformed_response(&self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let message =
            format!("the server does not answer as {} does; check `endpoint` and what stands before it", self.name);
        Error::new(ErrorKind::Unavailable, message).with_source(Strange(cause.into()))
    }

    /// Checks that an answer of XML is one of these elements.
    ///
    /// # Errors
    /// `Unavailable` for any other, as a page of a proxy.
    pub fn expect(&self, body: &[u8], elements: &[&str]) -> Result<(), Error> {
        match root(body) {
            Some(root) if elements.contains(&root) => Ok(()),
            root => {
                let found = root.map_or("no XML".to_owned(), |root| format!("the element {root:?}"));
                Err(self.malformed_response(format!("expected one of the elements {elements:?}, found {found}")))
            }
        }
    }

    /// The error of the first request to a server: an answer of another sort says that the address is wrong.
    #[must_use]
    pub fn at_connect(&self, error: Error) -> Error {
        let mut cause = StdError::source(&error);
        while let Some(e) = cause {
            let refusal = e.downcast_ref::<super::Refusal>();
            // A proxy that is busy, or wants to know who asks, may stand before the right server.
            let address = |status| matches!(status, 200..=400 | 402 | 404..=407 | 409..=428);
            let astray = refusal.is_some_and(|refusal| refusal.foreign.is_some() && address(refusal.status));
            if astray || e.is::<Strange>() {
                let message = format!(
                    "the server does not answer as {} does; check that `endpoint` is its address and port, not those of a console, a \
                     login page or a proxy",
                    self.name
                );
                return Error::new(ErrorKind::Config, message).with_source(error);
            }
            cause = e.source();
        }
        error
    }
}

/// Marks the error of an answer that is not the service's.
#[derive(Debug)]
struct Strange(Box<dyn StdError + Send + Sync>);

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Strange {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// A service at its address.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) service: &'static Service,
    base: Option<reqwest::Url>,
    seen: Arc<Seen>,
}

/// Whether answers had a mark while the store was connected.
#[derive(Default)]
struct Seen {
    marked: AtomicBool,
    unmarked: AtomicBool,
    connected: AtomicBool,
}

/// What is to be made of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Own,
    /// Somebody else's.
    Foreign,
    /// Another request can say what this one does not.
    Unsaid,
}

impl Located {
    pub(super) fn new(service: &'static Service, base: &str) -> Self {
        Self { service, base: reqwest::Url::parse(base).ok(), seen: Arc::default() }
    }

    /// From now on, an answer without a mark is somebody else's, if all had one so far.
    pub(super) fn connected(&self) {
        self.seen.connected.store(true, Ordering::Release);
    }

    /// Whether a request is for the bucket or container, not for credentials.
    pub(super) fn has(&self, uri: &Uri) -> bool {
        self.below(uri).is_some()
    }

    /// Whether a request is for an object.
    pub(super) fn is_object(&self, asked: &request::Parts) -> bool {
        self.below(&asked.uri).is_some_and(|path| path.len() > 1)
    }

    /// What of the path stands behind that of the bucket.
    fn below(&self, uri: &Uri) -> Option<String> {
        let (base, url) = (self.base.as_ref()?, reqwest::Url::parse(&uri.to_string()).ok()?);
        let host = |url: &reqwest::Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
        if host(base) != host(&url) {
            return None;
        }
        // `object_store` encodes more of a bucket's name than must be.
        let path = decode(url.path());
        let below = path.strip_prefix(decode(base.path()).trim_end_matches('/'))?;
        (below.is_empty() || below.starts_with('/')).then(|| below.to_owned())
    }

    fn is_marked(&self, headers: &HeaderMap) -> bool {
        self.service.marks.iter().any(|mark| headers.contains_key(*mark))
    }

    /// What is to be made of a good status, as far as the headers say it.
    pub(super) fn success(&self, asked: &request::Parts, parts: &response::Parts) -> Verdict {
        let marked = self.is_marked(&parts.headers);
        let reads = asked.method == Method::GET || asked.method == Method::HEAD;
        if !self.seen.connected.load(Ordering::Acquire) {
            let seen = if marked { &self.seen.marked } else { &self.seen.unmarked };
            seen.store(true, Ordering::Release);
        } else if !marked && self.seen.marked.load(Ordering::Acquire) && !self.seen.unmarked.load(Ordering::Acquire) {
            return if asked.method == Method::HEAD { Verdict::Unsaid } else { Verdict::Foreign };
        }
        let described = matches!(parts.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        let etag_needed = described && (self.service.etags || !marked);
        if reads && self.is_object(asked) && etag_needed && !parts.headers.contains_key(ETAG) {
            return Verdict::Foreign;
        }
        Verdict::Own
    }

    /// Whether the body of an answer to a request that writes is what the service answers to it.
    pub(super) fn is_answer(&self, asked: &request::Parts, parts: &response::Parts, body: &[u8]) -> bool {
        let root = root(body);
        if is_told(asked) {
            // Amazon calls it the result of the operation, and some servers its response or output.
            return root.is_some_and(|root| ["Result", "Response", "Output"].iter().any(|end| root.ends_with(end)));
        }
        let kind = parts.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes()).unwrap_or_default();
        if asked.method == Method::POST {
            // Azure's batch.
            return kind.starts_with(b"multipart/mixed");
        }
        match root {
            Some(root) => !root.eq_ignore_ascii_case("html"),
            None => body.trim_ascii().is_empty(),
        }
    }

    /// What is to be made of a status that says no.
    pub(super) fn refusal(&self, asked: &request::Parts, parts: &response::Parts, body: &[u8]) -> Verdict {
        let marked = self.is_marked(&parts.headers);
        let says_so = root(body) == Some("Error");
        let page = !says_so && !body.trim_ascii().is_empty();
        let foreign = match parts.status {
            StatusCode::NOT_MODIFIED => false,
            // Nothing but a mark says whose an answer without a body is.
            StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED
                if asked.method == Method::HEAD =>
            {
                return if marked { Verdict::Own } else { Verdict::Unsaid };
            }
            StatusCode::NOT_FOUND => page || !says_so && !marked,
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => page,
            status if status.is_redirection() => !says_so && !marked,
            _ => page && !marked,
        };
        if foreign { Verdict::Foreign } else { Verdict::Own }
    }

    /// Whether an answer holds other bytes than those that are stored, since the service has decoded them.
    pub(super) fn is_decoded(&self, headers: &HeaderMap) -> bool {
        let Some(stored) = self.service.stored_coding.and_then(|name| headers.get(name)) else { return false };
        let coding = headers.get(CONTENT_ENCODING).map(|coding| coding.as_bytes());
        stored.as_bytes() != b"identity" && !stored.is_empty() && coding != Some(stored.as_bytes())
    }
}

/// Whether something on the way has encoded the bytes: then their length is not known, or the etag says that it is not exact.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    let weak = headers.get(ETAG).is_some_and(|etag| etag.as_bytes().starts_with(b"W/"));
    headers.contains_key(CONTENT_ENCODING) && (weak || !headers.contains_key(CONTENT_LENGTH))
}

/// Whether the answer to a request that writes is an element, which tells the outcome.
fn is_told(asked: &request::Parts) -> bool {
    let copies = ["x-amz-copy-source", "x-goog-copy-source"].iter().any(|copy| asked.headers.contains_key(*copy));
    let mut names = asked.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split('=').next());
    copies || asked.method == Method::POST && names.any(|name| matches!(name, "delete" | "uploads" | "uploadId"))
}

fn decode(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}
