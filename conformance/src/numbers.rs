//! Numbers at which stores go wrong, and how long a check goes on trying more of them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::Context;

/// How long a check tries more and more numbers. A store that is quick comes to the end of them long before.
const PATIENCE: Duration = Duration::from_secs(20);

/// One below, at and one above every power of two and of ten up to `most`.
pub(crate) fn around(most: usize) -> BTreeSet<usize> {
    let powers = |base: usize| std::iter::successors(Some(base), move |n| n.checked_mul(base));
    let all = powers(2).take_while(|n| n / 2 <= most).chain(powers(10).take_while(|n| n / 10 <= most));
    all.flat_map(|n| [n - 1, n, n + 1]).filter(|n| *n <= most).collect()
}

/// Sizes of values, from small to large: around every power up to a megabyte, at the sizes of blocks and parts up to 10 MiB,
/// and a few that depend on the seed; none above what a value can have.
pub(crate) fn value_sizes(c: &Context) -> BTreeSet<usize> {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    let mut rng = c.rng();
    let mut sizes = around(MIB + 1);
    for (block, plus_or_minus) in
        [(255 * KIB, 1), (2 * MIB, 0), (4 * MIB, 0), (5 * MIB, 1), (8 * MIB, 1), (10 * MIB, 0)]
    {
        sizes.extend([block - plus_or_minus, block, block + plus_or_minus]);
    }
    sizes.insert(10_000_000);
    for _ in 0..6 {
        let most = 1 << rng.u32(4..22);
        sizes.insert(rng.usize(0..most));
    }
    sizes.into_iter().map(|size| c.size(size)).collect()
}

/// How long a check goes on: on a store that is slow it tries fewer numbers, and does not count as hung.
#[derive(Debug)]
pub(crate) struct Pace {
    started: Instant,
}

impl Pace {
    pub(crate) fn begin() -> Self {
        Self { started: Instant::now() }
    }

    /// Whether there is time for more.
    pub(crate) fn goes_on(&self) -> bool {
        self.started.elapsed() < PATIENCE
    }

    /// Whether there is time to write `more` entries, going by the `done` ones that were written since the beginning.
    pub(crate) fn allows(&self, done: usize, more: usize) -> bool {
        let elapsed = self.started.elapsed();
        // What was written is then looked at, and deleted.
        elapsed + elapsed.mul_f64(more as f64 / done.max(1) as f64) < PATIENCE / 4
    }
}
