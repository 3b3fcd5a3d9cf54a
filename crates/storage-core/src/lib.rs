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
mod query;
mod info;
mod error;
mod check;
mod config;
mod context;
mod secret;
pub mod pending;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use futures_util::{future::BoxFuture, stream::BoxStream};

pub use backend::{EntryStream, ListStream, StorageBackend, Transaction, defaults};
pub use body::{Body, BodyStream, ByteStream, Object};
pub use config::{BackendFactory, ConnectionConfig, Durability, LayerFactory, nearest};
pub use context::{Clock, CredentialProvider, KeyProvider, StorageContext, SystemClock, WrappedKey};
pub use entry::{Entry, Etag, ListItem, VersionId};
pub use error::{Error, ErrorKind, Result};
pub use info::{BackendInfo, Capabilities, Consistency, Isolation, KeyShape, Limits};
pub use key::{IntoKey, Key};
pub use layer::Layer;
pub use metadata::{FieldValue, Metadata};
pub use options::{
    BatchOptions, ByteRange, Condition, CopyOptions, DeleteOptions, GetOptions, ListOptions, PutOptions, RenameOptions,
    StatOptions,
};
pub use query::{Comparison, Continuation, Filter, Order, OrderBy, Query, Rank};
pub use secret::{DataKey, Secret};
pub use storage::{Page, Storage, Tx};
