#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

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
mod write;

mod dialect;
mod error;
mod schema;

pub use backend::Sql;
pub use config::{Config, Durability, SqlFactory};
