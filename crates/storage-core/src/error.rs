//! The one error type: what happened, whether trying again can help, and whether the outcome is known.

use std::{fmt, io, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Key;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $code:literal,)*) => {
        /// What kind of failure this is. Each kind exists because a caller would act differently on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* #[serde(rename = $code)] $kind,)* }

        impl ErrorKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[ErrorKind] = &[$(Self::$kind,)*];

            /// The stable machine code, for logs and wire formats. It never changes between releases.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }
        }
    };
}
kinds! {
    /// The string is not a key: empty, too long for this backend, or with a NUL.
    InvalidKey "invalid_key",
    /// An argument is wrong in itself: a float that is not finite, a body of another length than declared.
    InvalidInput "invalid_input",
    /// The configuration is wrong: an unknown option, a bad URI, a setting out of range.
    Config "config",
    /// This backend cannot do what was asked; nothing was done.
    Unsupported "unsupported",
    /// Something that must exist does not: the source of a copy, the bucket, the table.
    NotFound "not_found",
    /// A read with `if_none_match` found the etag unchanged.
    NotModified "not_modified",
    /// A write with `IfAbsent` found a value.
    AlreadyExists "already_exists",
    /// The etag is not (or no longer) the one named.
    PreconditionFailed "precondition_failed",
    /// Another writer was faster, or a value changed while it was read. Doing the whole thing again can succeed.
    Conflict "conflict",
    /// The range starts beyond the end of the value.
    RangeNotSatisfiable "range_not_satisfiable",
    /// A value or metadata is larger than [`Limits`](crate::Limits) allow.
    TooLarge "too_large",
    /// The store knows who is calling and refuses.
    PermissionDenied "permission_denied",
    /// The store does not accept the credentials.
    Unauthenticated "unauthenticated",
    /// Too many requests; see [`Error::retry_after`].
    RateLimited "rate_limited",
    /// No answer in time.
    Timeout "timeout",
    /// The store cannot be reached or cannot serve at the moment (also: the disk is full).
    Unavailable "unavailable",
    /// What is stored does not read back as what was written.
    Corrupt "corrupt",
    /// The handle was disconnected, or the transaction has ended.
    Closed "closed",
    /// Anything else; see [`std::error::Error::source`].
    Other "other",
}

impl ErrorKind {
    /// Whether the same call, made again later, can succeed without anybody changing anything.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::RateLimited | Self::Timeout | Self::Unavailable)
    }
}

/// A failed operation.
///
/// `Display` gives one line for people: backend, operation, key, message. The cause is in
/// [`source`](std::error::Error::source); `Debug` shows everything. None of them contains a secret. A clone shares the cause.
#[derive(Clone)]
pub struct Error(Box<Inner>); // One pointer wide, so that moving a `Result<Entry>` stays cheap.

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    ambiguous: bool,
    operation: Option<&'static str>,
    key: Option<Key>,
    backend: Option<Arc<str>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a definite outcome. The message is lowercase, without a final stop, and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            ambiguous: false,
            operation: None,
            key: None,
            backend: None,
            retry_after: None,
            source: None,
        }))
    }

    /// `Unsupported`: `what` names the refused operation or option.
    #[must_use]
    pub fn unsupported(what: &str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("this backend does not support {what}; see its capabilities"))
    }

    /// `Closed`: what every call after `disconnect` returns.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the storage was disconnected; connect again to use it")
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// [`ErrorKind::code`] of the kind.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    /// The message without backend, operation and key.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// [`ErrorKind::is_retryable`] of the kind.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// Whether the operation may have taken effect although it failed (the answer was lost). Otherwise the outcome is
    /// definite: nothing was done.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.0.ambiguous
    }

    /// How long the store asked to wait before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The operation that failed, as the trait's method is called.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The key concerned.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// The id of the backend concerned.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }

    /// The same error, its outcome unknown.
    #[must_use]
    pub fn ambiguous(mut self) -> Self {
        self.0.ambiguous = true;
        self
    }

    /// The same error of what nobody will see.
    pub(crate) fn definite(mut self) -> Self {
        self.0.ambiguous = false;
        self
    }

    /// Names the key, unless one is named already.
    #[must_use]
    pub fn with_key(mut self, key: &Key) -> Self {
        self.0.key.get_or_insert_with(|| key.clone());
        self
    }

    /// Passes the key, if one is named, through a function: for layers that store values under other keys.
    #[must_use]
    pub fn map_key(mut self, f: impl FnOnce(Key) -> Option<Key>) -> Self {
        self.0.key = self.0.key.take().and_then(f);
        self
    }

    /// Names the operation, unless one is named already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the backend, unless one is named already.
    #[must_use]
    pub fn with_backend(mut self, id: &Arc<str>) -> Self {
        self.0.backend.get_or_insert_with(|| id.clone());
        self
    }

    /// Adds how long to wait before the next try.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds the cause. The caller makes sure that its text holds no secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Of what the `Arc` holds, so that it can be downcast.
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// For code that reads and writes through `std::io`; the error itself is the source.
impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        let kind = match e.kind() {
            ErrorKind::InvalidKey | ErrorKind::InvalidInput | ErrorKind::Config => io::ErrorKind::InvalidInput,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => io::ErrorKind::PermissionDenied,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { backend, operation, key, message, .. } = &*self.0;
        if let Some(backend) = backend {
            write!(f, "{backend}: ")?;
        }
        if let Some(operation) = operation {
            write!(f, "{operation}{}", if key.is_some() { " " } else { ": " })?;
        }
        if let Some(key) = key {
            write!(f, "{key:?}: ")?;
        }
        f.write_str(message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({}", self.code())?;
        if self.is_ambiguous() {
            f.write_str(", outcome unknown")?;
        }
        f.write_str(")")?;
        let mut cause = std::error::Error::source(self);
        while let Some(e) = cause {
            write!(f, ": {e}")?;
            cause = e.source();
        }
        Ok(())
    }
}
