#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;
mod storage;

pub use layer::RetryLayer;
pub use storage::{Retry, RetryIntercept};
