#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod storage;
mod backend;
mod layer;
mod key;
mod body;
mod entry;
mod metadata;
mod options;
mod presign;
mod query;
mod info;
mod error;
mod check;
#[cfg(feature = "tokio")]
mod io;
pub mod pending;
pub mod prelude;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use futures_util::{future::BoxFuture, stream::BoxStream};

pub use backend::{EntryStream, ListStream, StorageBackend, Transaction, defaults};
pub use body::{Body, BodyStream, Buffer, ByteStream, Object};
pub use entry::{Attributes, Entry, Etag, ListItem, VersionId};
pub use error::{Error, ErrorKind, Result};
pub use info::{BackendInfo, Capabilities, Consistency, Isolation, KeyShape, Limits};
#[cfg(feature = "tokio")]
pub use io::Writer;
pub use key::{IntoKey, Key};
pub use layer::Layer;
pub use metadata::{FieldValue, Metadata};
pub use options::{
    BatchOptions, ByteRange, Condition, CopyOptions, DeleteOptions, GetOptions, ListOptions, ParallelReads, PutOptions,
    RenameOptions, StatOptions, TransactionOptions,
};
pub use presign::{PresignMethod, PresignOptions, PresignedRequest};
pub use query::{Comparison, Continuation, Filter, Order, OrderBy, Query, SortKey};
pub use storage::{Page, Storage, Tx};

/// The examples of the page are compiled and run with this crate's.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../../../docs/everyday-tasks.md")]
struct EverydayTasks;
