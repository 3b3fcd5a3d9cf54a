#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod store;
mod strategy;

mod redundant;
mod sharded;

mod marker;
mod names;
mod streams;

mod error;

pub use config::{Config, MultiFactory, StoreEntry};
pub use redundant::{Redundant, RedundantOptions, RepairOptions, Repaired, StoreStatus};
pub use sharded::{RebalanceOptions, Rebalanced, Sharded, ShardedOptions};
pub use store::Store;
pub use strategy::Strategy;
