//! The checks. A file is a group, a `pub async fn` in it is a check, its doc comment is the rule it proves.
//!
//! `/// Needs: a, b` names capabilities without which the rule does not apply; `/// Profile: full` leaves a check out of
//! the profile `basic`. `build.rs` collects them.
#![expect(clippy::missing_errors_doc, reason = "a check has one outcome for all: its rule does not hold")]

pub mod basic;
pub mod batch;
pub mod cancellation;
pub mod clear;
pub mod concurrency;
pub mod conditional;
pub mod copy;
pub mod counts;
pub mod damaged;
pub mod dropped;
pub mod entries;
pub mod errors;
pub mod faults;
pub mod filters;
pub mod info;
pub mod isolation;
pub mod keys;
pub mod lifecycle;
pub mod list;
pub mod metadata;
pub mod model;
pub mod names;
pub mod network;
pub mod presign;
pub mod query;
pub mod races;
pub mod range;
pub mod readonly;
pub mod rename;
pub mod sizes;
pub mod stream;
pub mod transactions;
pub mod versioning;
