#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod assert;
mod check;
pub mod checks;
mod context;
pub mod crash;
mod each_call;
mod faults;
pub mod html;
pub mod junit;
mod linearize;
mod main_with;
mod methods;
mod namespace;
mod process;
mod proxy;
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

pub use check::{Check, Failure, Outcome, checks};
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

/// Writes the `main` function of a test with `harness = false`, which runs all checks on the targets.
///
/// Each argument is a [`Target`] or a bare factory `|ns: Namespace| async move { … }`; the target is then called like
/// the package. If `harness = false` was forgotten, the one test that remains fails and says so.
#[macro_export]
macro_rules! main {
    ($($target:expr),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            let origin = $crate::Origin {
                package: env!("CARGO_PKG_NAME"),
                test: env!("CARGO_CRATE_NAME"),
            };
            $crate::main_with(origin, vec![$($crate::IntoTarget::into_target($target, origin.package)),+])
        }

        #[test]
        fn harness_must_be_off() {
            panic!(
                "no check has run: add `[[test]] name = {:?} harness = false` to Cargo.toml",
                env!("CARGO_CRATE_NAME")
            );
        }
    };
}
