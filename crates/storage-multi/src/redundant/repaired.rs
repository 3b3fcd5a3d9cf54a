//! How a repair works, and what it did.

use std::{fmt, sync::Arc};

/// Called with what was done until now.
type Progress = Arc<dyn Fn(&Repaired) + Send + Sync>;

/// How a repair works.
#[derive(Clone)]
#[non_exhaustive]
pub struct RepairOptions {
    /// Whether a repair that was broken off is gone on with, rather than begun again; it is unless this is `false`.
    pub resume: bool,
    /// Whether only those keys are mended of which it is written down that a store missed a write, so that no listing of everything is
    /// read. That finds what this crate noticed, and rebuilds no fenced store; it is not so unless this is `true`.
    pub missed_only: bool,
    progress: Option<Progress>,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl RepairOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self { resume: true, missed_only: false, progress: None }
    }

    /// Whether a repair that was broken off is gone on with.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Whether only those keys are mended of which it is written down that a store missed a write.
    #[must_use]
    pub fn missed_only(mut self, missed_only: bool) -> Self {
        self.missed_only = missed_only;
        self
    }

    /// Calls this after every thousand keys and at the end, with what was done until then.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(&Repaired) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    pub(super) fn tell(&self, report: &Repaired) {
        self.progress.iter().for_each(|progress| progress(report));
    }
}

impl fmt::Debug for RepairOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepairOptions")
            .field("resume", &self.resume)
            .field("missed_only", &self.missed_only)
            .finish_non_exhaustive()
    }
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Keys that were compared, deleted ones included.
    pub keys: u64,
    /// Values, and deletions, that were written to a store which had not the newest.
    pub written: u64,
    /// Bytes of these values.
    pub bytes: u64,
    /// Values that were removed from a fenced store, for the others have none.
    pub removed: u64,
    /// Deleted keys that are forgotten, a week after they were deleted.
    pub forgotten: u64,
    /// Keys that could not be made equal; another repair tries them again.
    pub failed: u64,
    /// Stores that could not be reached and stay as they are.
    pub unreachable: Vec<Arc<str>>,
    /// The key behind which it began, where it went on with one that was broken off.
    pub resumed_after: Option<String>,
}
