//! What a store can do beyond [`ObjectStore`](object_store::ObjectStore), as the backends of clouds add it.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use object_store::path::Path;
use storage_core::{Error, PresignOptions, PresignedRequest, Result};

/// Calls that `object_store` does not have, or not as they are needed here.
///
/// Names are texts, since not every name in a store is a [`Path`].
#[async_trait]
pub trait CloudExtensions: fmt::Debug + Send + Sync + 'static {
    /// One page of a listing, in the order of names. Without this, the listings of `object_store` serve, which fail at a name
    /// that is no [`Path`].
    ///
    /// # Errors
    /// Those of the store.
    async fn list(&self, ask: &ListRequest) -> Result<Page>;

    /// Whether every write makes a version, which is kept.
    fn versioned(&self) -> bool {
        false
    }

    /// One page of the versions of all names with a prefix, each name's newest first. What a delete leaves is no version.
    ///
    /// # Errors
    /// Those of the store.
    async fn versions(&self, ask: &ListRequest) -> Result<Page> {
        let _ = ask;
        Err(Error::unsupported("versions"))
    }

    /// Deletes an object, which need not exist; with a version, that one for good, which may be what a delete has left, too.
    ///
    /// # Errors
    /// Those of the store.
    async fn delete(&self, place: &Path, version: Option<&str>) -> Result<()>;

    /// Copies an object with its attributes, and says what the store answered. Without this, the copy of `object_store` serves,
    /// which does not say what it has made: another write in between is then taken for the copy.
    ///
    /// # Errors
    /// `NotFound` where there is nothing to copy; `TooLarge` where it must be read and written instead; those of the store.
    async fn copy(&self, from: &Path, to: &Path) -> Result<Option<Copied>> {
        let _ = (from, to);
        Ok(None)
    }

    /// Whether requests can be presigned.
    fn presigns(&self) -> bool {
        false
    }

    /// A request for this object that anybody can send for a while. What it cannot bind is `Unsupported`.
    ///
    /// # Errors
    /// Those of the store.
    async fn presign(&self, place: &Path, options: &PresignOptions) -> Result<PresignedRequest> {
        let _ = (place, options);
        Err(Error::unsupported("presigned requests"))
    }
}

/// What the answer to a copy says of what it has made.
#[derive(Clone, Debug, Default)]
pub struct Copied {
    /// Its etag.
    pub etag: Option<String>,
    /// Which version it is.
    pub version: Option<String>,
}

/// Which page of a listing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ListRequest {
    /// Names that start with this.
    pub prefix: String,
    /// And lie behind this. On the first page only.
    pub after: Option<String>,
    /// Stop at the first `/` behind the prefix.
    pub delimited: bool,
    /// At most so many; the store may have a limit of its own.
    pub limit: usize,
    /// The [`Page::next`] of the page before.
    pub next: Option<String>,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Objects, or versions.
    pub objects: Vec<ListedObject>,
    /// What lies below, in a listing of one level, with the `/` at the end.
    pub prefixes: Vec<String>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// An object, or a version of one.
#[derive(Debug)]
pub struct ListedObject {
    /// Its name.
    pub name: String,
    /// The bytes it has.
    pub size: u64,
    /// When it was written, if the store says that.
    pub modified: Option<DateTime<Utc>>,
    /// Its etag.
    pub etag: Option<String>,
    /// Which version it is, in a listing of versions.
    pub version: Option<String>,
    /// Whether this is what a delete has left, not a version.
    pub deleted: bool,
}
