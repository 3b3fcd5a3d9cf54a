#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod intercept;
mod intercepted;
mod operation;
mod replay;
mod reserved;
mod resume;
mod transform;
mod transformed;
mod watch;

pub use storage_core::Layer;

pub use intercept::Intercept;
pub use intercepted::Intercepted;
pub use operation::{Bodies, Operation, OperationName, Payload, Retryability};
pub use reserved::Reserved;
pub use resume::Resume;
pub use transform::{Transform, is_about_metadata_alone};
pub use transformed::Transformed;
pub use watch::Watch;

/// The guide's examples are compiled and run with this crate's.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/add-a-layer.md")]
struct Guide;
