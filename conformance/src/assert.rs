//! What checks say they expect. A failure reads "what: expected …, saw …".

use std::fmt::Debug;

use storage_core::{Error, ErrorKind};

use crate::{Failure, Outcome};

/// How much of a value is shown.
const SHOWN: usize = 400;

/// Fails with the message unless the condition holds.
pub(crate) fn expect(holds: bool, message: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::Failed(message())) }
}

/// Fails unless the two are equal.
pub(crate) fn expect_eq<A: PartialEq<B> + Debug, B: Debug>(what: &str, seen: A, expected: B) -> Outcome {
    expect(seen == expected, || format!("{what}: expected {}, saw {}", brief(&expected), brief(&seen)))
}

/// Fails unless the two lists of keys are equal, and names only keys in which they differ.
pub(crate) fn expect_keys(what: &str, seen: &[String], expected: &[String]) -> Outcome {
    expect(seen == expected, || {
        let not_in = |keys: &[String], others: &[String]| -> Vec<String> {
            keys.iter().filter(|key| !others.contains(key)).take(4).cloned().collect()
        };
        let (missing, others) = (not_in(expected, seen), not_in(seen, expected));
        let (there, here) = (expected.len(), seen.len());
        format!("{what}: expected {there} in order, saw {here}, without {missing:?}, but {others:?}")
    })
}

/// Fails unless the result is an error of this kind, which is returned.
pub(crate) fn expect_kind<T: Debug>(what: &str, result: storage_core::Result<T>, kind: ErrorKind) -> Outcome<Error> {
    match result {
        Err(e) if e.kind() == kind => Ok(e),
        other => Err(format!("{what}: expected the error {kind:?}, saw {}", brief(&other)).into()),
    }
}

/// Fails on `None`.
pub(crate) fn expect_some<T>(what: &str, option: Option<T>) -> Outcome<T> {
    option.ok_or_else(|| format!("{what}: expected something, saw nothing").into())
}

/// The value as text, its middle left out when it is long.
pub(crate) fn brief(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    if text.len() <= SHOWN {
        return text;
    }
    let head: String = text.chars().take(SHOWN / 2).collect();
    let tail: Vec<char> = text.chars().rev().take(SHOWN / 4).collect();
    let tail: String = tail.into_iter().rev().collect();
    format!("{head} … {tail} ({} characters)", text.len())
}

/// Fails unless the bytes are equal, and says where they begin to differ.
pub(crate) fn expect_bytes(what: &str, seen: &[u8], expected: &[u8]) -> Outcome {
    if seen == expected {
        return Ok(());
    }
    let at = seen.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let start = at.min(bytes.len());
        let text = bytes[start..(start + 24).min(bytes.len())].escape_ascii().to_string();
        format!("{} bytes, from {at} on \"{text}\"", bytes.len())
    };
    Err(format!("{what}: expected {}, saw {}", around(expected), around(seen)).into())
}
