//! What a backend says about itself.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Key;

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What this instance, as connected, can do.
        ///
        /// *Semantic* capabilities (`conditional`, `conditional_delete`, `version_etags`, `transactions`, `versioning`, `presign`, `sources`)
        /// decide whether an operation or option works or is refused with `Unsupported`. *Quality* capabilities (the others)
        /// promise how well an operation is done that works either way.
        ///
        /// ```
        /// use storage_core::Capabilities;
        /// let capabilities = Capabilities::new().atomic().conditional();
        /// assert!(capabilities.atomic && !capabilities.transactions);
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct Capabilities { $($(#[$doc])* pub $name: bool,)* }

        impl Capabilities {
            /// None.
            #[must_use]
            pub const fn new() -> Self {
                Self { $($name: false,)* }
            }

            $($(#[$doc])* #[must_use] pub const fn $name(mut self) -> Self {
                self.$name = true;
                self
            })*

            /// Those that both declare: what a layer may promise that forwards the methods of `known` only.
            #[must_use]
            pub const fn and(self, known: Self) -> Self {
                Self { $($name: self.$name && known.$name,)* }
            }

            /// Every capability by name, and whether it is declared.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, bool)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}
capabilities! {
    /// Semantic: `IfAbsent` and `IfMatch` on put, copy and rename are linearizable.
    conditional,
    /// Semantic: `IfMatch` on delete.
    conditional_delete,
    /// Semantic: every write gets an etag that is never used again.
    version_etags,
    /// Semantic: `begin` and atomic batches work, at [`BackendInfo::isolation`].
    transactions,
    /// Semantic: every put makes a version that can be listed, read and deleted.
    versioning,
    /// Semantic: requests can be presigned, at least to read.
    presign,
    /// Semantic: [`PutOptions::source`](crate::PutOptions) names a value that the store fetches itself.
    sources,
    /// Quality: a reader sees the old value with the old metadata or the new with the new, never a mix.
    atomic,
    /// Quality: memory does not grow with the size of a value.
    streaming,
    /// Quality: the store itself evaluates queries.
    queryable,
    /// Quality: values are held in more than one place.
    distributed,
    /// Quality: values are encrypted where they lie.
    encryption,
    /// Quality: values are compressed where they lie.
    compression,
}

/// The largest things a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a key, between [`Key::MIN_LIMIT`] and [`Key::MAX_LEN`].
    pub key: usize,
    /// Bytes of a value.
    pub value: u64,
    /// Bytes of metadata as canonical JSON, at least [`Metadata::MIN_LIMIT`](crate::Metadata::MIN_LIMIT); or 0 for a minimal
    /// backend that keeps none: the handle refuses metadata as `Unsupported` then.
    pub metadata: usize,
    /// The smallest step of `modified` and `created`.
    pub time_granularity: Duration,
}

impl Default for Limits {
    /// The largest keys, values up to `i64::MAX` bytes, 64 KiB of metadata, microseconds.
    fn default() -> Self {
        Self {
            key: Key::MAX_LEN,
            value: i64::MAX as u64,
            metadata: 64 * 1024,
            time_granularity: Duration::from_micros(1),
        }
    }
}

/// A shape of keys, as [`BackendInfo::refused_keys`] names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyShape {
    /// A segment between two `/` is `.` or `..`.
    DotSegment,
    /// It begins with `/`.
    LeadingSlash,
    /// It ends with `/`.
    TrailingSlash,
    /// It has `//` somewhere.
    EmptySegment,
    /// It has a `\\`.
    Backslash,
    /// It has a `%`.
    Percent,
    /// It has a control character (Unicode category `Cc`).
    Control,
    /// It has a character outside of ASCII.
    NonAscii,
    /// A segment between two `/` has more than 255 bytes.
    LongSegment,
}

impl KeyShape {
    /// Every shape.
    pub const ALL: [Self; 9] = [
        Self::DotSegment,
        Self::LeadingSlash,
        Self::TrailingSlash,
        Self::EmptySegment,
        Self::Backslash,
        Self::Percent,
        Self::Control,
        Self::NonAscii,
        Self::LongSegment,
    ];

    /// Whether the key has this shape.
    ///
    /// ```
    /// use storage_core::KeyShape;
    /// assert!(KeyShape::DotSegment.matches("a/../b") && !KeyShape::DotSegment.matches("a/..b"));
    /// ```
    #[must_use]
    pub fn matches(self, key: &str) -> bool {
        match self {
            Self::DotSegment => key.split('/').any(|segment| segment == "." || segment == ".."),
            Self::LeadingSlash => key.starts_with('/'),
            Self::TrailingSlash => key.ends_with('/'),
            Self::EmptySegment => key.contains("//"),
            Self::Backslash => key.contains('\\'),
            Self::Percent => key.contains('%'),
            Self::Control => key.chars().any(char::is_control),
            Self::NonAscii => !key.is_ascii(),
            Self::LongSegment => key.split('/').any(|segment| segment.len() > 255),
        }
    }
}

/// Who sees an acknowledged write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Consistency {
    /// Every handle to the same store, in any process.
    #[default]
    Shared,
    /// Only this instance, as with a cache in between.
    ProcessLocal,
}

/// What concurrent transactions can do to each other. Dirty reads, lost updates and unrepeatable reads are impossible in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Isolation {
    /// Each sees one moment; two that read each other's writes can both commit (write skew).
    #[default]
    Snapshot,
    /// As if one ran after the other.
    Serializable,
}

/// What a backend says about itself, per instance, as connected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackendInfo {
    /// A short stable word: `fs`, `sqlite`, `s3`. It is named in errors, logs and reports.
    pub id: Arc<str>,
    /// The name for people.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// The version of the implementing crate.
    pub version: String,
    /// What works here.
    pub capabilities: Capabilities,
    /// How large things may be.
    pub limits: Limits,
    /// Who sees an acknowledged write.
    pub consistency: Consistency,
    /// What `transactions` promise, where they are declared.
    pub isolation: Isolation,
    /// Shapes of keys that it refuses: the handle answers `InvalidKey` before any I/O. Empty but for minimal backends (the
    /// profile `basic` of the conformance suite), such as one over somebody else's server.
    pub refused_keys: Vec<KeyShape>,
}

impl BackendInfo {
    /// An id and capabilities, default limits; the rest is set by assignment.
    pub fn new(id: impl Into<Arc<str>>, capabilities: Capabilities) -> Self {
        let id = id.into();
        Self {
            name: id.as_ref().to_owned(),
            id,
            description: String::new(),
            version: String::new(),
            capabilities,
            limits: Limits::default(),
            consistency: Consistency::default(),
            isolation: Isolation::default(),
            refused_keys: Vec::new(),
        }
    }
}
