//! How long to wait before what met a conflict is tried again.

use std::time::{Duration, Instant};

use futures_timer::Delay;

use crate::TransactionOptions;

/// The longest first wait; each further one is half as long again, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(500);

pub(super) struct Backoff {
    begun: Instant,
    budget: Duration,
    left: u32,
    longest: Duration,
}

impl Backoff {
    pub(super) fn begin(options: &TransactionOptions) -> Self {
        let TransactionOptions { tries, budget } = *options;
        Self { begun: Instant::now(), budget, left: tries, longest: FIRST }
    }

    /// Waits before the next try; `false` if there is none. Full jitter: anything up to the longest wait, so that those who met
    /// each other do not come back together.
    pub(super) async fn again(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        let wait = self.longest.mul_f64(fastrand::f64());
        if self.left == 0 || self.begun.elapsed() + wait > self.budget {
            return false;
        }
        self.longest = self.longest.mul_f64(1.5).min(LONGEST);
        Delay::new(wait).await;
        true
    }
}
