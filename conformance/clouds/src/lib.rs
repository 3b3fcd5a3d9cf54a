#![doc = include_str!("../README.md")]

mod azure;
mod cloud;
mod server;
mod store;
mod xml;

// Only its features are used.
use reqwest as _;

pub use cloud::Cloud;
pub use server::{Answer, Asked, Server};
pub use store::{Object, Store};
