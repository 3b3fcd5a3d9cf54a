//! The crate's documentation is its README.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;

mod backend;
mod batch;
mod blocking;
mod error;

mod store;

mod read;
mod write;

mod changes;
mod list;
mod lock;
mod name;
mod probe;
mod record;
mod stage;
mod tree;
mod walk;

pub use backend::Fs;
pub use config::{Config, FsFactory};
pub use storage_config::Durability;
