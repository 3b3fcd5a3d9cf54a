//! Whether SlateDB, a database on object storage, runs on our storages: see `tests/slatedb.rs`.
