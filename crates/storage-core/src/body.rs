//! A value on its way in or out: whole, or as a stream.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{Entry, Error, ErrorKind, Result};

mod buffer;

pub use buffer::Buffer;

/// Pieces of a value, in order.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The bytes of a value: in memory, as a stream, or as a stream that can be begun again.
///
/// `Bytes`, `Vec<u8>`, `String` and [`Buffer`] convert into a body in memory without a copy; `&str`, `&[u8]` and `&[u8; N]` are
/// copied ([`Bytes::from_static`] is not). [`Body::stream`] and [`Body::with_len`] make a streamed one, which is never held in memory as a whole;
/// [`Body::replayable`] one that a layer or an upload can send again after a failure.
#[derive(Debug)]
pub struct Body(Form);

enum Form {
    Memory(Buffer),
    Stream(BodyStream),
    Replayable(Replayable),
}

/// A stream that can be begun again.
#[derive(Clone)]
struct Replayable {
    len: u64,
    open: Arc<dyn Fn() -> ByteStream + Send + Sync>,
}

impl Replayable {
    fn begin(&self) -> BodyStream {
        BodyStream::new(Some(self.len), ErrorKind::InvalidInput, (self.open)())
    }
}

impl Body {
    /// A stream of a length that is not known beforehand.
    pub fn stream(pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(Form::Stream(BodyStream::new(None, ErrorKind::InvalidInput, pieces)))
    }

    /// A stream of exactly `len` bytes. When it turns out shorter or longer it ends in `InvalidInput`, so that
    /// whoever stores it stores nothing.
    pub fn with_len(len: u64, pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(Form::Stream(BodyStream::new(Some(len), ErrorKind::InvalidInput, pieces)))
    }

    /// A stream of exactly `len` bytes that can be begun again: each call of `open` yields the same bytes from the start. A retry
    /// can send such a body again, which a plain stream does not allow.
    pub fn replayable<S>(len: u64, open: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes>> + Send + 'static,
    {
        Self(Form::Replayable(Replayable { len, open: Arc::new(move || open().boxed()) }))
    }

    /// For backends: a stored value of exactly `len` bytes on its way out. When the store delivers fewer or more, it ends in
    /// `Unavailable`, so that the reader can go on where it broke off.
    pub fn from_backend(len: u64, pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(Form::Stream(BodyStream::new(Some(len), ErrorKind::Unavailable, pieces)))
    }

    /// The same body, which ends in `Unavailable` unless it has exactly this length.
    pub(crate) fn expecting(self, len: u64) -> Self {
        if self.len() == Some(len) { self } else { Self::from_backend(len, self.into_stream()) }
    }

    /// The same body, its errors passed through a function.
    #[must_use]
    pub fn map_err(self, f: impl Fn(Error) -> Error + Send + 'static) -> Self {
        self.map_stream(|pieces| pieces.map_err(f))
    }

    /// The same body, with another stream of the same length in place of its own. One in memory is left as it is.
    #[must_use]
    pub fn map_stream<S>(self, f: impl FnOnce(BodyStream) -> S) -> Self
    where
        S: Stream<Item = Result<Bytes>> + Send + 'static,
    {
        match self.into_buffer() {
            Ok(buffer) => buffer.into(),
            Err(stream) => {
                let (declared, mismatch) = (stream.declared, stream.mismatch);
                Self(Form::Stream(BodyStream::new(declared, mismatch, f(stream))))
            }
        }
    }

    /// As [`map_stream`](Body::map_stream), for a function that can be called again: a replayable body stays one.
    #[must_use]
    pub fn map_replayable<S>(self, f: impl Fn(BodyStream) -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes>> + Send + 'static,
    {
        match self.0 {
            Form::Replayable(body) => Self::replayable(body.len, move || f(body.begin())),
            _ => self.map_stream(f),
        }
    }

    /// The length in bytes, when it is known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        match &self.0 {
            Form::Memory(buffer) => Some(buffer.len()),
            Form::Stream(stream) => stream.declared,
            Form::Replayable(body) => Some(body.len),
        }
    }

    /// Whether the value is known to be empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Whether the whole value is in memory.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.buffer().is_some()
    }

    /// The value, if the whole of it is in memory.
    #[must_use]
    pub fn buffer(&self) -> Option<&Buffer> {
        match &self.0 {
            Form::Memory(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The same body once more: of one in memory, which is shared, or of a replayable one. `None` for a plain stream.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Form::Memory(buffer) => Some(buffer.clone().into()),
            Form::Stream(_) => None,
            Form::Replayable(body) => Some(Self(Form::Replayable(body.clone()))),
        }
    }

    /// The value, if the whole of it is in memory, or else its stream.
    ///
    /// # Errors
    /// The stream, which is not a failure.
    pub fn into_buffer(self) -> Result<Buffer, BodyStream> {
        match self.0 {
            Form::Memory(buffer) => Ok(buffer),
            Form::Stream(stream) => Err(stream),
            Form::Replayable(body) => Err(body.begin()),
        }
    }

    /// The value as a stream, whatever it was.
    #[must_use]
    pub fn into_stream(self) -> ByteStream {
        match self.into_buffer() {
            Ok(buffer) => stream::iter(buffer.into_iter().map(Ok)).boxed(),
            Err(stream) => stream.boxed(),
        }
    }

    /// The whole value, joined. A body of one piece is not copied.
    ///
    /// # Errors
    /// `TooLarge` as soon as it is clear that there are more than `max` bytes, or more than can be allocated; whatever the stream
    /// ends in.
    pub async fn bytes(self, max: u64) -> Result<Bytes> {
        fits(self.len().unwrap_or(0), max)?;
        let mut stream = match self.into_buffer() {
            Ok(buffer) => return buffer.into_bytes(),
            Err(stream) => stream,
        };
        let Some(first) = stream.next().await.transpose()? else {
            return Ok(Bytes::new());
        };
        fits(first.len() as u64, max)?;
        let Some(second) = stream.next().await.transpose()? else {
            return Ok(first);
        };
        // A declared length is only a hint for the first allocation: it may come from the other end of a wire.
        let hint = stream.declared.unwrap_or(0).min(16 << 20) as usize;
        let mut whole = Vec::new();
        buffer::reserve(&mut whole, hint.max(first.len() + second.len()))?;
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        fits(whole.len() as u64, max)?;
        while let Some(piece) = stream.next().await.transpose()? {
            fits((whole.len() + piece.len()) as u64, max)?;
            buffer::reserve(&mut whole, piece.len())?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    /// The whole value, in memory. Pieces of a stream of at least 64 KiB are kept as they come, smaller ones are copied together,
    /// so that a small piece does not hold the large buffer that it is a slice of.
    ///
    /// # Errors
    /// As [`Body::bytes`].
    pub async fn collect(self, max: u64) -> Result<Buffer> {
        fits(self.len().unwrap_or(0), max)?;
        let mut stream = match self.into_buffer() {
            Ok(buffer) => return Ok(buffer),
            Err(stream) => stream,
        };
        let mut whole = buffer::Collector::default();
        while let Some(piece) = stream.next().await.transpose()? {
            fits(whole.len() + piece.len() as u64, max)?;
            whole.push(piece)?;
        }
        Ok(whole.finish())
    }
}

fn fits(len: u64, max: u64) -> Result<()> {
    if len <= max {
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooLarge, format!("the value is larger than {max} bytes")))
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are the application's own affair.
        match self {
            Self::Memory(buffer) => f.debug_tuple("Memory").field(&buffer.len()).finish(),
            Self::Stream(stream) => stream.fmt(f),
            Self::Replayable(body) => f.debug_tuple("Replayable").field(&body.len).finish(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Buffer::default().into()
    }
}

impl From<Buffer> for Body {
    fn from(value: Buffer) -> Self {
        Self(Form::Memory(value))
    }
}

macro_rules! from {
    ($($type:ty,)*) => { $(
        impl From<$type> for Body {
            fn from(value: $type) -> Self {
                Buffer::from(Bytes::from(value)).into()
            }
        }
    )* };
}
from! { Bytes, Vec<u8>, String, }

impl From<&str> for Body {
    fn from(value: &str) -> Self {
        value.as_bytes().into()
    }
}

impl From<&[u8]> for Body {
    fn from(value: &[u8]) -> Self {
        Bytes::copy_from_slice(value).into()
    }
}

impl<const N: usize> From<&[u8; N]> for Body {
    fn from(value: &[u8; N]) -> Self {
        value.as_slice().into()
    }
}

/// The streamed form of a [`Body`]. It ends after the first error.
pub struct BodyStream {
    pieces: ByteStream,
    declared: Option<u64>,
    left: u64,
    mismatch: ErrorKind,
}

impl BodyStream {
    fn new(
        declared: Option<u64>,
        mismatch: ErrorKind,
        pieces: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self { pieces: pieces.boxed(), declared, left: declared.unwrap_or(0), mismatch }
    }

    /// The declared length in bytes.
    #[must_use]
    pub fn declared_len(&self) -> Option<u64> {
        self.declared
    }

    fn wrong_length(&self, how: &str) -> Error {
        let declared = self.declared.unwrap_or(0);
        Error::new(self.mismatch, format!("the body is {how} than the {declared} bytes it declares"))
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let piece = ready!(this.pieces.poll_next_unpin(cx));
        let piece = match (piece, this.declared) {
            (Some(Ok(bytes)), Some(_)) => match this.left.checked_sub(bytes.len() as u64) {
                Some(left) => {
                    this.left = left;
                    Some(Ok(bytes))
                }
                None => Some(Err(this.wrong_length("longer"))),
            },
            (None, Some(_)) if this.left > 0 => Some(Err(this.wrong_length("shorter"))),
            (piece, _) => piece,
        };
        if matches!(piece, Some(Err(_))) {
            this.left = 0;
            this.pieces = stream::empty().boxed();
        }
        Poll::Ready(piece)
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream").field("declared", &self.declared).finish_non_exhaustive()
    }
}

/// What `get` returns: the entry, and the bytes asked for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Object {
    /// Describes the whole value, whatever range was asked for.
    pub entry: Entry,
    /// The range asked for.
    pub body: Body,
}

impl Object {
    /// An object.
    pub fn new(entry: Entry, body: impl Into<Body>) -> Self {
        Self { entry, body: body.into() }
    }
}
