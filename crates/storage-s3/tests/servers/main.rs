//! What the conformance suite cannot ask: bad input, faults on the network, how many requests each operation costs, versions, what
//! others put into a bucket, and addresses for those without credentials.

#[path = "../bucket/mod.rs"]
mod bucket;
#[path = "../tls/mod.rs"]
mod tls;

mod bad_input;
mod counts;
mod encrypted;
mod faults;
mod objects;
