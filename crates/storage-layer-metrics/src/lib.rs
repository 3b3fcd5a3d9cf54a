//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod layer;

mod measure;
pub mod names;
mod storage;

pub use layer::MetricsLayer;
pub use measure::Measurement;
pub use storage::{Metrics, MetricsIntercept};
