//! What an intercepting layer is told about a call.

use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use storage_core::{
    Buffer, ByteStream, Bytes, Entry, EntryStream, Key, ListItem, ListStream, Object, PresignedRequest, Result,
    Transaction,
};

macro_rules! names {
    ($($variant:ident $text:literal),* $(,)?) => {
        /// Which method of the backend is called.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum OperationName { $(#[doc = concat!("`", $text, "`.")] $variant,)* }

        impl OperationName {
            /// Every operation.
            pub const ALL: &[OperationName] = &[$(Self::$variant),*];

            /// The method's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}
names! {
    Get "get", Put "put", Delete "delete", Stat "stat", List "list",
    GetBatch "get_batch", PutBatch "put_batch", DeleteBatch "delete_batch",
    Query "query", Clear "clear", Copy "copy", Rename "rename", Versions "versions",
    Presign "presign",
    Begin "begin", Commit "commit", Rollback "rollback", Disconnect "disconnect",
}

impl OperationName {
    /// Whether the operation can change what is stored, so that a lost answer leaves its outcome unknown.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(
            self,
            Self::Put
                | Self::Delete
                | Self::PutBatch
                | Self::DeleteBatch
                | Self::Clear
                | Self::Copy
                | Self::Rename
                | Self::Commit
        )
    }
}

impl fmt::Display for OperationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the same call may be made again after it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retryability {
    /// No: the body was a stream and is consumed, or the call belongs to a transaction.
    Never,
    /// Only if the failure is definite: a conditional write or a rename would meet its own first try.
    IfDefinite,
    /// Yes: reads, and writes that give the same result twice.
    Always,
}

/// A call on its way to the backend below.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Operation<'a> {
    /// Which one.
    pub name: OperationName,
    /// The key, or the source of a copy or rename.
    pub key: Option<&'a Key>,
    /// Bytes of the body or bodies going in, as far as they are known beforehand.
    pub bytes: Option<u64>,
    /// Whether the call may be made again.
    pub replay: Retryability,
    /// Bytes taken so far of the body or bodies, if any of them is a stream. It grows while the call runs, so that a timeout can tell slow from stuck.
    pub progress: Option<Arc<AtomicU64>>,
    /// The streamed bodies going in, if any.
    pub bodies: Option<Arc<Bodies>>,
    /// Whether the call belongs to a transaction.
    pub in_transaction: bool,
}

/// What goes around a streamed body.
type Around = Box<dyn Fn(ByteStream) -> ByteStream + Send + Sync>;

/// The streamed bodies that go in with a call.
#[derive(Default)]
pub struct Bodies(OnceLock<Around>);

impl Bodies {
    /// Puts something around each body, before the call is made. Only the first of several takes effect.
    pub fn around(&self, around: impl Fn(ByteStream) -> ByteStream + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(around));
    }

    pub(crate) fn wrap(&self, body: ByteStream) -> ByteStream {
        match self.0.get() {
            Some(around) => around(body),
            None => body,
        }
    }
}

impl fmt::Debug for Bodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bodies").field(&self.0.get().map(|_| "…")).finish()
    }
}

/// How many bytes of values a result carries by itself. What comes as a stream is counted item by item instead.
pub trait Payload {
    /// Bytes.
    fn bytes(&self) -> u64 {
        0
    }

    /// Bytes of the values that it says were written: of a batch, those of the items that succeeded.
    fn written(&self) -> u64 {
        0
    }
}

impl Payload for () {}
impl Payload for ListItem {}
impl Payload for EntryStream {}
impl Payload for PresignedRequest {}
impl Payload for ListStream {}
impl Payload for Arc<dyn Transaction> {}

impl Payload for Entry {
    fn written(&self) -> u64 {
        self.size
    }
}

impl Payload for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl Payload for Object {
    fn bytes(&self) -> u64 {
        self.body.buffer().map_or(0, Buffer::len)
    }
}

impl<T: Payload> Payload for Option<T> {
    fn bytes(&self) -> u64 {
        self.as_ref().map_or(0, T::bytes)
    }
}

impl<T: Payload> Payload for Result<T> {
    fn bytes(&self) -> u64 {
        self.as_ref().map_or(0, T::bytes)
    }

    fn written(&self) -> u64 {
        self.as_ref().map_or(0, T::written)
    }
}
