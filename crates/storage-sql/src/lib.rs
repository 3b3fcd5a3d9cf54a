#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
compile_error!("storage-sql needs a database: enable its feature `sqlite`, `postgres` or `mysql`");

mod config;

mod backend;
mod log;
mod open;
mod reserve;
mod session;
mod task;
mod transaction;
mod turn;

mod batch;
mod change;
mod chunks;
mod listing;
mod query;
mod read;
mod staging;
mod versions;
mod write;

mod database;
mod dialect;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod encryption;
mod error;
#[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "only SQLite has files"))]
mod files;
mod pool;
mod schema;
mod setup;
mod value;

pub use backend::Sql;
pub use config::{Config, Place, Server, SqlFactory};
pub use storage_config::Durability;
