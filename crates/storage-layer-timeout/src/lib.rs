//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod storage;

pub use layer::TimeoutLayer;
pub use storage::{Timeout, TimeoutIntercept};
