//! Which key of a store holds what.
//!
//! | key of the store | |
//! |---|---|
//! | `.storage-multi/marker` | whose store this is |
//! | `.storage-multi/missed/STORE/DIGEST` | a key of which that store missed a write |
//! | `.storage-multi/repair` | how far a repair is |
//! | `.storage-multi/u/REST` | the value of `.storage-multi/REST` |
//! | any other | the value of this key |
//!
//! The user's keys keep their order. All that is not theirs lies in one piece, before `.storage-multi/t`.

use std::borrow::Cow;

use storage_core::{Key, Result};
use storage_layer::Reserved;

/// All that is not the user's, with the metadata field.
pub(crate) const OWN: Reserved = Reserved::new(RESERVED, ESCAPED, "storage.multi");
/// What the names that are not the user's own begin with.
pub(crate) const RESERVED: &str = ".storage-multi/";
/// Where the user's keys lie that begin with the reserved text.
pub(crate) const ESCAPED: &str = ".storage-multi/u/";
/// Where the marker of a store lies.
pub(crate) const MARKER: &str = ".storage-multi/marker";
/// Where it stands what stores missed.
pub(crate) const MISSED: &str = ".storage-multi/missed/";
/// Where it stands how far a repair is.
pub(crate) const REPAIR: &str = ".storage-multi/repair";
/// Behind everything of our own, before the escaped keys.
pub(crate) const BEHIND: &str = ".storage-multi/t";
/// How much longer than the user's a key of the store can be.
pub(crate) const OVERHEAD: usize = ESCAPED.len() - RESERVED.len();

/// The store's text for the user's: a key, a prefix, a start.
pub(crate) fn below(text: &str) -> Cow<'_, str> {
    OWN.below(text)
}

/// The user's text for the store's: a key, a common prefix.
pub(crate) fn above(text: &str) -> Cow<'_, str> {
    OWN.above(text)
}

/// The store's key for the user's.
pub(crate) fn key_below(key: &Key) -> Result<Key> {
    OWN.key_below(key)
}

/// The user's key for the store's.
pub(crate) fn key_above(key: Key) -> Result<Key> {
    OWN.key_above(key)
}

/// Whether a key of the store, or a common prefix, is none of the user's.
pub(crate) fn is_own(text: &str) -> bool {
    OWN.is_own(text)
}

/// Whether keys with this prefix of the user's may lie on both sides of our own.
pub(crate) fn surrounds_our_own(prefix: &str) -> bool {
    RESERVED.starts_with(prefix) && prefix != RESERVED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_name_below_and_the_order_stays() {
        let keys = [
            "!",
            ".storage-multi",
            ".storage-multi/",
            ".storage-multi/a",
            ".storage-multi/marker",
            ".storage-multi/u/",
            ".storage-multi/u/u/x",
            ".storage-multi0",
            "a",
        ];
        let names: Vec<_> = keys.iter().map(|key| below(key).into_owned()).collect();
        assert!(names.is_sorted() && names.iter().all(|name| !is_own(name)), "{names:?}");
        assert!(keys.iter().zip(&names).all(|(key, name)| above(name) == *key));
        assert!(
            is_own(MARKER)
                && is_own(REPAIR)
                && is_own(MISSED)
                && MISSED < BEHIND
                && REPAIR < BEHIND
                && MARKER < BEHIND
                && BEHIND < ESCAPED
        );
    }
}
