//! The headers of our own. Every name begins with `storage-`; a server refuses those of a request that it does not know.

/// Metadata as canonical JSON, in base64url without padding: of a request what is to be stored, of an answer what is.
pub const METADATA: &str = "storage-metadata";
/// What else is known of an entry, an [`EntryJson`](crate::EntryJson) without key and metadata, in base64url without padding.
pub const ENTRY: &str = "storage-entry";
/// The version of the value in an answer.
pub const VERSION: &str = "storage-version";
/// A value that the store is to fetch itself, in base64url without padding.
pub const SOURCE: &str = "storage-source";
/// The id of a transaction that the request belongs to.
pub const TRANSACTION: &str = "storage-transaction";
/// The id of a write, which makes it happen once however often it is sent; see [`WriteId`](crate::WriteId).
pub const WRITE_ID: &str = "storage-write-id";
/// Of an answer that is an error: its kind, or [`ABSENT`].
pub const ERROR: &str = "storage-error";
/// What [`ERROR`] says when the key has no value, or the version does not exist.
pub const ABSENT: &str = "absent";

/// Those that a request may have.
pub const OF_REQUESTS: [&str; 4] = [METADATA, SOURCE, TRANSACTION, WRITE_ID];
