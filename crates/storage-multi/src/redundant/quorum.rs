//! Reads of a quorum: which write of a key is the newest, and that a quorum has it before anybody is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{Either, pending as never, select},
    stream::FuturesUnordered,
};
use storage_core::{Error, ErrorKind, Key, Result};
use tokio::time::{Instant, sleep};

use super::{Child, Inner, child::Seen};

/// How often it is begun again when others write all the while.
const ROUNDS: usize = 16;
/// A store is given at least this long before another one is asked in its place.
const PATIENCE: Duration = Duration::from_millis(20);

/// After so long another one is asked, however many were asked already.
const LONG: Duration = Duration::from_secs(1);
/// Of so many reads one may ask a store more because another is late.
const HEDGE: u64 = 32;
/// So many of these may come in a row.
const HEDGES: u64 = 16;
/// At every so manieth read the slowest store is asked too.
const PROBE: u64 = 64;

/// How many requests may be made beside those that are needed: of reads, less than one in twenty.
#[derive(Debug)]
pub(super) struct Hedges {
    reads: AtomicU64,
    /// In parts of one.
    saved: AtomicU64,
}

impl Hedges {
    pub(super) fn new() -> Self {
        Self { reads: AtomicU64::new(0), saved: AtomicU64::new(HEDGE * HEDGES) }
    }

    fn earn(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let more = |saved| (saved < HEDGE * HEDGES).then_some(saved + 1);
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn spend(&self) -> bool {
        let less = |saved: u64| saved.checked_sub(HEDGE);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn probes(&self) -> bool {
        self.reads.load(Ordering::Relaxed).is_multiple_of(PROBE)
    }
}

/// The newest that a quorum has, and which stores have it.
pub(super) struct Newest {
    pub(super) seen: Seen,
    /// The store it was seen in first, and the others that have the same.
    pub(super) holders: Vec<(usize, Seen)>,
}

impl Inner {
    /// The stores that count, those first that answer and are fast.
    pub(super) fn ordered(&self) -> Vec<(usize, Arc<Child>)> {
        let mut all: Vec<_> =
            self.children.iter().cloned().enumerate().filter(|(_, child)| !child.is_fenced()).collect();
        all.sort_by_key(|(_, child)| {
            (child.is_open(), child.failing.load(Ordering::Relaxed).min(1), child.latency.load(Ordering::Relaxed))
        });
        all
    }

    /// What so many stores hold under a key. A store that fails or takes much longer than usual is replaced by the next.
    ///
    /// # Errors
    /// `Unavailable` when fewer answer; `Corrupt` when it is damage that keeps them from it.
    pub(super) async fn look(&self, key: &Key, need: usize) -> Result<Vec<(usize, Seen)>> {
        let children = self.ordered();
        self.hedges.earn();
        if let Some((_, child)) = children.last().filter(|_| children.len() > need && self.hedges.probes()) {
            // One that has become fast again is found out by nobody else.
            let (child, key) = (child.clone(), key.clone());
            self.runtime.spawn(async move { child.look(&key).await.map(drop) });
        }
        let mut rest = children.into_iter();
        let mut asked = FuturesUnordered::new();
        let ask = |(at, child): (usize, Arc<Child>)| async move { (at, child.look(key).await) }.boxed();
        let mut wait = PATIENCE;
        let begun = Instant::now();
        let mut pending: Vec<(usize, Arc<Child>)> = Vec::new();
        for child in rest.by_ref().take(need) {
            wait = wait.max(Duration::from_micros(child.1.latency.load(Ordering::Relaxed)) * 4);
            pending.push(child.clone());
            asked.push(ask(child));
        }
        let (mut seen, mut failed) = (Vec::new(), None);
        while seen.len() < need {
            let late = if rest.len() > 0 { sleep(wait).boxed() } else { never().boxed() };
            match select(asked.next(), late).await {
                Either::Left((Some((at, Ok(found))), _)) if found.damaged.is_none() => {
                    pending.retain(|(other, _)| *other != at);
                    seen.push((at, found));
                    continue;
                }
                Either::Left((Some((_, Ok(found))), _)) => failed = failed.or(found.damaged),
                Either::Left((Some((_, Err(e))), _)) => failed = Some(e),
                Either::Left((None, _)) => return Err(self.too_few(need, failed)),
                Either::Right(_) => {
                    pending.iter().for_each(|(_, child)| child.is_late(begun));
                    // Without a budget left it is waited for longer, but not for ever.
                    if begun.elapsed() < LONG && !self.hedges.spend() {
                        continue;
                    }
                }
            }
            if let Some(child) = rest.next() {
                pending.push(child.clone());
                asked.push(ask(child));
            }
        }
        Ok(seen)
    }

    /// Why no quorum answers.
    pub(super) fn too_few(&self, need: usize, why: Option<Error>) -> Error {
        let kind = match why.as_ref().map(Error::kind) {
            Some(
                kind @ (ErrorKind::Corrupt
                | ErrorKind::PermissionDenied
                | ErrorKind::Unauthenticated
                | ErrorKind::Closed),
            ) => kind,
            _ => ErrorKind::Unavailable,
        };
        let mut message = format!("{need} of the {} stores must answer, and fewer do", self.children.len());
        if self.children.iter().any(|child| child.is_fenced()) {
            message += "; some are fenced until `repair` has rebuilt them";
        }
        let e = Error::new(kind, message);
        match why {
            Some(why) => e.with_source(why),
            None => e,
        }
    }

    /// The newest that a read quorum has, once a write quorum has it.
    ///
    /// # Errors
    /// As [`look`](Self::look), and when it cannot be written to a quorum.
    pub(super) async fn newest(self: &Arc<Self>, key: &Key) -> Result<Newest> {
        for _ in 0..ROUNDS {
            let mut seen = self.look(key, self.read_quorum).await?;
            if let Some(newest) = agreed(&seen) {
                return Ok(newest);
            }
            let (_turn, waited) = self.locks.lock(key).await;
            if waited {
                // A write of this instance was under way, and they may agree now.
                seen = self.look(key, self.read_quorum).await?;
                if let Some(newest) = agreed(&seen) {
                    return Ok(newest);
                }
            }
            let at = seen.iter().max_by_key(|(_, seen)| seen.id()).map(|(at, _)| *at);
            if let Some(at) = at {
                let (inner, key) = (self.clone(), key.clone());
                // It goes on if the caller gives up: it changes nothing that anybody can see.
                let spread = self.runtime.spawn(async move { inner.spread(&key, at).await });
                let spread = spread.await.map_err(|e| {
                    Error::new(
                        ErrorKind::Closed,
                        "the runtime in which the store was connected has ended; connect again",
                    )
                    .with_source(e)
                })?;
                // Whatever became of it, nothing was asked for that could be in doubt.
                let spread = spread.map_err(|e| match e.is_ambiguous() {
                    true => Error::new(e.kind(), e.message().to_owned()).with_source(e),
                    false => e,
                });
                if let Some(newest) = spread? {
                    return Ok(newest);
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "the value is written by others all the while; try again"))
    }
}

/// The newest, if all of them have it.
pub(super) fn agreed(seen: &[(usize, Seen)]) -> Option<Newest> {
    let (_, first) = seen.first()?;
    let same = seen.iter().all(|(_, other)| other.id() == first.id());
    let ours = first.entry.is_none() || first.record.is_some();
    (same && ours).then(|| Newest { seen: first.clone(), holders: seen.to_vec() })
}
