//! Storage backend over a local directory.
