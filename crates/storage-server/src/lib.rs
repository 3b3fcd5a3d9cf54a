#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod server;
mod serve;
mod io;

mod app;
mod guard;
mod linger;
mod measure;
mod tokens;
mod call;
mod writes;
mod transactions;
mod uploads;

mod answer;
mod body;
mod parts;
mod objects;
mod resumable;

mod files;
mod v1;
mod batch;
mod sessions;
mod openapi;

pub use config::{CacheRule, Config};
pub use openapi::openapi;
pub use server::{Bound, Server};
