//! What the conformance suite cannot ask: bad input, how many requests each operation costs, what others put into a bucket, and
//! what a generation is good for, and how requests say who asks.

#[path = "../bucket/mod.rs"]
mod bucket;

mod bad_input;
mod counts;
mod credentials;
mod faults;
mod objects;
