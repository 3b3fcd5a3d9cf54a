#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(not(feature = "sqlite"))]
compile_error!("storage-sql needs a database: enable its feature `sqlite`");

mod config;

mod backend;
mod session;
mod task;
mod transaction;

mod batch;
mod chunks;
mod listing;
mod query;
mod read;
mod staging;
mod write;

mod dialect;
mod error;
mod schema;

pub use backend::Sql;
pub use config::{Config, SqlFactory};
pub use storage_core::Durability;
