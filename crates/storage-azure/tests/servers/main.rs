//! What the conformance suite cannot ask: bad input, how many requests each operation costs, what others put into a container,
//! other credentials, and an account in trouble.

#[path = "../container/mod.rs"]
mod container;

mod bad_input;
mod blobs;
mod counts;
mod faults;
