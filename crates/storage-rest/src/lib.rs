#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;

mod backend;
mod connect;
mod transaction;

mod http;
mod task;
mod upload;
mod write;
mod read;
mod lines;
mod batch;
mod foreign;

mod error;

pub use backend::Rest;
pub use config::{Api, Config, RestFactory};
