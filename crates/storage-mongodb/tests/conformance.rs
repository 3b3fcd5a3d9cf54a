//! The conformance suite on a server, as a replica set and as a standalone.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use storage_conformance::Target;
use storage_core::Capabilities;

const ALL: Capabilities =
    Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags().queryable();

fn target(name: &str, standalone: bool, versions: Option<u32>) -> Target {
    let mut capabilities = if standalone { ALL } else { ALL.transactions().distributed() };
    capabilities.versioning = versions.is_some();
    Target::new(name, move |ns| support::open(ns, standalone, versions))
        .needs_env(support::VARIABLE)
        .runs_on("third-party emulator")
        .requires(capabilities)
        .damage(support::damage)
        .cleanup(support::removal())
        .patience(Duration::from_secs(180))
        .group("mongodb")
}

storage_conformance::main!(
    // Each write is several commands there. It comes first: then the checks that put the most keys are others' in a sample.
    target("mongodb-versions", false, Some(1000)).slow(),
    target("mongodb", false, None),
    target("mongodb-standalone", true, None),
);
