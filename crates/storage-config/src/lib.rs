#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod connection;
mod factory;
mod context;
mod secret;
mod value;
mod nearest;

pub use connection::{ConnectionConfig, Durability};
pub use context::{
    Clock, CredentialProvider, KeyProvider, OpenStore, StorageContext, StoreConfig, SystemClock, WrappedKey,
};
pub use factory::{BackendFactory, LayerFactory, layer_factory};
pub use nearest::nearest;
pub use secret::{DataKey, Secret};
