//! What has to be known about a store and cannot be found out by trying.

use std::{sync::Arc, time::Duration};

use object_store::{PutMode, UpdateVersion};

/// Which names a store can hold beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Naming {
    /// A name is just a name: `a` and `a/b` can both exist, in every case and form of Unicode. A key lies under itself wherever
    /// it can.
    Flat,
    /// The same, but in the order of UTF-16, and with at most 254 segments between slashes, as Azure has them. A key with a
    /// character beyond U+FFFF, or of more than 250 segments, lies under an encoded name.
    FlatUtf16,
    /// Names are paths: an object cannot lie below another object, and case or Unicode form may get lost. Every key lies under
    /// an encoded name.
    Hierarchical,
}

/// What the caller knows about a store. Everything else is probed on connect.
///
/// A wrong `version_etags`, `sorted` or [`Naming`] breaks promises, so [`Profile::new`] assumes the least.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// The backend's id, see [`BackendInfo::id`](storage_core::BackendInfo::id).
    pub id: Arc<str>,
    /// The name for people.
    pub name: String,
    /// Which names the store can hold.
    pub naming: Naming,
    /// The most bytes in the name of an object, prefix included.
    pub name_limit: usize,
    /// Whether the store lists in bytewise order of names. Without it a listing is held in memory and sorted.
    pub sorted: bool,
    /// The most parts of a multipart upload; with the part size this limits values.
    pub max_parts: u64,
    /// Whether every write gets an etag that is never used again. An etag that is a hash of the content is not.
    pub version_etags: bool,
    /// Whether the store's conditions on writes are by the version that its answers name, as the generation of Google, not by its
    /// etag. Then that version is the etag that is shown, and a read under a condition looks at it first.
    pub by_version: bool,
    /// Whether conditions on writes are tried on connect. Without it, the store is known to honour them, also when several write at
    /// once: for one that does not take several writes of an object within a second, as they are needed to try.
    pub tries_conditions: bool,
    /// Whether values stay out of this process's memory.
    pub streaming: bool,
    /// The smallest step of the store's time, in whichever answer it is coarsest.
    pub time_granularity: Duration,
    /// How long a write that its caller has given up is waited for, once it was sent. Later calls on its keys wait as well.
    pub timeout: Duration,
}

impl Profile {
    /// A store of which nothing is known: hierarchical, names of 1,024 bytes, unsorted, 10,000 parts, no unique etags, times in
    /// seconds, a timeout of 30 seconds.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        let id = id.into();
        Self {
            name: id.as_ref().to_owned(),
            id,
            naming: Naming::Hierarchical,
            name_limit: 1024,
            sorted: false,
            max_parts: 10_000,
            version_etags: false,
            by_version: false,
            tries_conditions: true,
            streaming: true,
            time_granularity: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        }
    }

    /// [`InMemory`](object_store::memory::InMemory), whose etags are numbers that only go up.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            name: "object_store in memory".to_owned(),
            naming: Naming::Flat,
            name_limit: 4096,
            sorted: true,
            max_parts: u64::MAX,
            version_etags: true,
            streaming: false,
            time_granularity: Duration::from_micros(1),
            ..Self::new("object-store")
        }
    }

    /// [`LocalFileSystem`](object_store::local::LocalFileSystem), which lists in the order of the directory.
    #[must_use]
    pub fn local() -> Self {
        Self {
            name: "object_store on a local disk".to_owned(),
            name_limit: 2048,
            max_parts: u64::MAX,
            time_granularity: Duration::from_micros(1),
            ..Self::new("object-store-local")
        }
    }

    /// Which of the two that an answer names is the etag to show.
    pub(crate) fn shown(&self, etag: Option<String>, version: Option<String>) -> Option<String> {
        if self.by_version { version } else { etag }
    }

    /// The mode of a write that replaces the value with this etag.
    pub(crate) fn update(&self, etag: String) -> PutMode {
        PutMode::Update(match self.by_version {
            true => UpdateVersion { e_tag: None, version: Some(etag) },
            false => UpdateVersion { e_tag: Some(etag), version: None },
        })
    }
}
