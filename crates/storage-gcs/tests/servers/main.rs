//! What the conformance suite cannot ask: bad input, how many requests each operation costs, what others put into a bucket, and
//! what a generation is good for.

#[path = "../bucket/mod.rs"]
mod bucket;

mod bad_input;
mod counts;
mod faults;
mod objects;
