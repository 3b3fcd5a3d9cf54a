//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod span;
mod storage;

pub use layer::TraceLayer;
pub use span::OperationSpan;
pub use storage::{Trace, TraceIntercept};
