//! Our errors as theirs. Callers decide by the variant alone, and some try everything again that they do not know to be for good:
//! so only what may succeed later is `Generic`.

use object_store::{Error as CloudExtensions, GetRange, path::Path};
use storage_core::{ByteRange, Error, ErrorKind};

/// The name by which `Generic` errors call this store.
const STORE: &str = "storage";

type Source = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn failed(path: &Path, error: Error) -> CloudExtensions {
    native(path, error.kind(), error.into())
}

pub(super) fn not_found(path: &Path) -> CloudExtensions {
    CloudExtensions::NotFound { path: path.to_string(), source: "the key has no value".into() }
}

pub(super) fn not_supported(why: impl Into<Source>) -> CloudExtensions {
    CloudExtensions::NotSupported { source: why.into() }
}

fn native(path: &Path, kind: ErrorKind, source: Source) -> CloudExtensions {
    let path = path.to_string();
    match kind {
        ErrorKind::NotFound => CloudExtensions::NotFound { path, source },
        ErrorKind::NotModified => CloudExtensions::NotModified { path, source },
        ErrorKind::AlreadyExists => CloudExtensions::AlreadyExists { path, source },
        ErrorKind::PreconditionFailed => CloudExtensions::Precondition { path, source },
        ErrorKind::PermissionDenied => CloudExtensions::PermissionDenied { path, source },
        ErrorKind::Unauthenticated => CloudExtensions::Unauthenticated { path, source },
        ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::RateLimited
        | ErrorKind::Conflict
        | ErrorKind::Other => CloudExtensions::Generic { store: STORE, source },
        // It will be the same the next time: a key, range or size that is refused, a damaged value, a closed storage.
        _ => CloudExtensions::NotSupported { source },
    }
}

/// Of the two keys of a copy, that which the error is about.
pub(super) fn either<'p>(error: &Error, from: &'p Path, to: &'p Path) -> &'p Path {
    match error.kind() {
        ErrorKind::NotFound => from,
        _ => to,
    }
}

/// A range as the storage takes it. Whether it lies within the value is known later.
pub(super) fn range(range: &GetRange) -> Result<ByteRange, CloudExtensions> {
    range.is_valid().map_err(|e| not_supported(e.to_string()))?;
    Ok(match range {
        GetRange::Bounded(range) => ByteRange::Bounded(range.start, range.end),
        GetRange::Offset(start) => ByteRange::From(*start),
        GetRange::Suffix(n) => ByteRange::Suffix(*n),
    })
}
