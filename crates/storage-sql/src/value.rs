//! What goes into a statement and what comes out of it, the same for every database.

use bytes::Bytes;
use storage_core::{Error, ErrorKind, Key, Result};

/// An argument or a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Bytes),
}

impl Value {
    pub(crate) fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bytes(Bytes::copy_from_slice(bytes.as_ref()))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        Self::bytes(key.as_str())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The columns of a row, taken in their order.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(crate) fn new(columns: Vec<Value>) -> Self {
        Self(columns.into_iter())
    }

    pub(crate) fn int(&mut self) -> Result<i64> {
        self.optional_int()?.ok_or_else(unreadable)
    }

    pub(crate) fn optional_int(&mut self) -> Result<Option<i64>> {
        match self.0.next() {
            Some(Value::Int(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(unreadable()),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        match self.0.next() {
            Some(Value::Text(value)) => Ok(value),
            _ => Err(unreadable()),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes> {
        self.optional_bytes()?.ok_or_else(unreadable)
    }

    pub(crate) fn optional_bytes(&mut self) -> Result<Option<Bytes>> {
        match self.0.next() {
            Some(Value::Bytes(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(unreadable()),
        }
    }
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "a row of the database is not what this crate writes; was it changed by hand?")
}
