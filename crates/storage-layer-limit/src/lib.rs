//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod body;
mod items;
mod storage;

pub use layer::LimitLayer;
pub use storage::{Limit, LimitIntercept};
