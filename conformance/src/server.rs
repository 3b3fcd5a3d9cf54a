//! Tests beside the suite that need a server.

use std::{
    env,
    io::{self, Write},
};

use crate::selection::servers_are_required;

/// What this environment variable says about a server. While it is not set, a test that needs the server says so
/// and ends:
///
/// ```no_run
/// # fn test() {
/// let Some(address) = storage_conformance::server("STORAGE_TEST_X") else { return };
/// # }
/// ```
///
/// # Panics
/// When it is not set although `STORAGE_TEST_REQUIRE` is, as in CI: then the test fails.
#[must_use]
pub fn server(variable: &str) -> Option<String> {
    let address = env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        assert!(!servers_are_required(), "{variable} is not set, it must name the server");
        // Past the macros, whose output the test harness keeps to itself when a test passes.
        let _ = writeln!(io::stderr(), "not run: {variable} is not set");
    }
    address
}
