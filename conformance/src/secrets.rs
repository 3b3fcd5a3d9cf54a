//! Secrets of a target, and whether a text gives one away.

use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

/// Secrets, in every notation in which one could be printed.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<Vec<Notation>>);

#[derive(Clone)]
struct Notation {
    name: &'static str,
    text: String,
}

impl Secrets {
    pub(crate) fn add(&mut self, secret: &[u8]) {
        let mut notations = vec![
            Notation { name: "hexadecimal", text: HEXLOWER.encode(secret) },
            Notation { name: "base64", text: BASE64.encode(secret).trim_end_matches('=').to_owned() },
            Notation { name: "base64url", text: BASE64URL_NOPAD.encode(secret) },
            // As `Debug` shows bytes.
            Notation { name: "a list of bytes", text: secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ") },
        ];
        if let Ok(text) = std::str::from_utf8(secret) {
            let plain = text.chars().all(|c| !c.is_control());
            notations.extend(plain.then(|| Notation { name: "plain text", text: text.to_owned() }));
        }
        self.0.push(notations);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The line that gives a secret away and how; the secret itself is not repeated.
    pub(crate) fn found_in(&self, text: &str) -> Option<String> {
        let lower = text.to_lowercase();
        self.0.iter().flatten().find_map(|notation| {
            let at =
                if notation.name == "hexadecimal" { lower.find(&notation.text) } else { text.find(&notation.text) }?;
            let line = text.get(..at).and_then(|before| before.lines().last()).unwrap_or_default();
            Some(format!("a secret as {} after {line:?}", notation.name))
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}
