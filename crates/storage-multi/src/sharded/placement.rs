//! Rendezvous hashing: which store has a key. A store that is added or removed changes that for its own share of the keys alone.

use ring::digest::{SHA256, digest};

/// Places of the stores, as many for each as its weight.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The number of the store, and the hash of its name with the number of the place.
    places: Vec<(usize, u64)>,
}

impl Placement {
    /// Of stores by name and weight, where one of weight 0 has no key. Everybody who opens the set must come to the same, in every version of this crate.
    pub(crate) fn new<'a>(stores: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let places = stores
            .into_iter()
            .enumerate()
            .flat_map(|(at, (name, weight))| (0..weight).map(move |place| (at, hash(&format!("{name}#{place}")))));
        Self { places: places.collect() }
    }

    /// The number of the store that has this key.
    pub(crate) fn home(&self, key: &str) -> usize {
        let key = hash(key);
        let best = self.places.iter().max_by_key(|(_, place)| mixed(key ^ place));
        best.map_or(0, |(at, _)| *at)
    }
}

/// The first 64 bits of SHA-256.
fn hash(text: &str) -> u64 {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// The finalizer of MurmurHash3 (`fmix64`), in which every bit of the input changes half of the bits.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ bits >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(placement: &Placement, stores: usize) -> Vec<usize> {
        let mut shares = vec![0; stores];
        (0..30_000).for_each(|n| shares[placement.home(&format!("key/{n}"))] += 1);
        shares
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let even = shares(&Placement::new([("a", 1), ("b", 1), ("c", 1)]), 3);
        assert!(even.iter().all(|share| share.abs_diff(10_000) < 400), "{even:?}");
        let uneven = shares(&Placement::new([("a", 1), ("b", 2), ("c", 3)]), 3);
        assert!(uneven.iter().zip([5_000, 10_000, 15_000]).all(|(share, due)| share.abs_diff(due) < 400), "{uneven:?}");
    }

    #[test]
    fn one_more_store_takes_its_own_share_alone() {
        let three = Placement::new([("a", 1), ("b", 1), ("c", 1)]);
        let four = Placement::new([("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        let homes = (0..30_000).map(|n| format!("key/{n}")).map(|key| (three.home(&key), four.home(&key)));
        let moved: Vec<_> = homes.filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| *after == 3), "a key moved between two stores that stayed");
        assert!(moved.len().abs_diff(7_500) < 400, "{} of 30000", moved.len());
    }

    /// Values that are stored lie where this says.
    #[test]
    fn it_never_changes() {
        let placement = Placement::new([("alpha", 1), ("beta", 2), ("gamma", 1)]);
        let homes: String = (0..40).map(|n| placement.home(&format!("k{n}")).to_string()).collect();
        assert_eq!(homes, "0101110022211202101212110211121111111021");
    }
}
