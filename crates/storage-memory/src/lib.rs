//! In-memory storage backend, the reference implementation of the contract.
