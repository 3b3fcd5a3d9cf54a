//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;

mod backend;
mod listing;
mod store;
mod transaction;

pub use backend::Memory;
pub use config::{Config, MemoryFactory};
