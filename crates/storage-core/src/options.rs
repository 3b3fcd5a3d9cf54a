//! What can be asked of each operation.
//!
//! Every option defaults to "nothing special", is set by a builder method, and is checked against the backend's
//! capabilities in `check.rs` before a backend sees it.

use std::{
    ops::{Range, RangeFrom, RangeTo},
    sync::Arc,
    time::Duration,
};

use crate::{Entry, Error, ErrorKind, Etag, Metadata, Result, VersionId};

/// A part of a value, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByteRange {
    /// From the first position up to and without the second.
    Bounded(u64, u64),
    /// From this position to the end.
    From(u64),
    /// The last `n` bytes, or the whole value if it is shorter.
    Suffix(u64),
}

impl ByteRange {
    /// The positions in a value of `size` bytes, clamped at its end. A start at the very end is an empty range.
    ///
    /// # Errors
    /// `RangeNotSatisfiable` when the start lies beyond the end; `InvalidInput` when the range ends before it starts.
    pub fn resolve(self, size: u64) -> Result<Range<u64>> {
        self.validate()?;
        let (start, end) = match self {
            Self::Bounded(start, end) => (start, end.min(size)),
            Self::From(start) => (start, size),
            Self::Suffix(n) => (size.saturating_sub(n), size),
        };
        if start > size {
            return Err(Error::new(
                ErrorKind::RangeNotSatisfiable,
                format!("the range starts at {start}, beyond the {size} bytes of the value"),
            ));
        }
        Ok(start..end.max(start))
    }

    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Bounded(start, end) if end < start => {
                Err(Error::new(ErrorKind::InvalidInput, format!("the range {start}..{end} ends before it starts")))
            }
            _ => Ok(()),
        }
    }
}

impl From<Range<u64>> for ByteRange {
    fn from(range: Range<u64>) -> Self {
        Self::Bounded(range.start, range.end)
    }
}

impl From<RangeFrom<u64>> for ByteRange {
    fn from(range: RangeFrom<u64>) -> Self {
        Self::From(range.start)
    }
}

impl From<RangeTo<u64>> for ByteRange {
    fn from(range: RangeTo<u64>) -> Self {
        Self::Bounded(0, range.end)
    }
}

/// What must hold for a write to happen. The check and the write are one step: of two racing writers one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// The key has no value; otherwise `AlreadyExists`.
    IfAbsent,
    /// The value has this etag; otherwise `PreconditionFailed`.
    IfMatch(Etag),
}

impl Condition {
    /// Whether the condition holds of what is there now. Of a damaged entry `IfMatch` never holds.
    ///
    /// # Errors
    /// `AlreadyExists` or `PreconditionFailed`.
    pub fn check(&self, current: Option<&Entry>) -> Result<()> {
        let failed = |kind, message: &str| Err(Error::new(kind, message));
        match (self, current) {
            (Self::IfAbsent, None) => Ok(()),
            (Self::IfAbsent, Some(_)) => failed(ErrorKind::AlreadyExists, "the key already has a value"),
            (Self::IfMatch(_), Some(Entry { damaged: Some(_), .. })) => {
                failed(ErrorKind::PreconditionFailed, "the value is damaged: no etag is its own")
            }
            (Self::IfMatch(etag), Some(entry)) if entry.etag.as_ref() == Some(etag) => Ok(()),
            (Self::IfMatch(_), Some(_)) => failed(ErrorKind::PreconditionFailed, "the value has another etag"),
            (Self::IfMatch(_), None) => failed(ErrorKind::PreconditionFailed, "the key has no value"),
        }
    }
}

impl GetOptions {
    /// Whether `if_match` and `if_none_match` allow to read what is there now.
    ///
    /// # Errors
    /// `PreconditionFailed` or `NotModified`; `Corrupt` for a damaged entry.
    pub fn check_current(&self, current: Option<&Entry>) -> Result<()> {
        if let Some(reason) = current.and_then(|entry| entry.damaged.as_ref()) {
            return Err(reason.clone());
        }
        if let Some(etag) = &self.if_match {
            Condition::IfMatch(etag.clone()).check(current)?;
        }
        let etag = current.and_then(|entry| entry.etag.as_ref());
        if self.if_none_match.is_some() && self.if_none_match.as_ref() == etag {
            return Err(Error::new(ErrorKind::NotModified, "the value still has the etag that the caller knows"));
        }
        Ok(())
    }
}

/// How a value is read in several ranges at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParallelReads {
    /// How many ranges are read at once.
    pub at_once: usize,
    /// How many bytes each has.
    pub chunk: u64,
}

impl GetOptions {
    /// Reads a value of more than `chunk` bytes in ranges of so many bytes, `at_once` of them at once, and yields them in order. All are of one
    /// version: a value that changes meanwhile is `Conflict`. It takes up to `at_once + 1` chunks of memory, and pays where each
    /// request takes long, as over a network. A store without etags is read in one go.
    #[must_use]
    pub fn parallel(self, at_once: usize, chunk: u64) -> Self {
        self.parallel_reads(ParallelReads { at_once, chunk })
    }
}

macro_rules! conditions {
    ($($name:ident)*) => { $(
        impl $name {
            /// Only if the key has no value; otherwise `AlreadyExists`.
            #[must_use]
            pub fn if_absent(self) -> Self {
                self.condition(Condition::IfAbsent)
            }

            /// Only if the value there has this etag; otherwise `PreconditionFailed`.
            #[must_use]
            pub fn if_match(self, etag: &Etag) -> Self {
                self.condition(Condition::IfMatch(etag.clone()))
            }
        }
    )* };
}
conditions! { PutOptions CopyOptions RenameOptions }

impl DeleteOptions {
    /// Only if the value has this etag; otherwise `PreconditionFailed`.
    #[must_use]
    pub fn if_match(self, etag: &Etag) -> Self {
        self.condition(Condition::IfMatch(etag.clone()))
    }
}

/// How often and for how long a transaction that meets a conflict is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// At most so many runs, the first included; 100 unless set.
    pub tries: u32,
    /// No run begins after so long; 30 seconds unless set.
    pub budget: Duration,
}

impl TransactionOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self { tries: 100, budget: Duration::from_secs(30) }
    }

    /// At most so many runs, the first included.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// No run begins after so long.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What an option is that nobody has set.
macro_rules! unset {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty $(= $default:expr)?, $arg:ty => $set:expr;)*
    })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: unset!($($default)?),)* }
            }
        }

        impl $name {
            /// Nothing special.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$field_doc])* #[must_use] pub fn $field(mut self, $field: $arg) -> Self {
                self.$field = $set;
                self
            })*
        }
    )* };
}
options! {
    /// How to read.
    GetOptions {
        /// Only this part of the value.
        range: Option<ByteRange>, impl Into<ByteRange> => Some(range.into());
        /// This version instead of the newest.
        version: Option<VersionId>, VersionId => Some(version);
        /// Fail with `PreconditionFailed` unless the value has this etag.
        if_match: Option<Etag>, Etag => Some(if_match);
        /// Fail with `NotModified` if the value has this etag.
        if_none_match: Option<Etag>, Etag => Some(if_none_match);
        /// A hint: the caller will collect the body anyway, so a backend that can read it in one go should.
        prefer_buffered: bool, bool => prefer_buffered;
        /// Whether the entry is wanted; it is unless this is `false`. A store or layer may then answer with an entry that has key, size,
        /// etag and version alone. The handle sets it, by what its method returns: such an entry never leaves it. A layer that needs
        /// more of the entry asks below for all of it, and whoever keeps such an entry never takes it for a full one.
        entry: bool = true, bool => entry;
        /// Read a large value in several ranges at once; see [`parallel`](GetOptions::parallel). The handle does that: a backend need not
        /// look at it.
        parallel_reads: Option<ParallelReads>, ParallelReads => Some(parallel_reads);
    }
    /// How to write.
    PutOptions {
        /// The new metadata; without it the value has none.
        metadata: Option<Arc<Metadata>>, impl Into<Arc<Metadata>> => Some(metadata.into());
        /// Write only if this holds.
        condition: Option<Condition>, Condition => Some(condition);
        /// A value that the store fetches itself, in its own notation, such as a content identifier; the body must be empty then. Needs
        /// `sources`.
        source: Option<String>, impl Into<String> => Some(source.into());
    }
    /// How to delete.
    DeleteOptions {
        /// Only this version, for good.
        version: Option<VersionId>, VersionId => Some(version);
        /// Delete only if this holds. `IfAbsent` makes no sense here and is `InvalidInput`.
        condition: Option<Condition>, Condition => Some(condition);
    }
    /// How to ask about a value.
    StatOptions {
        /// This version instead of the newest.
        version: Option<VersionId>, VersionId => Some(version);
    }
    /// How to copy.
    CopyOptions {
        /// Copy this version of the source instead of the newest.
        version: Option<VersionId>, VersionId => Some(version);
        /// The target's metadata; without it the source's.
        metadata: Option<Arc<Metadata>>, impl Into<Arc<Metadata>> => Some(metadata.into());
        /// Write the target only if this holds of it.
        condition: Option<Condition>, Condition => Some(condition);
    }
    /// How to rename.
    RenameOptions {
        /// Write the target only if this holds of it.
        condition: Option<Condition>, Condition => Some(condition);
    }
    /// What to list. A listing is always in key order; see `Storage::list_sorted` for others.
    ListOptions {
        /// Only keys that start with this literal text.
        prefix: String, impl Into<String> => prefix.into();
        /// Stop at the first `/` after the prefix and yield what lies below as one common prefix.
        delimited: bool, bool => delimited;
        /// Only items (keys or common prefixes) after this text in bytewise order; it need not exist.
        start_after: Option<String>, impl Into<String> => Some(start_after.into());
        /// At most so many items.
        limit: Option<usize>, usize => Some(limit);
        /// Load each entry's metadata too (one more request per entry on some stores).
        metadata: bool, bool => metadata;
        /// Whether etags and dates of creation are wanted; they are unless this is `false`. A store may then leave out what costs it
        /// another read: `etag`, `created`, and that an entry is damaged. Key, size and `modified` stay.
        etags: bool = true, bool => etags;
    }
    /// How to run a batch.
    BatchOptions {
        /// All or nothing, in one transaction. Needs `transactions`.
        atomic: bool, bool => atomic;
    }
}

impl ListOptions {
    /// The common prefix that a one-level listing shows for this key, up to the first `/` behind the listing's own prefix.
    #[must_use]
    pub fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        let below = key.strip_prefix(self.prefix.as_str()).filter(|_| self.delimited)?;
        below.find('/').map(|slash| &key[..=self.prefix.len() + slash])
    }
}
