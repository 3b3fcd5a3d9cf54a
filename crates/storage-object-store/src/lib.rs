#![doc = include_str!("../README.md")]

mod as_object_store;
mod backend;
mod config;
mod error;
mod framed;
#[cfg(feature = "http")]
pub mod http;
mod list;
mod meta;
mod names;
mod native;
mod pages;
mod probe;
mod profile;
mod progress;
mod read;
mod requests;
mod sound;
mod source;
mod write;

pub use object_store;

pub use as_object_store::AsObjectStore;
pub use backend::ObjectStoreBackend;
pub use config::{Config, ObjectStoreFactory};
pub use native::{CloudExtensions, Copied, ListRequest, ListedObject, Page};
pub use profile::{Naming, Profile};
