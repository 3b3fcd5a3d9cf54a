#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;

mod backend;
mod open;
mod store;
mod task;
mod transaction;

mod car;
mod change;
mod commits;
mod export;
mod pinned;
mod pins;
mod query;
mod read;
mod record;
mod sweep;
mod write;

mod add;
mod blocks;
mod http;
mod mfs;
mod node;
mod pinning;
mod plain;
mod unixfs;

mod error;

pub use backend::Ipfs;
pub use config::{Config, IpfsFactory};
pub use export::Exported;
pub use pinning::RemotePin;
