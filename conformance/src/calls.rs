//! The calls that a check makes: the last ones, for the message of a failure, and those under way, for one that hangs.

mod describe;
mod log;
mod traced;

pub(crate) use describe::{failed, put, query};
pub(crate) use log::Calls;
pub(crate) use traced::Traced;
