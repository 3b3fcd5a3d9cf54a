//! Moments as RFC 3339 has them, to the nanosecond.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The moment in UTC, with nine digits of a second.
#[must_use]
pub fn format(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// The moment, in whatever zone it is given.
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    DateTime::parse_from_rfc3339(text).ok().map(SystemTime::from)
}

/// The moment as HTTP has it, to the second: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn http(time: SystemTime) -> String {
    // Other years than these it refuses by a panic.
    let known = UNIX_EPOCH..UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    match known.contains(&time) {
        true => httpdate::fmt_http_date(time),
        false => DateTime::<Utc>::from(time).format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
    }
}

pub(crate) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(format).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let read = |text: String| parse(&text).ok_or_else(|| de::Error::custom("a moment is written as in RFC 3339"));
    text.map(read).transpose()
}
