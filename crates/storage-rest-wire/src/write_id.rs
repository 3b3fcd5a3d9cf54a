//! What makes a write happen once, however often its request arrives.

use std::{fmt, str::FromStr};

use storage_core::{Error, ErrorKind, Result};

/// The id of a write: the run of the server that it is meant for, the time on that server's clock when it was made, and what tells it from
/// every other. Written `boot.milliseconds.unique`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WriteId {
    /// The run of the server, as `GET /v1` names it.
    pub boot: String,
    /// Milliseconds after the start of the server.
    pub at_ms: u64,
    /// Unique among all that are made.
    pub unique: String,
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.boot, self.at_ms, self.unique)
    }
}

impl FromStr for WriteId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let message =
                "a write id is `boot.milliseconds.unique`, of letters, digits, `-` and `_`, 16 to 64 of them unique";
            Error::new(ErrorKind::InvalidInput, message)
        };
        let legal = |text: &str, len: std::ops::RangeInclusive<usize>| {
            len.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let mut parts = text.split('.');
        let (Some(boot), Some(at), Some(unique), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let at_ms = at.parse().ok().filter(|_| at.bytes().all(|byte| byte.is_ascii_digit()));
        if !legal(boot, 1..=64) || !legal(unique, 16..=64) {
            return Err(wrong());
        }
        Ok(Self { boot: boot.into(), at_ms: at_ms.ok_or_else(wrong)?, unique: unique.into() })
    }
}
