//! The versions of one key.

use std::{num::NonZeroUsize, sync::Arc};

use storage_core::{Buffer, Entry, VersionId};

/// One write: never changed once it is there.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) entry: Entry,
    pub(crate) value: Buffer,
}

impl Version {
    pub(super) fn is(&self, version: &VersionId) -> bool {
        self.entry.version.as_ref() == Some(version)
    }
}

/// The versions that are kept of one key. Its newest version is the value, unless the key is hidden.
///
/// Two chains are equal if they are the same one: while a snapshot holds a chain, a change makes a new one. That is what
/// tells a transaction whether a key was written since.
#[derive(Clone)]
pub(crate) struct Chain(Arc<Versions>);

#[derive(Clone)]
struct Versions {
    /// Never empty but on the way out of the store.
    oldest_first: Vec<Arc<Version>>,
    /// Which deletion hides the key, if one does.
    hidden: Option<u64>,
}

impl Chain {
    pub(super) fn new(version: Arc<Version>) -> Self {
        Self(Arc::new(Versions { oldest_first: vec![version], hidden: None }))
    }

    /// The value of the key.
    pub(crate) fn current(&self) -> Option<&Version> {
        let newest = self.0.oldest_first.last();
        newest.filter(|_| self.0.hidden.is_none()).map(|newest| &**newest)
    }

    /// All versions, hidden or not.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Version> {
        self.0.oldest_first.iter().rev().map(|version| &**version)
    }

    /// The deletion that hides the key.
    pub(super) fn hidden(&self) -> Option<u64> {
        self.0.hidden
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.oldest_first.is_empty()
    }

    /// Adds the newest version, and drops the oldest beyond `max`.
    pub(super) fn push(&mut self, version: Arc<Version>, max: NonZeroUsize) {
        let chain = Arc::make_mut(&mut self.0);
        chain.oldest_first.push(version);
        let excess = chain.oldest_first.len().saturating_sub(max.get());
        chain.oldest_first.drain(..excess);
        chain.hidden = None;
    }

    /// Leaves the key without a value.
    pub(super) fn hide(&mut self, deletion: u64) {
        Arc::make_mut(&mut self.0).hidden = Some(deletion);
    }

    /// Drops one version.
    pub(super) fn forget(&mut self, version: &VersionId) {
        Arc::make_mut(&mut self.0).oldest_first.retain(|kept| !kept.is(version));
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
