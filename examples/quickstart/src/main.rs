//! Q.
fn main() {}
