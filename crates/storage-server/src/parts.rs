//! The body of a resumable upload, cut into parts that are stored as they come: what came before a break is kept; and how they are read again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use storage_core::{ByteStream, Error, ErrorKind, GetOptions, Key, ListItem, ListOptions, Storage};
use storage_rest_wire::Problem;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    answer::Failure,
    app::App,
    body::{Digests, Paced},
};

/// The most bytes of a part, and of what a kill in the midst of a request loses.
const PART: u64 = 8 << 20;

/// How a body ended.
#[derive(Debug)]
pub(crate) enum End {
    Whole,
    Failed(Failure),
    /// Another request has come for the same upload.
    TakenOver,
}

/// A body on its way in.
#[derive(Clone)]
pub(crate) struct Parts(Arc<Mutex<Source>>);

struct Source {
    pieces: Paced,
    failed: Arc<OnceLock<Problem>>,
    taken_over: Pin<Box<WaitForCancellationFutureOwned>>,
    left: Bytes,
    end: Option<End>,
}

impl Parts {
    pub(crate) fn new(app: &App, body: Body, most: u64, digests: Digests, taken_over: CancellationToken) -> Self {
        let failed = Arc::new(OnceLock::new());
        let mut pieces = Paced::new(app, body, most, failed.clone());
        pieces.digests = digests;
        let taken_over = Box::pin(taken_over.cancelled_owned());
        Self(Arc::new(Mutex::new(Source { pieces, failed, taken_over, left: Bytes::new(), end: None })))
    }

    /// The next part, if there is one more byte at least.
    pub(crate) async fn next(&self) -> Option<impl Stream<Item = Result<Bytes, Error>> + Send + 'static> {
        if !std::future::poll_fn(|cx| self.lock().poll_fill(cx)).await {
            return None;
        }
        let (parts, mut room) = (self.clone(), PART);
        Some(stream::poll_fn(move |cx| {
            let mut source = parts.lock();
            if room == 0 || !ready!(source.poll_fill(cx)) {
                return Poll::Ready(None);
            }
            let len = source.left.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            room -= len as u64;
            Poll::Ready(Some(Ok(source.left.split_to(len))))
        }))
    }

    /// How it ended, once there is no more of it.
    pub(crate) fn end(&self) -> End {
        self.lock().end.take().unwrap_or(End::TakenOver)
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// Whether there is something left, or will be.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.left.is_empty() && self.end.is_none() {
            if self.taken_over.as_mut().poll(cx).is_ready() {
                self.end = Some(End::TakenOver);
                break;
            }
            match ready!(self.pieces.poll_next_unpin(cx)) {
                Some(Ok(piece)) => self.left = piece,
                Some(Err(e)) => {
                    let failure = self.failed.get().map_or_else(|| e.into(), |why| Failure(Box::new(why.clone())));
                    self.end = Some(End::Failed(failure));
                }
                None => self.end = Some(End::Whole),
            }
        }
        Poll::Ready(!self.left.is_empty())
    }
}

/// The keys that begin so, with the sizes of their values.
pub(crate) fn list(
    store: &Storage,
    prefix: &str,
) -> futures_util::stream::BoxStream<'static, Result<(Key, u64), Error>> {
    let (store, options) = (store.clone(), ListOptions::new().prefix(prefix).etags(false));
    let listing = stream::once(async move { store.list_with(options).await }).try_flatten();
    let entries = listing.try_filter_map(|item| {
        std::future::ready(Ok(match item {
            ListItem::Entry(entry) => Some((entry.key, entry.size)),
            _ => None,
        }))
    });
    entries.boxed()
}

/// The parts below a prefix, one behind the other.
pub(crate) fn bytes(store: Storage, prefix: String) -> ByteStream {
    let parts = list(&store, &prefix).and_then(move |(key, _)| {
        let store = store.clone();
        async move {
            let object = store.open(&key, GetOptions::new()).await?;
            let lost = || Error::new(ErrorKind::Corrupt, "a part of the upload is gone; begin the upload again");
            Ok(object.ok_or_else(lost)?.body.into_stream())
        }
    });
    parts.try_flatten().boxed()
}

/// The same bytes, which fail at their end unless they have these digests.
pub(crate) fn checked(bytes: ByteStream, digests: Digests, failed: Arc<OnceLock<Problem>>) -> ByteStream {
    let begun = (bytes, Some(digests), failed);
    stream::try_unfold(begun, |(mut bytes, mut digests, failed)| async move {
        if let Some(piece) = bytes.try_next().await? {
            if let Some(digests) = &mut digests {
                digests.update(&piece);
            }
            return Ok(Some((piece, (bytes, digests, failed))));
        }
        match digests.take().map_or(Ok(()), Digests::check) {
            Ok(()) => Ok(None),
            Err(failure) => {
                let e = Error::from(*failure.0.clone());
                // Only the first counts.
                let _ = failed.set(*failure.0);
                Err(e)
            }
        }
    })
    .boxed()
}
