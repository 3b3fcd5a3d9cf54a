//! Which key of the backend below holds what.
//!
//! | key below | |
//! |---|---|
//! | `.versions/h/LENGTH/KEY/NUMBER.MARK` | an older version of `KEY`, which has `LENGTH` bytes; of `NUMBER`, the upper half is its place |
//! | `.versions/s/TOKEN` | a streamed value on its way in |
//! | `.versions/u/REST` | the value of `.versions/REST` |
//! | any other | the value of this key |
//!
//! The user's keys keep their order. All that is the layer's own lies in one piece, before `.versions/t`.

use std::borrow::Cow;

use storage_core::{Entry, Key, Result, VersionId};
use storage_layer::Reserved;

/// All that is not the user's, with the metadata field.
pub(crate) const OWN: Reserved = Reserved::new(RESERVED, ESCAPED, "storage.version");
/// What the names that are not the user's own begin with.
pub(crate) const RESERVED: &str = ".versions/";
/// Where the user's keys lie that begin with the reserved text.
pub(crate) const ESCAPED: &str = ".versions/u/";
/// Where older versions lie.
pub(crate) const HISTORY: &str = ".versions/h/";
/// Where streamed values lie on their way in.
pub(crate) const STAGING: &str = ".versions/s/";
/// Behind everything of the layer's own, before the escaped keys.
pub(crate) const BEHIND: &str = ".versions/t";

/// How much longer the name of an older version is than its key: the length has up to four digits.
pub(crate) const OVERHEAD: usize = HISTORY.len() + "1024/".len() + "/0123456789abcdef.0123456789abcdef".len();

/// The backend's text for the user's: a key, a prefix, a start.
pub(crate) fn below(text: &str) -> Cow<'_, str> {
    OWN.below(text)
}

/// The user's text for the backend's: a key, a common prefix.
pub(crate) fn above(text: &str) -> Cow<'_, str> {
    OWN.above(text)
}

/// The backend's key for the user's.
pub(crate) fn key_below(key: &Key) -> Result<Key> {
    OWN.key_below(key)
}

/// The user's key for the backend's.
pub(crate) fn key_above(key: Key) -> Result<Key> {
    OWN.key_above(key)
}

/// What the names of a key's older versions begin with. The length in front keeps `a` and `a/b` apart.
pub(crate) fn history(key: &Key) -> String {
    let key = key.as_str();
    format!("{HISTORY}{}/{key}/", key.len())
}

/// A staging key.
pub(crate) fn staging(token: &str) -> Result<Key> {
    Key::parse(&format!("{STAGING}{token}"))
}

/// An older version, as its name tells.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    /// Its place among the versions of its key.
    pub(crate) number: u64,
    /// The mark of its version.
    pub(crate) mark: u64,
    /// The entry below.
    pub(crate) stored: Entry,
}

impl Past {
    /// The version with this number.
    pub(crate) fn new(key: &Key, number: u64, mark: u64, size: u64) -> Result<Self> {
        let stored = Key::parse(&format!("{}{number:016x}.{mark:016x}", history(key)))?;
        Ok(Self { number, mark, stored: Entry::new(stored, size) })
    }

    /// What lies under such a name; `None` for what others put there.
    pub(crate) fn parse(history: &str, stored: Entry) -> Option<Self> {
        let (number, mark) = stored.key.as_str().strip_prefix(history)?.split_once('.')?;
        let hex = |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?;
        Some(Self { number: hex(number)?, mark: hex(mark)?, stored })
    }
}

/// The number of a version that follows these: 32 bits of place, and 32 that no other writer of the same value has.
pub(crate) fn next(newest: Option<&Past>) -> u64 {
    let place = newest.map_or(0, |newest| newest.number >> 32);
    (place + 1).min(u64::from(u32::MAX)) << 32 | u64::from(fastrand::u32(..))
}

/// Sixty-four bits that stand for a version in a name: FNV-1a, which never changes. What is read is checked against the
/// stamp, so two versions with the same mark do no harm.
pub(crate) fn mark(version: &VersionId) -> u64 {
    let bytes = version.as_str().bytes();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
