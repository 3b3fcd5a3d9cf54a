#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod headers;
pub mod key;
pub mod etag;
pub mod range;
pub mod time;
mod info;
mod entry;
mod problem;
mod requests;
mod lines;
mod write_id;

pub use entry::{EntryJson, metadata_header, parse_metadata_header};
pub use info::{AccessJson, InfoJson, LimitsJson, ServerJson};
pub use lines::{Frame, Frames, Line, Lines};
pub use problem::{Problem, code};
pub use requests::{
    BatchResults, ClearRequest, ConditionJson, CopyRequest, DeleteBatch, DeleteItem, GetBatch, GetItem, ItemResult,
    ListParams, ObjectParams, PresignRequest, PresignedJson, PutItem, RenameRequest, TransactionJson, WrittenJson,
};
pub use write_id::WriteId;

/// The version of the protocol that these types speak.
pub const PROTOCOL: u32 = 1;
