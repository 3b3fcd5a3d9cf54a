//! A body that can be handed to the backend more than once.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{StreamExt, stream};
use storage_core::{Body, BodyStream, Bytes, Error, ErrorKind};

use crate::{Bodies, Operation, Replay};

/// A whole body is handed out as often as asked; a stream once.
pub(crate) enum ReplayBody {
    Whole(Bytes),
    Once(Mutex<Option<(BodyStream, Arc<AtomicU64>)>>, Arc<Bodies>),
}

impl ReplayBody {
    /// Takes a body over and enters what it means for the operation.
    pub(crate) fn new(body: Body, operation: &mut Operation<'_>) -> Self {
        if let Some(len) = body.len() {
            *operation.bytes.get_or_insert(0) += len;
        }
        let stream = match body {
            Body::Bytes(bytes) => return Self::Whole(bytes),
            Body::Stream(stream) => stream,
        };
        operation.replay = Replay::Never;
        let progress = operation.progress.get_or_insert_with(|| Arc::new(AtomicU64::new(0))).clone();
        let bodies = operation.bodies.get_or_insert_default().clone();
        Self::Once(Mutex::new(Some((stream, progress))), bodies)
    }

    /// The bytes of a whole body.
    pub(crate) fn whole_len(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Once(..) => 0,
        }
    }

    /// The body. A stream handed out before yields an error instead, so that nothing is stored.
    pub(crate) fn take(&self) -> Body {
        let (once, bodies) = match self {
            Self::Whole(bytes) => return Body::Bytes(bytes.clone()),
            Self::Once(once, bodies) => (once, bodies),
        };
        let Some((stream, progress)) = once.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Body::stream(stream::once(async {
                Err(Error::new(
                    ErrorKind::Other,
                    "a streamed body was sent twice; a layer ignored that it may be sent only once",
                ))
            }));
        };
        let declared = stream.declared_len();
        let counted = stream.inspect(move |piece| {
            if let Ok(piece) = piece {
                progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        });
        let wrapped = bodies.wrap(counted.boxed());
        match declared {
            Some(len) => Body::sized(len, wrapped),
            None => Body::stream(wrapped),
        }
    }
}
