//! Etags and versions as headers have them.

use std::fmt::Write;

use percent_encoding::percent_decode_str;
use storage_core::{Error, ErrorKind, Etag, Result};

/// The etag as a strong one of HTTP, in quotes. What cannot stand there, and `%`, is percent-encoded.
#[must_use]
pub fn quoted(etag: &Etag) -> String {
    let text = etag.as_str();
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    encode(text, &mut quoted);
    quoted.push('"');
    quoted
}

/// A text of an opaque token without quotes: visible ASCII, the rest percent-encoded, and `%` and `"` too.
#[must_use]
pub fn token(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode(text, &mut encoded);
    encoded
}

fn encode(text: &str, encoded: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'"' && byte != b'%' => encoded.push(byte.into()),
            // Writing into a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
}

/// The text that [`token`] encodes.
///
/// # Errors
/// `InvalidInput` when it is not UTF-8.
pub fn parse_token(token: &str) -> Result<String> {
    let text = percent_decode_str(token).decode_utf8();
    text.map(Into::into).map_err(|_| Error::new(ErrorKind::InvalidInput, "an etag or version is not UTF-8"))
}

/// What a header such as `If-Match` lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// `*`: whatever is there.
    Any,
    /// These, each with whether it is a weak one.
    These(Vec<(Etag, bool)>),
}

impl Listed {
    /// Reads a list of etags.
    ///
    /// # Errors
    /// `InvalidInput` when it is none.
    pub fn parse(header: &str) -> Result<Self> {
        let wrong = || Error::new(ErrorKind::InvalidInput, "a condition must be `*`, or etags in quotes");
        let mut rest = header.trim();
        if rest == "*" {
            return Ok(Self::Any);
        }
        let mut etags = Vec::new();
        loop {
            let weak = rest.strip_prefix("W/");
            let (token, behind) =
                weak.unwrap_or(rest).strip_prefix('"').and_then(|text| text.split_once('"')).ok_or_else(wrong)?;
            etags.push((Etag::new(parse_token(token)?), weak.is_some()));
            rest = behind.trim_start();
            if rest.is_empty() {
                return Ok(Self::These(etags));
            }
            rest = rest.strip_prefix(',').ok_or_else(wrong)?.trim_start();
        }
    }

    /// Whether the strong comparison finds this etag, as for `If-Match`.
    #[must_use]
    pub fn has(&self, etag: Option<&Etag>) -> bool {
        match self {
            Self::Any => true,
            Self::These(etags) => etags.iter().any(|(listed, weak)| !weak && Some(listed) == etag),
        }
    }

    /// Whether the weak comparison finds this etag, as for `If-None-Match`.
    #[must_use]
    pub fn has_weakly(&self, etag: Option<&Etag>) -> bool {
        match self {
            Self::Any => true,
            Self::These(etags) => etags.iter().any(|(listed, _)| Some(listed) == etag),
        }
    }
}
