//! What the conformance suite cannot ask: bad input, how many requests each operation costs, what others put into a container,
//! other credentials, encrypted connections, and an account in trouble.

#[path = "../container/mod.rs"]
mod container;
#[path = "../../../storage-s3/tests/tls/mod.rs"]
mod tls;

mod bad_input;
mod blobs;
mod counts;
mod encrypted;
mod faults;
