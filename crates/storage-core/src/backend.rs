//! The contract: what every storage does, in one trait.

pub mod defaults;
mod forward;
mod methods;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, Error, GetOptions, Key, ListItem, ListOptions,
    Object, PresignOptions, PresignedRequest, PutOptions, Query, RenameOptions, Result, StatOptions,
};

/// Entries, as `query` and `versions` yield them. It owns what it needs and may outlive the call.
pub type EntryStream = BoxStream<'static, Result<Entry>>;
/// Entries and common prefixes, as `list` yields them. It owns what it needs and may outlive the call.
pub type ListStream = BoxStream<'static, Result<ListItem>>;

/// A store of values under keys.
///
/// # For callers
/// Hold a [`Storage`](crate::Storage), not this: the handle takes `&str` keys, collects bodies, and checks keys, limits and
/// options before a backend sees them. Every future may be dropped at any point; a write then happens before the answer to any later
/// call of the same instance that touches its key, or never.
///
/// # For backend authors
/// Six methods are required: [`info`](Self::info), [`get`](Self::get), [`put`](Self::put), [`delete`](Self::delete),
/// [`stat`](Self::stat) and [`list`](Self::list). The others have defaults built on these six that are correct, if not
/// fast. What an option asks and your capabilities do not declare never arrives: the handle refuses it as `Unsupported`.
/// Errors get key, operation and backend from the handle too; you choose kind, message and source, and mark a write
/// whose fate you do not know as [`ambiguous`](Error::ambiguous). The crate `storage-conformance` proves the result.
#[async_trait]
pub trait StorageBackend: Debug + Send + Sync + 'static {
    /// Who this is and what it can do, as connected. It does not change while the instance lives.
    fn info(&self) -> &BackendInfo;

    /// Reads a value or a part of it; `None` when there is none.
    ///
    /// # For callers
    /// The entry describes the whole value whatever the range, metadata included. A streamed body delivers one version of
    /// the value or fails with `Conflict`; dropping it frees what it holds. With `range`, the body is exactly the range,
    /// clamped at the end. A `version` that does not exist is `None`.
    ///
    /// # For backend authors
    /// [`ByteRange::resolve`](crate::ByteRange::resolve) has the rules for ranges. An absent key is `PreconditionFailed`
    /// under `if_match` and `None` under `if_none_match`. Where `prefer_buffered` is set, a body of one piece saves a copy. Where `entry` is
    /// not set, key, size, etag and version are enough of the entry. Declare `streaming` if the body of a large value is a stream.
    ///
    /// # Errors
    /// `PreconditionFailed` (`if_match`), `NotModified` (`if_none_match`), `RangeNotSatisfiable`, `Conflict`, and those of
    /// the store.
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>>;

    /// Writes a value with its metadata, replacing both, and returns the new entry (key, size, etag, version; the dates where the
    /// store's own answer has them).
    ///
    /// # For callers
    /// Once this returns, the value is there for every reader within the declared consistency, and survives the process. A
    /// body that fails, or is not as long as it declares, stores nothing.
    ///
    /// # For backend authors
    /// Read the body to its end before anything becomes visible; its error is your error. `limits.value` must hold for
    /// undeclared lengths too. Staged data is never listed. A dropped future leaves the old value or the new; work that goes on
    /// without it must not land behind a later call, for which there is [`pending`](crate::pending).
    ///
    /// # Errors
    /// `AlreadyExists` (`IfAbsent`), `PreconditionFailed` (`IfMatch`, also when the key is absent), `TooLarge`, the body's
    /// own error, and those of the store.
    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry>;

    /// Removes a value; it need not exist.
    ///
    /// # For callers
    /// On a backend with `versioning` the older versions stay, until they are deleted by `version`.
    ///
    /// # Errors
    /// `PreconditionFailed` (`IfMatch`, also when the key is absent), and those of the store.
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()>;

    /// The entry of a value, with metadata; `None` when there is none.
    ///
    /// # Errors
    /// Those of the store.
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>>;

    /// The entries whose key starts with `prefix` literally, in bytewise order of keys.
    ///
    /// # For callers
    /// Each key that is there all the while is yielded exactly once, however many others come and go. With `delimited`, keys
    /// with a `/` behind the prefix are folded into one [`ListItem::Prefix`] up to and with that `/`. An item is yielded when
    /// its [`position`](ListItem::position) lies behind `start_after`, so a listing resumes behind its last item.
    ///
    /// # For backend authors
    /// Load metadata only if asked (leave `None` otherwise), and etags and dates of creation only unless
    /// [`etags`](ListOptions::etags) is `false`, if they cost another read. Nothing staged, and nothing others put into the store under
    /// names that cannot be keys, may break a listing.
    ///
    /// # Errors
    /// Those of the store, from the call or from the stream, which ends after an error.
    async fn list(&self, options: ListOptions) -> Result<ListStream>;

    /// Several reads; results in the order of the input.
    ///
    /// # Errors
    /// Of the batch as a whole; each item has its own result.
    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        defaults::get_batch(self, items).await
    }

    /// Several writes; results in the order of the input. Of items with the same key the last wins.
    ///
    /// # For callers
    /// With `atomic` all items are written or none, and an item's failure is the batch's failure.
    ///
    /// # Errors
    /// Of the batch as a whole; each item has its own result.
    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        defaults::put_batch(self, items, options).await
    }

    /// Several deletes; results in the order of the input.
    ///
    /// # Errors
    /// Of the batch as a whole; each item has its own result.
    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        defaults::delete_batch(self, items, options).await
    }

    /// The entries that answer a query, with metadata, in its order.
    ///
    /// # For backend authors
    /// The default scans a listing. A native implementation gives the same answer as [`Query::evaluate`] and declares
    /// `queryable`.
    ///
    /// # Errors
    /// `InvalidInput` as [`Query::validate`]; those of the store.
    async fn query(&self, query: Query) -> Result<EntryStream> {
        defaults::query(self, query).await
    }

    /// Deletes exactly what a listing of this literal prefix shows. The empty prefix empties this backend's own namespace.
    ///
    /// # Errors
    /// Those of the store. Some keys may be gone then; calling again goes on.
    async fn clear(&self, prefix: &str) -> Result<()> {
        defaults::clear(self, prefix).await
    }

    /// Copies a value, with its metadata unless others are given. Afterwards the two share nothing.
    ///
    /// # For callers
    /// A source that is the target is left as it is, or rewritten with the metadata given.
    ///
    /// # Errors
    /// `NotFound` when the source, or the `version` of it, does not exist; those of `put`.
    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        defaults::copy(self, from, to, options).await
    }

    /// Moves a value, replacing the target. A source that is the target is left as it is.
    ///
    /// # For callers
    /// The default is a copy and a delete: for a moment both exist, and after a failure both may. A source that was written
    /// meanwhile is never removed where `conditional_delete` is declared: the call fails with `Conflict`, and both are kept.
    /// Elsewhere the etag is looked at just before the delete, and what is written between the two is lost.
    ///
    /// # Errors
    /// `NotFound` when the source does not exist; those of `put` and `delete`.
    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        defaults::rename(self, from, to, options).await
    }

    /// The versions of a value that are kept, newest first, also when the value itself was deleted.
    ///
    /// # Errors
    /// `Unsupported` without `versioning`; those of the store.
    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        let _ = key;
        Err(Error::unsupported("versions"))
    }

    /// A request that anybody can send until it expires, without credentials. Whether there is a value is not looked at.
    ///
    /// # For callers
    /// What a presigned `GET` answers is the value as it is then; an absent one is `404`. A presigned `PUT` replaces the value, and
    /// what it writes has no metadata. Such requests go past the whole stack: no layer counts, limits or traces them, and they
    /// belong to no transaction.
    ///
    /// # For backend authors
    /// A content type or length that the store cannot bind is `Unsupported`, never ignored. Layers that change bytes take the
    /// capability back; those that must see each write refuse what is not [`PresignMethod::reads`](crate::PresignMethod::reads).
    ///
    /// # Errors
    /// `Unsupported` without `presign`, and for methods and options that this backend cannot presign; `InvalidInput` for a lifetime
    /// beyond the store's limits; those of the store.
    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        let _ = (key, options);
        Err(Error::unsupported("presigned requests"))
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// `Unsupported` without `transactions`; those of the store.
    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        Err(Error::unsupported("transactions"))
    }

    /// Whether the store can be reached and used right now, and if not, why.
    ///
    /// # Errors
    /// Those of the store; `Closed` after `disconnect`.
    async fn health(&self) -> Result<()> {
        Ok(())
    }

    /// Gives up the connection. Afterwards every call through any handle is `Closed`.
    ///
    /// # For backend authors
    /// Implement it if there is something to close or if the instance is shared; `health` is `Closed` from then on too. Without it,
    /// the handle that was disconnected and its clones refuse further calls by themselves.
    ///
    /// # Errors
    /// Those of the store; the connection is given up all the same.
    async fn disconnect(&self) -> Result<()> {
        Ok(())
    }
}

/// A transaction: a backend whose writes become visible together at `commit`, or never.
///
/// Because it is a backend, every layer, default and convenience works inside one. It sees its own writes. Dropping it rolls
/// back. After `commit` or `rollback` every call is `Closed`.
#[async_trait]
pub trait Transaction: StorageBackend {
    /// Makes all writes visible at once.
    ///
    /// # Errors
    /// `Conflict` when another writer was faster: nothing was written, run the whole transaction again.
    async fn commit(&self) -> Result<()>;

    /// Forgets all writes.
    ///
    /// # Errors
    /// Those of the store; the writes are forgotten all the same.
    async fn rollback(&self) -> Result<()>;
}
