//! What an application that uses a [`Storage`] needs: `use storage_core::prelude::*;`.

pub use crate::{
    Body, ByteRange, Bytes, Condition, CopyOptions, DeleteOptions, Entry, ErrorKind, Etag, GetOptions, Key, Layer,
    ListItem, ListOptions, Metadata, Object, Order, OrderBy, PresignOptions, PutOptions, Query, Storage,
    StorageBackend, Tx,
};
