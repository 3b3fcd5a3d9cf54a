//! Times as servers write them, by the book or not.

use chrono::{DateTime, NaiveDateTime, Utc};

/// How HTTP writes a time (RFC 9110, section 5.6.7), without its zone, which is GMT: the form to use, and the two old ones.
const HTTP: [&str; 3] = ["%a, %d %b %Y %H:%M:%S", "%A, %d-%b-%y %H:%M:%S", "%a %b %e %H:%M:%S %Y"];
/// How ISO 8601 writes a time, without its zone.
const ISO: [&str; 2] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y%m%dT%H%M%S%.f"];

/// A time as HTTP, RFC 5322 or ISO 8601 has it, with a space for the `T` too. Without a zone it is UTC. What is none of these is
/// `None`: no time is better than a wrong one.
#[must_use]
pub fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc2822(text) {
        return Some(time.to_utc());
    }
    let plain = ["GMT", "UTC", "Z", "z"].iter().find_map(|zone| text.strip_suffix(zone)).unwrap_or(text).trim_end();
    if let Some(time) = HTTP.iter().find_map(|form| NaiveDateTime::parse_from_str(plain, form).ok()) {
        return Some(time.and_utc());
    }
    let with_t = |text: &str| match text.split_once([' ', 't']) {
        Some((date, time)) => format!("{}T{}", date.trim_end(), time.trim_start()).replace(',', "."),
        None => text.replace(',', "."),
    };
    let (iso, plain) = (with_t(text), with_t(plain));
    let zoned = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f %#z"];
    let zoned = zoned.iter().find_map(|form| DateTime::parse_from_str(&iso, form).ok());
    let utc = || ISO.iter().find_map(|form| NaiveDateTime::parse_from_str(&plain, form).ok());
    zoned.map(|time| time.to_utc()).or_else(|| Some(utc()?.and_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_servers_write_them() {
        let exact = "2026-01-02T03:04:05Z";
        let read = |text: &str| time(text).map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
        for text in [
            exact,
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05",
            "2026-01-02 03:04:05Z",
            "2026-01-02 03:04:05 UTC",
            "2026-01-02T03:04:05+00:00",
            "2026-01-02 05:04:05 +0200",
            "2026-01-02T05:04:05+02",
            "2026-01-02t03:04:05z",
            "20260102T030405Z",
            " 2026-01-02T03:04:05Z\n",
            "Fri, 02 Jan 2026 03:04:05 GMT",
            "Fri, 02 Jan 2026 03:04:05",
            "Fri, 02 Jan 2026 03:04:05 UTC",
            "Fri, 02 Jan 2026 05:04:05 +0200",
            "Friday, 02-Jan-26 03:04:05 GMT",
            "Fri Jan  2 03:04:05 2026",
        ] {
            assert_eq!(read(text).as_deref(), Some(exact), "{text}");
        }
        for text in ["2026-01-02T03:04:05.678Z", "2026-01-02 03:04:05.678", "2026-01-02T03:04:05,678+00:00"] {
            assert_eq!(read(text).as_deref(), Some("2026-01-02T03:04:05.678Z"), "{text}");
        }
        for none in ["", "0", "-1", "soon", "2026-01-02", "03:04:05", "2026-13-02T03:04:05Z", "1767323045", "null"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
