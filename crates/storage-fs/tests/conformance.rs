//! The contract, check by check.

use storage_conformance::{Namespace, Target};
use storage_core::Capabilities;
use storage_fs::Fs;

storage_conformance::main!(
    Target::new("fs", |ns: Namespace| async move { Fs::open(ns.dir()).await })
        .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().unique_etags()),
);
