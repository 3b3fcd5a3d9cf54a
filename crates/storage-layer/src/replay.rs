//! A body that can be handed to the backend more than once.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{Stream, StreamExt, stream};
use storage_core::{Body, Buffer, ByteStream, Bytes, Error, ErrorKind, Result};

use crate::{Bodies, Operation, Retryability};

/// A body in memory or a replayable one is handed out as often as asked; a plain stream once.
pub(crate) enum ReplayBody {
    Memory(Buffer),
    Stream(Mutex<Option<Body>>, Watched),
}

/// What goes around a streamed body.
#[derive(Clone)]
pub(crate) struct Watched {
    progress: Arc<AtomicU64>,
    bodies: Arc<Bodies>,
}

impl Watched {
    fn wrap(&self, pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> ByteStream {
        let progress = self.progress.clone();
        let counted = pieces.inspect(move |piece| {
            if let Ok(piece) = piece {
                progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        });
        self.bodies.wrap(counted.boxed())
    }
}

impl ReplayBody {
    /// Takes a body over and enters what it means for the operation.
    pub(crate) fn new(body: Body, operation: &mut Operation<'_>) -> Self {
        if let Some(len) = body.len() {
            *operation.bytes.get_or_insert(0) += len;
        }
        if let Some(buffer) = body.buffer() {
            return Self::Memory(buffer.clone());
        }
        let watched = Watched {
            progress: operation.progress.get_or_insert_default().clone(),
            bodies: operation.bodies.get_or_insert_default().clone(),
        };
        if body.try_clone().is_none() {
            operation.replay = Retryability::Never;
        }
        Self::Stream(Mutex::new(Some(body)), watched)
    }

    /// The bytes of a body in memory.
    pub(crate) fn whole_len(&self) -> u64 {
        match self {
            Self::Memory(buffer) => buffer.len(),
            _ => 0,
        }
    }

    /// The body. A stream handed out before yields an error instead, so that nothing is stored.
    pub(crate) fn take(&self) -> Body {
        let (body, watched) = match self {
            Self::Memory(buffer) => return buffer.clone().into(),
            Self::Stream(body, watched) => (body, watched.clone()),
        };
        let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
        let again = body.as_ref().and_then(Body::try_clone);
        match again.or_else(|| body.take()) {
            Some(body) => body.map_replayable(move |pieces| watched.wrap(pieces)),
            None => Body::stream(stream::once(async {
                Err(Error::new(
                    ErrorKind::Other,
                    "a streamed body was sent twice; a layer ignored that it may be sent only once",
                ))
            })),
        }
    }
}
