#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;

mod backend;
mod open;
mod session;
mod task;
mod transaction;

mod batch;
mod document;
mod fields;
mod condition;
mod copy;
mod files;
mod listing;
mod query;
mod read;
mod replace;
mod upload;
mod versions;
mod write;

mod error;

pub use backend::Mongo;
pub use config::{Config, MongoFactory};
