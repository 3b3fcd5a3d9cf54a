//! The only place where errors of the node, of a gateway and of HTTP become kinds.

use std::{error::Error as _, fmt};

use http::StatusCode;
use serde::Deserialize;
use storage_core::{Error, ErrorKind};

/// How an RPC call fails: status 500 with this as JSON.
#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "Message")]
    message: String,
}

/// What the node said, as the source of what it became. It names paths and content identifiers, never values.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node says: {}", self.0)
    }
}

impl std::error::Error for Said {}

const DOWN: &str = "the IPFS node cannot be reached; check the address, and that the daemon runs";
const BROKEN: &str = "the connection to the IPFS node broke; try again";
const SLOW: &str = "the IPFS node did not answer in time; try again, or raise `timeout`";
const NO_NODE: &str =
    "there is no RPC API of Kubo at this address; name that of the daemon, usually `http://127.0.0.1:5001`";

/// A request that failed before there was an answer, or whose answer broke off.
pub(crate) fn from_http(e: reqwest::Error) -> Error {
    let (kind, message) = match &e {
        e if e.is_timeout() => (ErrorKind::Timeout, SLOW),
        e if e.is_builder() => (ErrorKind::Config, NO_NODE),
        e if e.is_connect() => (ErrorKind::Unavailable, DOWN),
        _ => (ErrorKind::Unavailable, BROKEN),
    };
    // The address may hold a password.
    Error::new(kind, message).with_source(e.without_url())
}

/// The same of the crate that some calls go through.
pub(crate) fn from_client(e: ipfs_api_backend_hyper::Error) -> Error {
    use ipfs_api_backend_hyper::Error as Client;
    match e {
        Client::Api(e) => from_message(&e.message),
        Client::Client(e) if e.is_connect() => Error::new(ErrorKind::Unavailable, DOWN).with_source(e),
        Client::Client(e) => Error::new(ErrorKind::Unavailable, BROKEN).with_source(e),
        // Its texts repeat the answer, which may be anything.
        _ => Error::new(ErrorKind::Config, NO_NODE),
    }
}

/// An answer other than 200.
pub(crate) fn from_status(status: StatusCode, body: &[u8]) -> Error {
    let (kind, message) = match status {
        StatusCode::UNAUTHORIZED => (
            ErrorKind::Unauthenticated,
            "the IPFS node wants other credentials; check user and password of the address, or `token`",
        ),
        StatusCode::FORBIDDEN => (
            ErrorKind::PermissionDenied,
            "the IPFS node refuses this client; check `API.Authorizations` in its configuration",
        ),
        StatusCode::TOO_MANY_REQUESTS => {
            (ErrorKind::RateLimited, "the IPFS node has too many requests; try again later")
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => (ErrorKind::Unavailable, DOWN),
        StatusCode::GATEWAY_TIMEOUT => (ErrorKind::Timeout, SLOW),
        status => {
            return match serde_json::from_slice::<Refusal>(body) {
                Ok(refusal) => from_message(&refusal.message),
                Err(_) if status.is_server_error() => {
                    Error::new(ErrorKind::Unavailable, "the IPFS node failed; try again")
                }
                Err(_) => no_node(),
            };
        }
    };
    Error::new(kind, message)
}

/// What the node says when it fails. It has no codes, so there is nothing else to go by.
pub(crate) fn from_message(message: &str) -> Error {
    let has = |part: &str| message.contains(part);
    let (kind, what) = if has("not pinned") {
        (ErrorKind::NotFound, "the content is not pinned on the IPFS node")
    } else if has("not found") || has("could not find") || has("does not exist") {
        (ErrorKind::NotFound, "the IPFS node does not have what was asked for")
    } else if has("context deadline exceeded") {
        (ErrorKind::Timeout, SLOW)
    } else if has("no space left") {
        (ErrorKind::Unavailable, "the disk of the IPFS node is full; free some space")
    } else if has("context canceled") || has("shutting down") || has("closed") {
        (ErrorKind::Unavailable, BROKEN)
    } else {
        (ErrorKind::Other, "the IPFS node refused the call")
    };
    let short: String = message.chars().take(300).collect();
    Error::new(kind, what).with_source(Said(short))
}

/// What the node says behind an answer that began well.
pub(crate) fn from_trailer(message: &str) -> Error {
    let e = from_message(message);
    match e.kind() {
        ErrorKind::Other => cut_short().with_source(e),
        _ => e,
    }
}

pub(crate) fn is_not_found(e: &Error) -> bool {
    e.kind() == ErrorKind::NotFound && e.source().is_some()
}

pub(crate) fn no_node() -> Error {
    Error::new(ErrorKind::Config, NO_NODE)
}

pub(crate) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, SLOW)
}

/// An answer with status 200 that is not what the call answers.
pub(crate) fn unreadable() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the answer of the IPFS node is not readable; try again, and check what stands before the node",
    )
}

/// The answer ended before its end.
pub(crate) fn cut_short() -> Error {
    Error::new(ErrorKind::Unavailable, "the answer of the IPFS node broke off; try again")
}

/// A value that the index names, and the node does not have.
pub(crate) fn missing() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the index names content that the IPFS node does not have; bring its blocks back, by import or from another node",
    )
}

pub(crate) fn read_only() -> Error {
    Error::new(ErrorKind::PermissionDenied, "the store is read through a gateway; connect to a node to write")
}

pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
