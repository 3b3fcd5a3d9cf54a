#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod assert;
mod check;
pub mod checks;
mod cleanup;
mod context;
pub mod crash;
mod each_call;
mod faults;
pub mod html;
pub mod junit;
mod late;
pub mod linearize;
mod main_with;
mod methods;
mod namespace;
mod numbers;
mod process;
pub mod proxy;
mod recorder;
mod refuse;
pub mod report;
mod runner;
pub mod saboteurs;
mod secrets;
mod selection;
mod server;
mod shrink;
mod support;
mod target;
pub mod trouble;
mod writes;

pub use check::{Check, Failure, Outcome, Promise, checks};
pub use context::Context;
pub use each_call::{METHODS, call};
pub use faults::Faults;
pub use main_with::{Origin, main_with};
pub use namespace::Namespace;
pub use process::answer;
pub use recorder::{Log, Recorder};
pub use runner::run;
pub use selection::Selection;
pub use server::server;
pub use target::{IntoTarget, Target};
