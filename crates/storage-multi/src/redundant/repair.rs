//! Making all stores equal, those that were emptied included.

use std::sync::{Arc, atomic::Ordering};

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use storage_core::{Condition, DeleteOptions, Entry, Error, ErrorKind, Key, ListItem, ListOptions, Result};

use super::{
    Child, Inner, Redundant,
    checkpoint::Checkpoint,
    child::Seen,
    journal::Missed,
    listing::in_order,
    record::time,
    repaired::{RepairOptions, Repaired},
};
use crate::{marker::Marker, names, streams};

/// After so many keys it is noted how far a repair is.
const STRETCH: u64 = 1000;

impl Redundant {
    /// Compares the listings of all stores and gives each the newest of every key, as [`repair_with`](Self::repair_with) does by default.
    ///
    /// # Errors
    /// As [`repair_with`](Self::repair_with).
    pub async fn repair(&self) -> Result<Repaired> {
        self.repair_with(RepairOptions::new()).await
    }

    /// Compares the listings of all stores, range by range, and gives each the newest of every key. A fenced store is rebuilt by that, and counts
    /// again when nothing failed. Everything goes on meanwhile. Beside the listings, only values that differ are read. How far it is
    /// stands in the stores, and one that was broken off is gone on with.
    ///
    /// # Errors
    /// `Unavailable` when fewer stores than a read needs can be reached; those of a listing.
    pub async fn repair_with(&self, options: RepairOptions) -> Result<Repaired> {
        let inner = &self.0;
        let mut report = Repaired::default();
        let present = inner.reached(&mut report).await;
        if present.iter().filter(|(_, child)| !child.is_fenced()).count() < inner.read_quorum {
            return Err(inner.too_few(inner.read_quorum, None));
        }
        let journal = inner.journal(&present).await?;
        if options.missed_only {
            inner.mend(journal, &present, &mut report, &options).await;
            return Ok(report);
        }
        let mut checkpoint = Checkpoint::begin(&present, options.resume).await?;
        report.resumed_after.clone_from(&checkpoint.after);
        let mut items = inner.everything(&present, checkpoint.after.clone()).await?;
        let mut group: Vec<(usize, Entry)> = Vec::new();
        loop {
            let next = items.try_next().await?;
            let next = next.and_then(|(at, item): (usize, ListItem)| Some((at, item.into_entry()?)));
            if let Some((_, first)) = group.first()
                && next.as_ref().is_none_or(|(_, entry)| entry.key != first.key)
            {
                report.keys += 1;
                let key = first.key.clone();
                if inner.compare(std::mem::take(&mut group), &present, &mut report).await.is_err() {
                    report.failed += 1;
                }
                // What failed is tried again by the next repair: it begins no later than there.
                if report.failed == 0 && report.keys.is_multiple_of(STRETCH) {
                    checkpoint.reach(&key, &present).await?;
                    options.tell(&report);
                }
            }
            match next {
                Some(next) => group.push(next),
                None => break,
            }
        }
        options.tell(&report);
        if report.failed == 0 {
            checkpoint.end(&present).await?;
            if report.resumed_after.is_none() {
                inner.settled(&journal, &present).await?;
            }
            for (_, child) in present.iter().filter(|(_, child)| child.is_fenced()) {
                let marker = Marker { complete: true, ..inner.marker.beside(child.name()) };
                marker.claim(child.backend().await?).await.map_err(|e| child.error(e))?;
                child.fenced.store(false, Ordering::Release);
            }
        }
        Ok(report)
    }
}

impl Inner {
    /// Makes those keys equal of which a store is known to have missed a write.
    async fn mend(
        self: &Arc<Self>,
        journal: Vec<Missed>,
        present: &[(usize, Arc<Child>)],
        report: &mut Repaired,
        options: &RepairOptions,
    ) {
        for missed in journal {
            report.keys += 1;
            let done = async {
                self.equalize(&missed.key, present, report).await?;
                self.settled(std::slice::from_ref(&missed), present).await
            };
            if done.await.is_err() {
                report.failed += 1;
            }
            if report.keys.is_multiple_of(STRETCH) {
                options.tell(report);
            }
        }
        options.tell(report);
    }

    /// Removes what is written down of stores that have it now.
    async fn settled(&self, journal: &[Missed], present: &[(usize, Arc<Child>)]) -> Result<()> {
        for missed in journal {
            let Some((_, child)) = present.iter().find(|(_, child)| child.name() == missed.by) else { continue };
            self.settle(missed).await?;
            let less = |missed: u64| missed.checked_sub(1);
            let _ = child.missed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
        Ok(())
    }

    /// The stores that can be reached, those included that have lost their markers.
    async fn reached(&self, report: &mut Repaired) -> Vec<(usize, Arc<Child>)> {
        let mut present = Vec::new();
        for (at, child) in self.children.iter().enumerate() {
            let reached = async {
                if Marker::read(child.opened().await?).await.map_err(|e| child.error(e))?.is_none() {
                    child.fenced.store(true, Ordering::Release);
                }
                Ok(())
            };
            let reached: Result<()> = reached.await;
            match reached {
                Ok(()) => present.push((at, child.clone())),
                Err(_) => report.unreachable.push(child.store.name().clone()),
            }
        }
        present
    }

    /// What all of these hold, in the order of the keys.
    async fn everything(
        &self,
        present: &[(usize, Arc<Child>)],
        after: Option<String>,
    ) -> Result<BoxStream<'static, Result<(usize, ListItem)>>> {
        let mut all = ListOptions::new().metadata(true);
        all.start_after = after;
        let mut listings = Vec::new();
        for (at, child) in present {
            let (at, name) = (*at, child.store.name().clone());
            let items = streams::list(child.backend().await?.clone(), &all, |mut entry| {
                entry.key = crate::names::key_above(entry.key)?;
                Ok(Some(entry))
            });
            let items = items.await.map_err(|e| child.error(e))?;
            listings.push(
                items.map(move |item| item.map(|item| (at, item)).map_err(|e| crate::error::above(&name, e))).boxed(),
            );
        }
        Ok(in_order(listings))
    }

    /// Makes one key equal in all stores.
    async fn compare(
        self: &Arc<Self>,
        group: Vec<(usize, Entry)>,
        present: &[(usize, Arc<Child>)],
        report: &mut Repaired,
    ) -> Result<()> {
        let Some((_, first)) = group.first() else { return Ok(()) };
        let key = first.key.clone();
        let mut listed = Vec::new();
        for (at, entry) in group {
            listed.push((at, Seen::of(entry)?));
        }
        if listed.len() == present.len() && equal(&listed) {
            return self.forget(&key, &listed, present, report).await;
        }
        self.equalize(&key, present, report).await
    }

    /// Makes one key equal in all stores, as they have it now.
    async fn equalize(
        self: &Arc<Self>,
        key: &Key,
        present: &[(usize, Arc<Child>)],
        report: &mut Repaired,
    ) -> Result<()> {
        let _turn = self.locks.lock(key).await;
        let (mut seen, mut answered) = (Vec::new(), 0);
        for (at, child) in present {
            let found = child.look(key).await?;
            answered += usize::from(!child.is_fenced() && found.damaged.is_none());
            seen.push((*at, found));
        }
        if answered < self.read_quorum {
            return Err(self.too_few(self.read_quorum, None));
        }
        let trusted = seen.iter().filter(|(at, seen)| !self.children[*at].is_fenced() && seen.damaged.is_none());
        let newest = trusted.max_by_key(|(_, seen)| seen.id()).filter(|(_, seen)| seen.entry.is_some());
        let Some((from, newest)) = newest.cloned() else {
            for (at, seen) in seen.iter().filter(|(_, seen)| seen.entry.is_some() || seen.damaged.is_some()) {
                delete(&self.children[*at], key, seen).await?;
                report.removed += 1;
            }
            return Ok(());
        };
        let Some(record) = &newest.record else {
            report.written += present.len() as u64;
            report.bytes += newest.entry.as_ref().map_or(0, |entry| entry.size) * present.len() as u64;
            return self.spread(key, from).await.map(drop);
        };
        let metadata = record
            .attach(newest.entry.as_ref().and_then(|entry| entry.metadata.as_deref()).filter(|_| !record.deleted));
        for (at, seen) in &seen {
            let child = &self.children[*at];
            if seen.damaged.is_none() && seen.id() == newest.id() {
                continue;
            }
            if child.is_fenced() && seen.id() > newest.id() {
                delete(child, key, seen).await?;
            }
            child.write(key, record.id, &metadata, None, self.source(key, from, &newest)).await?;
            report.written += 1;
            report.bytes += newest.entry.as_ref().map_or(0, |entry| entry.size);
        }
        Ok(())
    }

    /// Removes what stands for a value that was deleted long ago, once every store has it.
    async fn forget(
        &self,
        key: &Key,
        listed: &[(usize, Seen)],
        present: &[(usize, Arc<Child>)],
        report: &mut Repaired,
    ) -> Result<()> {
        let Some(record) = listed.first().and_then(|(_, seen)| seen.record.as_ref()).filter(|record| record.deleted)
        else {
            return Ok(());
        };
        let age = self.clock.now().duration_since(time(record.id.micros)).unwrap_or_default();
        let all = present.len() == self.children.len() && present.iter().all(|(_, child)| !child.is_fenced());
        if age < self.tombstone_lifetime || !all {
            return Ok(());
        }
        for (_, child) in present {
            if !child.backend().await?.info().capabilities.conditional_delete {
                return Ok(());
            }
        }
        let _turn = self.locks.lock(key).await;
        for (at, child) in present {
            let Some((_, seen)) = listed.iter().find(|(other, _)| other == at) else { continue };
            delete(child, key, seen).await?;
        }
        report.forgotten += 1;
        Ok(())
    }
}

fn equal(seen: &[(usize, Seen)]) -> bool {
    let Some((_, first)) = seen.first() else { return true };
    seen.iter().all(|(_, other)| other.damaged.is_none() && other.record.is_some() && other.id() == first.id())
}

/// Removes what was seen from a store.
async fn delete(child: &Child, key: &Key, seen: &Seen) -> Result<()> {
    let backend = child.backend().await?;
    let mut options = DeleteOptions::new();
    if backend.info().capabilities.conditional_delete && seen.damaged.is_none() {
        options.condition = seen.etag.clone().map(Condition::IfMatch);
    }
    match backend.delete(&names::key_below(key)?, options).await {
        Err(e) if e.kind() == ErrorKind::PreconditionFailed => {
            Err(Error::new(ErrorKind::Conflict, "the value was written while it was repaired"))
        }
        done => done.map_err(|e| child.error(e)),
    }
}
