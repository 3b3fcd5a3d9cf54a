//! Secrets of a target, and whether a text gives one away.

use std::fmt;

use data_encoding::{BASE64, BASE64URL, HEXLOWER};

/// How often a text is decoded: escaped within percent-encoded within escaped.
const DEPTH: usize = 3;
/// Characters of base64 that are enough to tell a secret.
const ENOUGH: usize = 8;

/// How a text may be read.
type Read = fn(&str) -> String;

/// Secrets, and in which notations a text may hold one: as they are, percent-encoded (twice, too, and as a form writes it),
/// escaped as by `Debug` or in JSON, in hexadecimal digits, as a list of bytes, and in base64, also within something longer,
/// as `user:password` is.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Secret>);

#[derive(Clone)]
struct Secret {
    plain: Option<String>,
    encoded: Vec<(&'static str, String)>,
}

impl Secrets {
    /// One more secret.
    pub fn add(&mut self, secret: &[u8]) {
        let list = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let mut encoded = vec![("hexadecimal", HEXLOWER.encode(secret)), ("a list of bytes", list)];
        for before in 0..3 {
            let shifted = [&vec![0; before][..], secret].concat();
            // Without the characters that what stands before and behind has a part in.
            let first = (before * 8).div_ceil(6);
            let end = shifted.len() * 8 / 6;
            for (name, text) in [("base64", BASE64.encode(&shifted)), ("base64url", BASE64URL.encode(&shifted))] {
                let own = &text[first..end];
                if own.len() >= ENOUGH.min(secret.len()) {
                    encoded.push((name, own.to_owned()));
                }
            }
        }
        let plain = std::str::from_utf8(secret).ok();
        let plain = plain.filter(|text| text.chars().all(|c| !c.is_control())).map(str::to_owned);
        self.0.push(Secret { plain, encoded });
    }

    /// Texts in which somebody may have written this word where an address belongs, plain and percent-encoded: as a user, a password, a
    /// part of a path, a query or a fragment.
    #[must_use]
    pub fn in_addresses(word: &str) -> Vec<String> {
        let begins_escaped = word.bytes().take(1).map(|byte| format!("%{byte:02X}")).collect::<String>();
        let rest = word.get(1..).unwrap_or_default();
        vec![
            format!("http://user:{word}@host"),
            format!("http://{word}@host"),
            format!("http://user%3A{word}%40host"),
            format!("http://user:{begins_escaped}{rest}@host"),
            format!("http%3A%2F%2Fuser%3A{word}%40host"),
            format!("//user:{word}@host"),
            format!("user:{word}@host"),
            format!("http://user:{word}/host"),
            format!("http://host/?sig={word}"),
            format!("http://host/%3Fsig%3D{word}"),
            format!("http://host#{word}"),
        ]
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The line that gives a secret away and how; the secret itself is not repeated.
    #[must_use]
    pub fn found_in(&self, text: &str) -> Option<String> {
        let after = |text: &str, at: usize| text[..at].lines().last().unwrap_or_default().to_owned();
        let lower = text.to_lowercase();
        for secret in &self.0 {
            for (name, encoded) in &secret.encoded {
                let within = if *name == "hexadecimal" { &lower } else { text };
                if let Some(at) = within.find(encoded) {
                    return Some(format!("a secret as {name} after {:?}", after(within, at)));
                }
            }
        }
        let mut readings = vec![("plain text", text.to_owned())];
        let mut latest = text.to_owned();
        let ways = [("escaped text", unescaped as Read), ("percent-encoded text", percent_decoded)];
        for (name, read) in ways.into_iter().cycle().take(2 * DEPTH) {
            let read = read(&latest);
            if read != latest {
                latest.clone_from(&read);
                readings.push((name, read));
            }
        }
        for (name, read) in &readings {
            // A form writes a space so.
            let form = read.replace('+', " ");
            for plain in self.0.iter().filter_map(|secret| secret.plain.as_ref()) {
                if let Some((read, at)) = [read, &form].into_iter().find_map(|read| Some((read, read.find(plain)?))) {
                    return Some(format!("a secret as {name} after {:?}", after(read, at)));
                }
            }
        }
        None
    }
}

/// `%41` as `A`; what is no escape stays.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| bytes[i] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                i += 3;
            }
            None => {
                decoded.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// `\"`, `\n`, `\x41`, `\u0041` and `\u{41}` as what they stand for; what is no escape stays.
fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let code = |digits: &str| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        let numbered = if let Some(braced) = escape.strip_prefix("u{") {
            braced.split_once('}').and_then(|(digits, _)| Some((code(digits)?, digits.len() + 3)))
        } else if escape.starts_with('u') {
            escape.get(1..5).and_then(code).map(|c| (c, 5))
        } else if escape.starts_with('x') {
            escape.get(1..3).and_then(code).map(|c| (c, 3))
        } else {
            None
        };
        let named = escape.chars().next().map(|c| match c {
            'n' => ('\n', 1),
            'r' => ('\r', 1),
            't' => ('\t', 1),
            other => (other, other.len_utf8()),
        });
        let Some((c, len)) = numbered.or(named) else {
            rest = "";
            plain.push('\\');
            break;
        };
        plain.push(c);
        rest = &escape[len..];
    }
    plain + rest
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_notation() {
        let secret = "p\"s%3?&word/ü\\";
        let mut secrets = Secrets::default();
        secrets.add(secret.as_bytes());
        let percent: String = secret.bytes().map(|b| format!("%{b:02X}")).collect();
        let twice: String = percent.replace('%', "%25");
        for text in [
            format!("at {secret} there"),
            format!("at {secret:?} there"),
            format!("{:?}", format!("{secret:?}")),
            percent.clone(),
            percent.to_lowercase(),
            twice,
            format!("{:?}", secret.replace('%', "%25").replace('"', "%22").replace('?', "%3f")),
            secret.escape_unicode().to_string(),
            serde_json::to_string(secret).unwrap(),
            HEXLOWER.encode(secret.as_bytes()).to_uppercase(),
            format!("{:?}", secret.as_bytes()),
            BASE64.encode(format!("me:{secret}").as_bytes()),
            BASE64.encode(format!("me2:{secret}@host").as_bytes()),
            BASE64URL.encode(format!("them:{secret}!").as_bytes()),
        ] {
            let found = secrets.found_in(&text).unwrap_or_else(|| panic!("not found in {text}"));
            assert!(!found.contains(secret), "{found}");
        }
        assert_eq!(secrets.found_in("p\"s%3?&wor/ü \\ %zz \\u{zz} \\"), None);
        let mut spaces = Secrets::default();
        spaces.add(b"correct horse");
        assert!(spaces.found_in("key=correct+horse").is_some() && spaces.found_in("correct, horse").is_none());
    }
}
