//! Errors of the stores below, and of how they are put together.

use std::sync::Arc;

use storage_core::{Body, Error, ErrorKind};

use crate::names;

/// An error of the configuration.
pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// A store's error as the caller sees it: with the caller's key, and with the store's name where it is about the store.
pub(crate) fn above(store: &str, e: Error) -> Error {
    let e = e.map_key(|key| names::key_above(key).ok());
    let is_of_the_store = matches!(
        e.kind(),
        ErrorKind::Config
            | ErrorKind::Other
            | ErrorKind::PermissionDenied
            | ErrorKind::RateLimited
            | ErrorKind::Timeout
            | ErrorKind::Unauthenticated
            | ErrorKind::Unavailable
    );
    if !is_of_the_store {
        return e;
    }
    let mut named = Error::new(e.kind(), format!("store `{store}`: {}", e.message()));
    if e.is_ambiguous() {
        named = named.ambiguous();
    }
    if let Some(key) = e.key() {
        named = named.with_key(key);
    }
    if let Some(wait) = e.retry_after() {
        named = named.with_retry_after(wait);
    }
    named.with_source(e)
}

/// The same of a body on its way out.
pub(crate) fn body_above(store: &Arc<str>, body: Body) -> Body {
    let store = store.clone();
    body.map_err(move |e| above(&store, e))
}
