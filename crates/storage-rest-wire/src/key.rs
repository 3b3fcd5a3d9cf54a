//! Keys in paths: percent-encoded as one segment below `/files`, in base64url below `/v1`.

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use storage_core::{Error, ErrorKind, Key, KeyShape, Result};

/// Everything but letters, digits, `-`, `_` and `.`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The shapes of keys that clients or proxies change on their way below `/files`.
pub const REFUSED: [KeyShape; 7] = [
    KeyShape::DotSegment,
    KeyShape::LeadingSlash,
    KeyShape::TrailingSlash,
    KeyShape::EmptySegment,
    KeyShape::Backslash,
    KeyShape::Percent,
    KeyShape::Control,
];

/// The key as one segment of a path.
#[must_use]
pub fn segment(key: &Key) -> String {
    utf8_percent_encode(key.as_str(), SEGMENT).to_string()
}

/// The key that a segment of a path means, whatever of it is encoded.
///
/// # Errors
/// `InvalidKey` when it does not decode to a key.
pub fn parse_segment(segment: &str) -> Result<Key> {
    let bytes = segment.as_bytes();
    let is_escape = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !is_escape(at)) {
        return Err(invalid("the key in the path has a `%` that begins no escape; write it as `%25`"));
    }
    let text = percent_decode_str(segment).decode_utf8();
    Key::parse(&text.map_err(|_| invalid("the key in the path is not UTF-8"))?)
}

/// The shape for which this key has no address below `/files`.
#[must_use]
pub fn refused(key: &Key) -> Option<KeyShape> {
    REFUSED.into_iter().find(|shape| shape.matches(key.as_str()))
}

/// Any key in base64url without padding.
#[must_use]
pub fn encode(key: &Key) -> String {
    BASE64URL_NOPAD.encode(key.as_str().as_bytes())
}

/// The key that such a text means.
///
/// # Errors
/// `InvalidKey` when it does not decode to a key.
pub fn decode(encoded: &str) -> Result<Key> {
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes());
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    Key::parse(&text.ok_or_else(|| invalid("the key in the path is not base64url (without padding) of UTF-8"))?)
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidKey, message)
}
