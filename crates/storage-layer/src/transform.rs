//! The trait of layers that change a value's bytes: encrypt, compress.

use std::{
    fmt::Debug,
    future::{Future, ready},
};

use storage_core::{
    BackendInfo, Body, ByteRange, Entry, Filter, GetOptions, Key, Object, OrderBy, PutOptions, Query, Result,
    StorageBackend,
};

/// A layer that stores something else than it is given, and gives back what it was given.
///
/// [`Transformed`](crate::Transformed) applies it to every method of the backend, inside transactions too. Listing, querying,
/// batches, copies and versions follow from these functions.
pub trait Transform: Debug + Send + Sync + 'static {
    /// What the backend looks like through this layer: its own capability, and the limits that are left.
    fn info(&self, inner: &BackendInfo) -> BackendInfo;

    /// From a plain value to what is stored. A stream stays a stream.
    fn encode(
        &self,
        key: &Key,
        body: Body,
        options: PutOptions,
    ) -> impl Future<Output = Result<(Body, PutOptions)>> + Send;

    /// From a whole stored value to the plain one. A stream stays a stream.
    fn decode(&self, key: &Key, stored: Object) -> impl Future<Output = Result<Object>> + Send;

    /// Reads a range of the plain value, touching no more of the stored one than it must.
    fn read_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: GetOptions,
    ) -> impl Future<Output = Result<Option<Object>>> + Send;

    /// From a stored entry to the plain one; `None` where it turns out to be gone. Without metadata, what a listing without
    /// metadata or a write answers, it looks at sizes alone.
    ///
    /// # Errors
    /// `Corrupt` for what this layer did not write or somebody changed, `Config` where it lacks what it needs to read it: a
    /// listing then yields the entry as [damaged](Entry::damaged). Any other error ends the listing.
    fn entry<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        stored: Entry,
    ) -> impl Future<Output = Result<Option<Entry>>> + Send;

    /// Whether the store below gives the same answer to this query, but for entries that turn out to be damaged here. `false` unless
    /// overridden: then the query is answered above the layer, by a scan. A layer that leaves metadata as it is says so by
    /// [`is_about_metadata_alone`].
    fn queries_below<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        query: &Query,
    ) -> impl Future<Output = Result<bool>> + Send {
        let _ = (inner, query);
        ready(Ok(false))
    }
}

/// Whether a query asks for nothing but keys, dates and metadata, and for no field that is the layer's own: what a layer that changes
/// bytes and sizes alone leaves as it is.
#[must_use]
pub fn is_about_metadata_alone(query: &Query, is_own_field: impl Fn(&str) -> bool) -> bool {
    let order = match &query.order.by {
        OrderBy::Key | OrderBy::Created | OrderBy::Modified => true,
        // A damaged entry has no field to be ordered by; below it has.
        OrderBy::Field(name) => !is_own_field(name) && query.filters.iter().any(Filter::is_on_metadata),
        _ => false,
    };
    order
        && query.filters.iter().all(|filter| match filter {
            Filter::Field { name, .. } => !is_own_field(name),
            Filter::ContentType(_)
            | Filter::AnyTag(_)
            | Filter::AllTags(_)
            | Filter::ModifiedAfter(_)
            | Filter::ModifiedBefore(_)
            | Filter::CreatedAfter(_)
            | Filter::CreatedBefore(_) => true,
            _ => false,
        })
}
