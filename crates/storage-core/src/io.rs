//! Values through tokio's `AsyncRead` and `AsyncWrite` (feature `tokio`).

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::{Body, ByteStream, Entry, Error, ErrorKind, IntoKey, PutOptions, Result, Storage, StorageBackend};

/// How many bytes a writer gathers before the backend gets them, and a reader reads at once.
const PIECE: usize = 256 << 10;

impl Body {
    /// What a reader yields, as a stream of unknown length.
    pub fn from_reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::stream(pieces(reader))
    }

    /// A file, as a replayable body of its present length. A file that changes while it is read fails with `InvalidInput`.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied` or `Other`, when it cannot be opened.
    pub async fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = tokio::fs::File::open(&path).await.map_err(from_io)?;
        let len = file.metadata().await.map_err(from_io)?.len();
        Ok(Self::replayable(len, move || {
            let open = tokio::fs::File::open(path.clone());
            stream::once(open).map_err(from_io).map_ok(pieces).try_flatten()
        }))
    }

    /// The value as a reader.
    #[must_use]
    pub fn into_reader(self) -> StreamReader<ByteStream, Bytes> {
        StreamReader::new(self.into_stream())
    }
}

fn pieces(reader: impl AsyncRead + Send + 'static) -> ByteStream {
    ReaderStream::with_capacity(reader, PIECE).map_err(from_io).boxed()
}

/// What the source of a body failed with.
fn from_io(e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Other,
    };
    // One of ours that passed through a reader is still the same error.
    match e.downcast::<Error>() {
        Ok(ours) => ours,
        Err(e) => Error::new(kind, "the source of the value failed (see source)").with_source(e),
    }
}

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// A writer to a key. See [`Writer`].
    pub fn writer(&self, key: impl IntoKey) -> Writer {
        self.writer_with(key, PutOptions::new())
    }

    /// A writer to a key, with options. See [`Writer`].
    pub fn writer_with(&self, key: impl IntoKey, options: PutOptions) -> Writer {
        let pipe = Arc::new(Mutex::new(Pipe::default()));
        let (storage, key, body) = (self.clone(), key.into_key(), Body::stream(Pieces(pipe.clone())));
        let put = async move { storage.put_with(key?, body, options).await };
        Writer { put: Put::Running(put.boxed()), pipe, gathered: BytesMut::new() }
    }
}

/// Writes a value piece by piece: tokio's `AsyncWrite`. [`finish`](Writer::finish) and `shutdown` make it the value of the key;
/// dropping the writer before that leaves the old value.
///
/// `flush` hands what was gathered to the backend; nothing is visible before the end.
#[must_use = "a writer that is not finished writes nothing"]
pub struct Writer {
    put: Put,
    pipe: Arc<Mutex<Pipe>>,
    gathered: BytesMut,
}

enum Put {
    Running(BoxFuture<'static, Result<Entry>>),
    Done(Result<Entry>),
}

/// Between the writer and the backend, which may read the body in another task.
#[derive(Default)]
struct Pipe {
    piece: Option<Bytes>,
    end: Option<End>,
    /// Who waits for a piece, and who for room.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum End {
    Whole,
    Aborted,
}

impl Writer {
    /// Writes what is left, and makes all of it the value of the key.
    ///
    /// # Errors
    /// Those of [`Storage::put_with`].
    pub async fn finish(mut self) -> Result<Entry> {
        std::future::poll_fn(|cx| self.poll_finish(cx)).await
    }

    fn pipe(&self) -> MutexGuard<'_, Pipe> {
        // Every change is a single assignment, so a poisoned lock guards good data.
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the put go on. `Some` once it has ended.
    fn drive(&mut self, cx: &mut Context<'_>) -> Option<&Result<Entry>> {
        if let Put::Running(put) = &mut self.put
            && let Poll::Ready(done) = put.poll_unpin(cx)
        {
            self.put = Put::Done(done);
        }
        match &self.put {
            Put::Running(_) => None,
            Put::Done(done) => Some(done),
        }
    }

    /// Hands over what was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.gathered.is_empty() {
            if let Some(done) = self.drive(cx) {
                // It has ended before the body has.
                return Poll::Ready(Err(match done {
                    Err(e) => e.clone(),
                    Ok(_) => Error::new(ErrorKind::Other, "the backend took a part of the body for the whole"),
                }));
            }
            let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
            if pipe.piece.is_some() {
                pipe.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            pipe.piece = Some(self.gathered.split().freeze());
            wake(&mut pipe.reader);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<Entry>> {
        ready!(self.poll_send(cx))?;
        {
            let mut pipe = self.pipe();
            pipe.end.get_or_insert(End::Whole);
            wake(&mut pipe.reader);
        }
        match self.drive(cx) {
            Some(done) => Poll::Ready(done.clone()),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.pipe().end.is_some() {
            return Poll::Ready(Err(io::Error::other(Error::new(ErrorKind::Closed, "the writer was shut down"))));
        }
        if self.gathered.len() >= PIECE {
            ready!(self.poll_send(cx))?;
        }
        let n = bytes.len().min(PIECE - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_finish(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut pipe = self.pipe();
        pipe.end.get_or_insert(End::Aborted);
        wake(&mut pipe.reader);
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("gathered", &self.gathered.len()).finish_non_exhaustive()
    }
}

/// The body that the backend reads.
struct Pieces(Arc<Mutex<Pipe>>);

impl Stream for Pieces {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut pipe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = pipe.piece.take() {
            wake(&mut pipe.writer);
            return Poll::Ready(Some(Ok(piece)));
        }
        match pipe.end {
            Some(End::Whole) => Poll::Ready(None),
            Some(End::Aborted) => {
                Poll::Ready(Some(Err(Error::new(ErrorKind::Other, "the writer was dropped before it was finished"))))
            }
            None => {
                pipe.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
