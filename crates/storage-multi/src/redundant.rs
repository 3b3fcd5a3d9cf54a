//! The strategy `redundant`: every store holds every value, and a quorum of them decides.

mod backend;
mod checkpoint;
mod child;
mod journal;
mod listing;
mod open;
mod quorum;
mod record;
mod repair;
mod repaired;
mod status;
mod write;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use storage_config::Clock;
use storage_core::{BackendInfo, Error, ErrorKind, Result, pending::Writes};
use tokio::runtime::Handle;

use crate::marker::Marker;
use child::{Child, Locks};
pub(crate) use open::Redundancy;
pub use open::RedundantOptions;
use quorum::Hedges;
use record::WriteId;
pub use repaired::{RepairOptions, Repaired};
pub use status::StoreStatus;

/// The furthest that the clock of another writer may be ahead.
const SKEW: Duration = Duration::from_secs(60);

/// Several stores as one, each of which holds every value. Clones share it.
#[derive(Clone)]
pub struct Redundant(Arc<Inner>);

struct Inner {
    info: BackendInfo,
    /// Of the set: those of further stores are made after it.
    marker: Marker,
    /// In the order of their names.
    children: Vec<Arc<Child>>,
    /// How many stores a write needs, and how many a read.
    write_quorum: usize,
    read_quorum: usize,
    runtime: Handle,
    writes: Writes,
    locks: Locks,
    hedges: Hedges,
    /// How long what stands for a deleted value is kept.
    tombstone_lifetime: Duration,
    clock: Arc<dyn Clock>,
    node: u64,
    /// The time of the last id.
    last: Mutex<u64>,
}

impl Inner {
    /// An id that no write has, above this one.
    ///
    /// # Errors
    /// `Other` when that one is far ahead of the clock.
    fn next_id(&self, above: Option<WriteId>) -> Result<WriteId> {
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let above = above.map_or(0, |id| id.micros);
        if above > now.saturating_add(SKEW.as_micros().try_into().unwrap_or(u64::MAX)) {
            let what =
                "the value was written by a clock that is more than 60 seconds ahead of this one; correct the clocks";
            return Err(Error::new(ErrorKind::Other, what));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = now.max(*last + 1).max(above + 1);
        Ok(WriteId { micros: *last, node: self.node })
    }
}

impl fmt::Debug for Redundant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redundant").field("children", &self.0.children).finish_non_exhaustive()
    }
}
