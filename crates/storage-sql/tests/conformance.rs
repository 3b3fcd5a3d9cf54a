//! The suite on this backend.
fn main() {}
