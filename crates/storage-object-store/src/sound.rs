//! Which etags this instance has seen on objects whose metadata can be read.
//!
//! No condition holds of a damaged object, and a listing without metadata tells its etag like any other. A write under an etag that is
//! remembered here needs no look at the object first. What has been forgotten costs a request.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Mutex, PoisonError},
};

use storage_core::{Etag, Key};

use crate::write::bare;

/// How many are remembered at least, once there are so many.
const FEWEST: usize = 8192;

#[derive(Default)]
pub(crate) struct Sound {
    hasher: RandomState,
    seen: Mutex<Seen>,
}

/// Hashes of key and etag. When there are enough of the latest, those before are forgotten.
#[derive(Default)]
struct Seen {
    latest: HashSet<u64>,
    before: HashSet<u64>,
}

impl Sound {
    pub(crate) fn remember(&self, key: &Key, etag: &Etag) {
        let hash = self.hash(key, etag);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.latest.len() >= FEWEST {
            seen.before = mem::take(&mut seen.latest);
        }
        seen.latest.insert(hash);
    }

    pub(crate) fn remembers(&self, key: &Key, etag: &Etag) -> bool {
        let hash = self.hash(key, etag);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.latest.contains(&hash) || seen.before.contains(&hash)
    }

    fn hash(&self, key: &Key, etag: &Etag) -> u64 {
        self.hasher.hash_one((key.as_str(), bare(etag.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_no_more_than_twice_as_many() {
        let sound = Sound::default();
        let etag = |n: usize| Etag::from(format!("\"{n}\""));
        let key = Key::parse("k").unwrap();
        for n in 0..FEWEST * 5 {
            sound.remember(&key, &etag(n));
            assert!(sound.remembers(&key, &etag(n.saturating_sub(FEWEST - 1))), "{n}");
        }
        assert!(sound.remembers(&key, &Etag::from((FEWEST * 5 - 1).to_string())), "without quotes");
        assert!(!sound.remembers(&key, &etag(0)) && !sound.remembers(&Key::parse("l").unwrap(), &etag(FEWEST * 5 - 1)));
        let seen = sound.seen.lock().unwrap();
        assert!(seen.latest.len() + seen.before.len() <= 2 * FEWEST);
    }
}
