//! Answers in lines: listings, one item on each, and batches, whose lines have bytes behind them.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use storage_core::{Error, ErrorKind, Result};

use crate::{EntryJson, Problem};

/// The most bytes a line may have.
const LINE: usize = 16 << 20;

/// A line of a listing, a query or a list of versions (`application/x-ndjson`): `{"entry": {…}}`, `{"prefix": "a/"}`,
/// `{"error": {…}}` or, at its very end, `{"end": 2}` with the number of items. What has no end was cut off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Line {
    /// A value.
    Entry(Box<EntryJson>),
    /// A common prefix.
    Prefix(String),
    /// Why there is no more.
    Error(Box<Problem>),
    /// That there is no more: how many items there were.
    End(u64),
}

impl Line {
    /// The line with its break.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

/// The first line of each part of a batch of reads (`application/vnd.storage.frames`): `{"entry": {…}, "body": 3}` and three bytes, for
/// a value that is not read here `{"entry": {…}}`, for an error `{"error": {…}}`, for an absent one `{}`; at the end `{"end": 2}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Frame {
    /// The value's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryJson>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<Problem>>,
    /// How many bytes follow: the value. Without it the value is too large for a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<u64>,
    /// That there is no more: how many parts there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// Cuts what arrives into lines.
#[derive(Debug, Default)]
pub struct Lines(BytesMut);

impl Lines {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole line without its break.
    ///
    /// # Errors
    /// `InvalidInput` for one of more than 16 MiB.
    pub fn next_line(&mut self) -> Result<Option<Bytes>> {
        let Some(end) = self.0.iter().position(|byte| *byte == b'\n') else {
            return if self.0.len() <= LINE { Ok(None) } else { Err(wrong("a line is longer than 16 MiB")) };
        };
        let line = self.0.split_to(end).freeze();
        self.0.advance(1);
        Ok(Some(line))
    }

    /// So many bytes behind the last line, once they are there.
    pub fn next_bytes(&mut self, len: usize) -> Option<Bytes> {
        (self.0.len() >= len).then(|| self.0.split_to(len).freeze())
    }

    /// Whether nothing is left over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The parts of a batch, cut out of what arrives: a line of JSON, and the bytes behind it.
#[derive(Debug)]
pub struct Frames<T> {
    lines: Lines,
    /// A line whose bytes are not all there.
    begun: Option<(T, usize)>,
    body_of: fn(&T) -> u64,
}

impl<T: for<'de> Deserialize<'de>> Frames<T> {
    /// Parts whose line says by this function how many bytes it has behind it.
    pub fn new(body_of: fn(&T) -> u64) -> Self {
        Self { lines: Lines::default(), begun: None, body_of }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// The next whole part.
    ///
    /// # Errors
    /// `InvalidInput` for a line that is none.
    pub fn next_part(&mut self) -> Result<Option<(T, Bytes)>> {
        if self.begun.is_none() {
            let Some(line) = self.lines.next_line()? else { return Ok(None) };
            let read = serde_json::from_slice(&line);
            let line: T = read.map_err(|e| wrong("a line of the batch cannot be read").with_source(e))?;
            let len = usize::try_from((self.body_of)(&line)).map_err(|_| wrong("a part of the batch is too large"))?;
            self.begun = Some((line, len));
        }
        let Some((line, len)) = self.begun.take() else { return Ok(None) };
        match self.lines.next_bytes(len) {
            Some(bytes) => Ok(Some((line, bytes))),
            None => {
                self.begun = Some((line, len));
                Ok(None)
            }
        }
    }

    /// Whether nothing is left over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begun.is_none() && self.lines.is_empty()
    }
}

fn wrong(message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}
