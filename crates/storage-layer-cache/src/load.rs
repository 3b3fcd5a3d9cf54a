//! One read for all who want the same value at the same time.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{FutureExt, future::Shared};
use storage_core::{Body, BoxFuture, Bytes, Entry, ErrorKind, GetOptions, Object, Result, StorageBackend};

use crate::{table::Ticket, value::Value};

/// Any of the readers drives it. It goes on while one of them is left, and is dropped with the last.
pub(crate) type SharedLoad = Shared<Loading>;
pub(crate) type Loading = BoxFuture<'static, Result<Loaded>>;

/// What a load found.
#[derive(Clone)]
pub(crate) enum Loaded {
    /// A value small enough to be shared.
    Read(Arc<Value>),
    /// The value that was known is still the current one.
    Known(Arc<Value>),
    Absent,
    /// A value for one reader only, the first that takes it.
    Large(Arc<Mutex<Option<Object>>>),
}

impl Loaded {
    pub(crate) fn large(object: Object) -> Self {
        Self::Large(Arc::new(Mutex::new(Some(object))))
    }
}

/// What a large value's first taker gets.
pub(crate) fn take(large: &Mutex<Option<Object>>) -> Option<Object> {
    large.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Reads the current value, or asks whether it is still the one that is known.
pub(crate) fn load<S: StorageBackend + ?Sized>(
    inner: Arc<S>,
    ticket: Ticket,
    whole: bool,
    max: u64,
    known: Option<Arc<Value>>,
) -> SharedLoad {
    let load = async move {
        let mut options = GetOptions::new().prefer_buffered(whole);
        options.if_none_match = known.as_ref().and_then(|known| known.entry.etag.clone());
        match inner.get(ticket.key(), options).await {
            Ok(Some(object)) => match read(object, max).await? {
                Read::Small(entry, bytes) => Ok(Loaded::Read(ticket.keep(entry, bytes))),
                Read::Large(object) => {
                    ticket.forget();
                    Ok(Loaded::large(object))
                }
            },
            Ok(None) => {
                ticket.forget();
                Ok(Loaded::Absent)
            }
            Err(e) => match known {
                Some(known) if e.kind() == ErrorKind::NotModified => Ok(Loaded::Known(known)),
                _ => Err(e),
            },
        }
    };
    load.boxed().shared()
}

/// A value that was read below.
pub(crate) enum Read {
    /// All of it, checked to be as long as its entry says.
    Small(Entry, Bytes),
    /// Untouched.
    Large(Object),
}

/// Collects a value of at most `max` bytes.
///
/// # Errors
/// `Unavailable` when the body is not as long as the entry says; what its stream ends in.
pub(crate) async fn read(object: Object, max: u64) -> Result<Read> {
    let size = object.entry.size;
    if size > max {
        return Ok(Read::Large(object));
    }
    let body = object.body;
    let body = if body.len() == Some(size) { body } else { Body::from_backend(size, body.into_stream()) };
    Ok(Read::Small(object.entry, body.bytes(size).await?))
}
