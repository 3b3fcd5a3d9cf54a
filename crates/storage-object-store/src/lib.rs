#![doc = include_str!("../README.md")]

mod as_object_store;
mod backend;
mod config;
mod error;
mod framed;
mod list;
mod meta;
mod names;
mod probe;
mod profile;
mod read;
mod source;
mod write;

pub use object_store;

pub use as_object_store::AsObjectStore;
pub use backend::ObjectStoreBackend;
pub use config::{Config, ObjectStoreFactory};
pub use profile::{Naming, Profile};
