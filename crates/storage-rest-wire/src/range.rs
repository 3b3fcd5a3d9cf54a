//! Ranges of values as HTTP has them, which knows no empty ones.

use std::ops::Range;

use storage_core::ByteRange;

/// The header `Range` whose answer holds this range. Of an empty range it is the byte behind its start (of an empty suffix the last one),
/// which the asker leaves away.
#[must_use]
pub fn header(range: ByteRange) -> Option<String> {
    match range {
        ByteRange::Bounded(start, end) => Some(format!("bytes={start}-{}", end.saturating_sub(1).max(start))),
        ByteRange::From(start) => Some(format!("bytes={start}-")),
        ByteRange::Suffix(n) => Some(format!("bytes=-{}", n.max(1))),
        _ => None,
    }
}

/// What a header `Range` asks for, if it is one range of bytes. Any other header is to be ignored (RFC 9110, 14.2).
#[must_use]
pub fn parse(header: &str) -> Option<ByteRange> {
    let (unit, range) = header.trim().split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return None;
    }
    let (start, end) = range.trim().split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that is too large lies behind every value.
    let number = |text: &str| digits(text).then(|| text.parse().unwrap_or(u64::MAX));
    match (start.trim_end(), end.trim_start()) {
        ("", last) => number(last).filter(|n| *n > 0).map(ByteRange::Suffix),
        (start, "") => number(start).map(ByteRange::From),
        (start, end) => {
            let (start, end) = (number(start)?, number(end)?);
            (start <= end).then(|| ByteRange::Bounded(start, end.saturating_add(1)))
        }
    }
}

/// The header `Content-Range` of an answer that holds a range which is not empty.
#[must_use]
pub fn content(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// The header `Content-Range` of a value of this size in which there is nothing to be had.
#[must_use]
pub fn unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

/// What a header `Content-Range` says: the range, and the size of the whole value. `None` for a range where there is none, and for a
/// size that the server does not know.
#[must_use]
pub fn parse_content(header: &str) -> Option<(Option<Range<u64>>, Option<u64>)> {
    let (range, size) = header.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    if range == "*" {
        return Some((None, size));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1).filter(|end| *end > first && size.is_none_or(|size| *end <= size))?;
    Some((Some(first..end), size))
}
