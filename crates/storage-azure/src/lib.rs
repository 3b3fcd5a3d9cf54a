#![doc = include_str!("../README.md")]

mod backend;
mod calls;
mod config;
mod credentials;
mod error;
mod xml;

pub use storage_object_store::{Config as ObjectStoreConfig, ObjectStoreBackend, http::HttpConfig};

pub use backend::connect;
pub use config::{AzureFactory, Config};
