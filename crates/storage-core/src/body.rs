//! A value on its way in or out: whole, or as a stream.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{Entry, Error, ErrorKind, Result};

/// Pieces of a value, in order.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The bytes of a value.
///
/// `Bytes`, `Vec<u8>`, `String`, `&'static str` and `&'static [u8]` convert into a whole body without a copy.
/// [`Body::stream`] and [`Body::sized`] make a streamed one, which is never held in memory as a whole.
#[derive(Debug)]
pub enum Body {
    /// The whole value in memory.
    Bytes(Bytes),
    /// The value in pieces.
    Stream(BodyStream),
}

impl Body {
    /// A stream of a length that is not known beforehand.
    pub fn stream(pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self::declared(None, ErrorKind::InvalidInput, pieces)
    }

    /// A stream of exactly `len` bytes. When it turns out shorter or longer it ends in `InvalidInput`, so that
    /// whoever stores it stores nothing.
    pub fn sized(len: u64, pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self::declared(Some(len), ErrorKind::InvalidInput, pieces)
    }

    /// For backends: a stored value of exactly `len` bytes on its way out. When the store delivers fewer or more, it ends in
    /// `Unavailable`, so that the reader can go on where it broke off.
    pub fn stored(len: u64, pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self::declared(Some(len), ErrorKind::Unavailable, pieces)
    }

    fn declared(
        declared: Option<u64>,
        mismatch: ErrorKind,
        pieces: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self::Stream(BodyStream { pieces: pieces.boxed(), declared, left: declared.unwrap_or(0), mismatch })
    }

    /// The same body, which ends in `Unavailable` unless it has exactly this length.
    pub(crate) fn expecting(self, len: u64) -> Self {
        if self.len() == Some(len) { self } else { Self::stored(len, self.into_stream()) }
    }

    /// The same body, its errors passed through a function.
    pub(crate) fn map_err(self, f: impl Fn(Error) -> Error + Send + 'static) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes),
            Self::Stream(stream) => Self::declared(stream.declared, stream.mismatch, stream.map_err(f)),
        }
    }

    /// The length in bytes, when it is known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Stream(stream) => stream.declared,
        }
    }

    /// Whether the value is known to be empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The value as a stream, whatever it was.
    #[must_use]
    pub fn into_stream(self) -> ByteStream {
        match self {
            Self::Bytes(bytes) => stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed(),
            Self::Stream(stream) => stream.boxed(),
        }
    }

    /// The whole value. A body of one piece is not copied.
    ///
    /// # Errors
    /// `TooLarge` as soon as it is clear that there are more than `max` bytes, or more than can be allocated; whatever the stream
    /// ends in.
    pub async fn bytes(self, max: u64) -> Result<Bytes> {
        let fits = |n: u64| {
            if n <= max {
                return Ok(());
            }
            Err(Error::new(ErrorKind::TooLarge, format!("the value is larger than {max} bytes")))
        };
        fits(self.len().unwrap_or(0))?;
        let mut stream = match self {
            Self::Bytes(bytes) => return Ok(bytes),
            Self::Stream(stream) => stream,
        };
        let Some(first) = stream.next().await.transpose()? else {
            return Ok(Bytes::new());
        };
        fits(first.len() as u64)?;
        let Some(second) = stream.next().await.transpose()? else {
            return Ok(first);
        };
        // A declared length is only a hint for the first allocation: it may come from the other end of a wire.
        let hint = stream.declared.unwrap_or(0).min(16 << 20) as usize;
        let mut whole = Vec::new();
        reserve(&mut whole, hint.max(first.len() + second.len()))?;
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        fits(whole.len() as u64)?;
        while let Some(piece) = stream.next().await.transpose()? {
            fits((whole.len() + piece.len()) as u64)?;
            reserve(&mut whole, piece.len())?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }
}

/// Makes room for more bytes, or fails where a plain allocation would end the process.
fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<()> {
    bytes.try_reserve(more).map_err(|_| {
        let size = bytes.len().saturating_add(more);
        let message = format!("{size} bytes do not fit into memory: read the value as a stream, or in ranges");
        Error::new(ErrorKind::TooLarge, message)
    })
}

impl Default for Body {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Body {
    fn from(value: Bytes) -> Self {
        Self::Bytes(value)
    }
}

impl From<Vec<u8>> for Body {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<String> for Body {
    fn from(value: String) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<&'static str> for Body {
    fn from(value: &'static str) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<&'static [u8]> for Body {
    fn from(value: &'static [u8]) -> Self {
        Self::Bytes(value.into())
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
