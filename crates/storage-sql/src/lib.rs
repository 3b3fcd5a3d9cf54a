//! Storage backend over SQL databases.
