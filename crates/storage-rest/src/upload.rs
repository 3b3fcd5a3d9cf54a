//! A body on its way to the server. Its last piece goes only when the write may take effect.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Frame, SizeHint};
use storage_core::{Body, ByteStream, Error, pending::Commit};

use crate::http::Progress;

/// Pieces of values in memory have so many bytes.
const PIECE: usize = 256 << 10;

/// What is known of a body while it is sent.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// What the body ended in.
    failed: Mutex<Option<Error>>,
    /// Whether all of it has gone.
    whole: AtomicBool,
}

impl State {
    pub(crate) fn failed(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }
}

pub(crate) struct Upload {
    /// Behind a lock only because a body of a request must be `Sync`.
    pieces: Mutex<ByteStream>,
    len: Option<u64>,
    held: Option<Bytes>,
    ended: bool,
    commit: Weak<Commit>,
    state: Arc<State>,
    progress: Progress,
}

impl Upload {
    pub(crate) fn new(body: Body, commit: &Arc<Commit>, state: Arc<State>, progress: Progress) -> Self {
        let len = body.len();
        let pieces = match body.into_buffer() {
            // So that it is seen to go on.
            Ok(buffer) => futures_util::stream::iter(buffer.into_iter().flat_map(cut).map(Ok)).boxed(),
            Err(stream) => stream.boxed(),
        };
        let commit = Arc::downgrade(commit);
        Self { pieces: Mutex::new(pieces), len, held: None, ended: false, commit, state, progress }
    }

    fn fail(&mut self, e: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.ended = true;
        self.state.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| e.clone());
        Poll::Ready(Some(Err(e)))
    }
}

fn cut(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || match piece.len() {
        0 => None,
        len => Some(piece.split_to(len.min(PIECE))),
    })
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        while !this.ended {
            let pieces = this.pieces.get_mut().unwrap_or_else(PoisonError::into_inner);
            match ready!(pieces.poll_next_unpin(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    this.progress.note();
                    if let Some(before) = this.held.replace(piece) {
                        return Poll::Ready(Some(Ok(Frame::data(before))));
                    }
                }
                Some(Err(e)) => return this.fail(e),
                None => {
                    // From here on the server may have all of it.
                    let begun = match this.commit.upgrade() {
                        Some(commit) => commit.begin(),
                        None => Err(Error::new(storage_core::ErrorKind::Other, "the write was given up")),
                    };
                    if let Err(e) = begun {
                        return this.fail(e);
                    }
                    this.state.whole.store(true, Ordering::Release);
                    this.ended = true;
                }
            }
        }
        Poll::Ready(this.held.take().map(|last| Ok(Frame::data(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.len.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
