//! The only place where an error of the store becomes an [`ErrorKind`].

use std::{error::Error as _, io};

use object_store::Error as NativeError;
use storage_core::{Error, ErrorKind, Etag};

/// A failed read, or a write that certainly did not happen.
pub(crate) fn read(error: NativeError) -> Error {
    #[cfg(feature = "http")]
    if let Some((known, _)) = requested(&error) {
        return known.with_source(error);
    }
    let (kind, message) = explain(&error);
    Error::new(kind, message).with_source(error)
}

/// What the store or the network said about a request, where the error itself does not say more.
#[cfg(feature = "http")]
fn requested(error: &NativeError) -> Option<(Error, bool)> {
    let source = match error {
        NativeError::Generic { source, .. } => source,
        // Who hands out credentials may not be able to at the moment.
        NativeError::Unauthenticated { .. } => {
            return crate::http::explain(error).filter(|(known, _)| known.is_retryable());
        }
        _ => return None,
    };
    match code_of_an_item(&source.to_string()) {
        Some("AccessDenied" | "403") => Some((
            Error::new(ErrorKind::PermissionDenied, "the credentials have no right to delete this; grant it"),
            true,
        )),
        Some(_) => Some((Error::new(ErrorKind::Unavailable, "the store could not delete this; try again"), false)),
        None => crate::http::explain(error),
    }
}

/// The code of one item of a bulk request, which is nowhere but in the text.
fn code_of_an_item(text: &str) -> Option<&str> {
    let starts = ["DeleteObjects request failed", "Bulk delete request failed for key"];
    let of_an_item = starts.iter().any(|start| text.starts_with(start));
    let (_, code) = text.rsplit_once("(code: ").filter(|_| of_an_item)?;
    Some(code.trim_end_matches(')'))
}

/// Whether a bulk request could not delete this item of it, which may go by a request of its own.
pub(crate) fn is_left_by_bulk(error: &NativeError) -> bool {
    let NativeError::Generic { source, .. } = error else { return false };
    code_of_an_item(&source.to_string()).is_some_and(|code| !matches!(code, "AccessDenied" | "403"))
}

/// A failed write. Unless the store said why it refused, it may have happened all the same.
pub(crate) fn write(error: NativeError) -> Error {
    #[cfg(feature = "http")]
    if let Some((known, definite)) = requested(&error) {
        let known = known.with_source(error);
        return if definite { known } else { known.ambiguous() };
    }
    let cause = input_output(&error).map(io::Error::kind);
    let refused = matches!(cause, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
    let error = read(error);
    match error.kind() {
        ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Other if !refused => error.ambiguous(),
        _ => error,
    }
}

/// A failed write that does not mind what is there. `object_store` takes each conflict for a value that exists already.
pub(crate) fn overwrite(error: NativeError) -> Error {
    match error {
        NativeError::AlreadyExists { .. } => {
            Error::new(ErrorKind::Conflict, "another write of the same key was under way; try again").with_source(error)
        }
        error => write(error),
    }
}

/// A failed write that a store's own call has explained, but for whether it may have happened all the same.
pub(crate) fn mark_ambiguous(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Other => error.ambiguous(),
        _ => error,
    }
}

/// A conditional write that a store like Ceph refused because another one was faster.
#[cfg(feature = "http")]
pub(crate) fn is_lost_race(error: &NativeError) -> bool {
    crate::http::is_ceph_race_loser(error)
}

/// No store in this process does that.
#[cfg(not(feature = "http"))]
pub(crate) fn is_lost_race(_: &NativeError) -> bool {
    false
}

/// A read that another request can say more about.
#[cfg(feature = "http")]
pub(crate) fn is_left_open(error: &NativeError) -> bool {
    crate::http::is_left_open(error)
}

/// No store in this process leaves anything open.
#[cfg(not(feature = "http"))]
pub(crate) fn is_left_open(_: &NativeError) -> bool {
    false
}

/// Whether the store knows an upload, or its parts, no more, and whether that is because another write has ended it, as on Azure.
#[cfg(feature = "http")]
pub(crate) fn no_upload(error: &Error) -> Option<bool> {
    let is = |code: &&str| crate::http::Refusal::is(error, code);
    let by_another = ["InvalidBlockList", "InvalidBlobOrBlock", "InvalidBlockId"].iter().any(is);
    (by_another || is(&"NoSuchUpload")).then_some(by_another)
}

/// No store in this process says that.
#[cfg(not(feature = "http"))]
pub(crate) fn no_upload(_: &Error) -> Option<bool> {
    None
}

/// A write or read under `IfMatch` that did not find the value; stores differ in what they say when there is none.
pub(crate) fn mismatch(etag: &Etag) -> Error {
    Error::new(ErrorKind::PreconditionFailed, format!("the value does not have the etag {etag}; read it again"))
}

/// A read with `if_none_match` of a value that is still the same.
pub(crate) fn not_modified() -> Error {
    Error::new(ErrorKind::NotModified, "the value still has this etag")
}

/// A value that was replaced between the two requests that read it.
pub(crate) fn changed() -> Error {
    Error::new(ErrorKind::Conflict, "the value was written while it was read; read it again")
}

/// A directory that cannot be made.
pub(crate) fn directory(error: io::Error) -> Error {
    let (kind, message) = system(error.kind());
    Error::new(kind, message).with_source(error)
}

/// A blocking task that ended early.
pub(crate) fn task(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Other, "the runtime ended a task").with_source(error)
}

fn explain(error: &NativeError) -> (ErrorKind, &'static str) {
    match error {
        NativeError::NotFound { .. } => (
            ErrorKind::NotFound,
            "the bucket, container or directory does not exist; create it or correct the configuration",
        ),
        NativeError::AlreadyExists { .. } => (ErrorKind::AlreadyExists, "the key has a value already"),
        NativeError::Precondition { .. } => {
            (ErrorKind::PreconditionFailed, "the value has another etag; read it again")
        }
        NativeError::NotModified { .. } => (ErrorKind::NotModified, "the value still has this etag"),
        NativeError::NotSupported { .. } | NativeError::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "the store cannot do this; see its capabilities")
        }
        NativeError::PermissionDenied { .. } => {
            (ErrorKind::PermissionDenied, "the store refuses access; grant the credentials the right to do this")
        }
        NativeError::Unauthenticated { .. } => (
            ErrorKind::Unauthenticated,
            "the store does not accept the credentials; check that they are right and not expired",
        ),
        NativeError::UnknownConfigurationKey { .. } => (ErrorKind::Config, "the store does not know this setting"),
        NativeError::InvalidPath { .. } => (
            ErrorKind::Other,
            "the store holds an object whose name object_store cannot express; rename or remove that object",
        ),
        other => input_output(other)
            .map_or((ErrorKind::Other, "the store failed; see the cause"), |cause| system(cause.kind())),
    }
}

/// The operating system's error at the root of it, if there is one.
fn input_output(error: &NativeError) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

fn system(kind: io::ErrorKind) -> (ErrorKind, &'static str) {
    use io::ErrorKind as Io;
    match kind {
        Io::NotFound => (ErrorKind::NotFound, "a directory does not exist; create it or correct the configuration"),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            (ErrorKind::PermissionDenied, "access is refused; grant this process the right to do this")
        }
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Unavailable, "the disk is full; free some space"),
        Io::TimedOut => (ErrorKind::Timeout, "the store did not answer in time"),
        Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::ConnectionAborted
        | Io::NotConnected
        | Io::BrokenPipe
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::NetworkDown
        | Io::UnexpectedEof => {
            (ErrorKind::Unavailable, "the store cannot be reached; check the address and the network")
        }
        Io::NotADirectory | Io::AlreadyExists | Io::IsADirectory => {
            (ErrorKind::Config, "there is something else where a directory must be; correct the configuration")
        }
        _ => (ErrorKind::Other, "the store failed; see the cause"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(kind: io::ErrorKind) -> NativeError {
        NativeError::Generic { store: "test", source: io::Error::from(kind).into() }
    }

    #[test]
    fn an_unexplained_write_is_ambiguous_and_a_refused_one_is_not() {
        let reset = write(generic(io::ErrorKind::ConnectionReset));
        assert!(reset.kind() == ErrorKind::Unavailable && reset.is_ambiguous());
        let full = write(generic(io::ErrorKind::StorageFull));
        assert!(full.kind() == ErrorKind::Unavailable && !full.is_ambiguous());
        let unknown = write(generic(io::ErrorKind::InvalidData));
        assert!(unknown.kind() == ErrorKind::Other && unknown.is_ambiguous());
        let denied = write(NativeError::PermissionDenied { path: "a".into(), source: "no".into() });
        assert!(denied.kind() == ErrorKind::PermissionDenied && !denied.is_ambiguous());
    }
}
