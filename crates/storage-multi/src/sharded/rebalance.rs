//! Moving values to where the weights of the stores say, while everything goes on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use storage_core::{DeleteOptions, Entry, Error, ErrorKind, Key, ListOptions, Result, StatOptions};
use tokio::time::{Instant, sleep};

use super::{
    Child, Inner, Placement, Sharded,
    between::{Between, CLAIM, Moved, written_by_others},
    open::{is_empty, layout_of},
    pace::{Pace, RebalanceOptions, Rebalanced},
    view::until_known,
};
use crate::{
    error::wrong,
    marker::{Layout, Marker, Move, Phase},
    names, streams,
};

/// How often the stores are gone through, as long as that brings nothing further.
const PASSES: usize = 3;
/// How often a marker is looked at again when others change it.
const TRIES: usize = 16;

impl Sharded {
    /// Moves each value to the store where it belongs by the weights with which this was opened, those of weight 0 included. Of a set whose
    /// layout is that already, nothing is done. Everything can be read and written meanwhile, but that writes of keys that will
    /// move wait for about two seconds when it begins. Broken off at any point, it is gone on with by the next call, of
    /// this or another instance; two at once do no harm.
    ///
    /// Every instance must be opened with all stores, old and new ([`ShardedOptions::rebalance`](crate::ShardedOptions::rebalance)): one
    /// that lacks some fails with `Config` from then on. It takes at least twelve seconds, until each of them knows. What was moved
    /// has another etag, and other dates.
    ///
    /// # Errors
    /// `Unsupported` where a store has no conditional writes; `Config` for a new store that holds values, and while values are being moved
    /// to another layout; those of the stores. What was moved stays moved.
    pub async fn rebalance(&self, options: RebalanceOptions) -> Result<Rebalanced> {
        let inner = &self.0;
        if let Some(child) = inner.children.iter().find(|child| !child.backend.info().capabilities.conditional) {
            let what = format!("values cannot be moved: the store `{}` has no conditional writes", child.name);
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let pace = Pace::new(&options);
        let to = layout_of(&inner.children);
        loop {
            let marker = inner.in_force().await?;
            let next = match &marker.moving {
                Some(moving) if moving.to != to => {
                    return Err(wrong("values are being moved to other stores or weights; finish that first"));
                }
                None if marker.layout == to => {
                    inner.announce(&marker).await?;
                    return Ok(pace.note(|_| {}));
                }
                None => {
                    inner.take_in(&marker, &to).await?;
                    match inner.remove_strays(&marker, &to, &pace).await {
                        Err(_) if inner.in_force().await?.epoch != marker.epoch => continue,
                        removed => removed?,
                    }
                    inner.next(&marker, Some((Phase::Prepared, &to)))
                }
                Some(moving) => {
                    inner.announce(&marker).await?;
                    sleep(until_known(Some(moving.phase))).await;
                    match moving.phase {
                        Phase::Prepared => inner.next(&marker, Some((Phase::Closed, &to))),
                        Phase::Closed => inner.next(&marker, Some((Phase::Moving, &to))),
                        Phase::Ending => inner.next(&marker, Some((Phase::Cleaning, &to))),
                        phase => {
                            let left = if phase == Phase::Moving {
                                inner.move_all(&marker, &to, &pace).await
                            } else {
                                inner.remove_claims(&marker, &to).await.map(|()| false)
                            };
                            match left {
                                Ok(claims) => inner.next(&marker, claims.then_some((Phase::Ending, &to))),
                                // Another has gone on to the next phase.
                                Err(_) if inner.in_force().await?.epoch != marker.epoch => continue,
                                Err(e) => return Err(e),
                            }
                        }
                    }
                }
            };
            inner.announce(&next).await?;
        }
    }
}

impl Inner {
    /// The marker that is in force, while all stores can be reached.
    async fn in_force(&self) -> Result<Marker> {
        let read = self
            .children
            .iter()
            .map(|child| async move { Marker::read(&child.backend).await.map_err(|e| child.error(e)) });
        let markers = try_join_all(read).await?.into_iter().flatten().filter(|marker| marker.set == self.set);
        markers
            .max_by_key(|marker| marker.epoch)
            .ok_or_else(|| wrong("no store of the set has its marker any more: they were emptied; restore them"))
    }

    /// The marker that follows this one: a phase on the way to a layout, or its end.
    fn next(&self, marker: &Marker, phase: Option<(Phase, &Layout)>) -> Marker {
        let mut next = Marker { epoch: marker.epoch + 1, ..marker.clone() };
        match phase {
            Some((phase, to)) => next.moving = Some(Move { phase, to: to.clone() }),
            None => next.layout = next.moving.take().map_or(next.layout, |moving| moving.to),
        }
        next
    }

    /// Writes layout and phase into every marker that has older ones.
    async fn announce(&self, state: &Marker) -> Result<()> {
        let read = Instant::now();
        let written = self.children.iter().map(|child| async move {
            for _ in 0..TRIES {
                let there = Marker::read_with_etag(&child.backend).await.map_err(|e| child.error(e))?;
                let (marker, etag) = match there {
                    Some((marker, Some(etag))) if marker.set == self.set => (marker, etag),
                    Some((_, None)) => return Err(Error::unsupported("moving values in a store without etags")),
                    // It is not of the set, or not yet.
                    _ if child.weight == 0 => return Ok(()),
                    _ => {
                        let what = format!("the store `{}` has lost its marker; restore it", child.name);
                        return Err(wrong(what));
                    }
                };
                if marker.epoch >= state.epoch {
                    return Ok(());
                }
                let new =
                    Marker { epoch: state.epoch, layout: state.layout.clone(), moving: state.moving.clone(), ..marker };
                if new.replace_if(&child.backend, &etag).await.map_err(|e| child.error(e))? {
                    return Ok(());
                }
            }
            Err(Error::new(ErrorKind::Conflict, "the markers are written by others all the while; try again"))
        });
        try_join_all(written).await?;
        self.learn(state, read).map(drop)
    }

    /// Gives the new stores their markers.
    async fn take_in(&self, marker: &Marker, to: &Layout) -> Result<()> {
        let is_new = |child: &&Child| {
            to.iter().any(|(name, _)| **name == *child.name)
                && marker.layout.iter().all(|(name, _)| **name != *child.name)
        };
        for child in self.children.iter().filter(is_new) {
            match Marker::read(&child.backend).await.map_err(|e| child.error(e))? {
                Some(there) if there.set == self.set && there.store == *child.name => continue,
                Some(there) if there.set == self.set => {
                    let what = format!("the stores `{}` and `{}` are one and the same", there.store, child.name);
                    return Err(wrong(what));
                }
                Some(_) => {
                    let what = format!("the store `{}` belongs to another set of stores", child.name);
                    return Err(wrong(what));
                }
                None => {
                    if let Err(e) = is_empty(child).await {
                        // Another may have just taken it in.
                        let there = Marker::read(&child.backend).await.map_err(|e| child.error(e))?;
                        there.filter(|there| there.set == self.set && there.store == *child.name).ok_or(e)?;
                        continue;
                    }
                }
            }
            let own = Marker { complete: true, moving: None, ..marker.beside(&child.name) };
            let there = own.claim(&child.backend).await.map_err(|e| child.error(e))?;
            if there.set != self.set || there.store != *child.name {
                return Err(wrong(format!("the store `{}` was taken into another set of stores", child.name)));
            }
        }
        Ok(())
    }

    /// Goes on to the phase in which keys can be written, where whoever moves the values has stopped.
    pub(super) async fn reopen(&self) -> Result<()> {
        let marker = self.in_force().await?;
        let Some(Move { phase: phase @ (Phase::Closed | Phase::Cleaning), to }) = &marker.moving else {
            return self.announce(&marker).await;
        };
        self.announce(&marker).await?;
        // One that removes claims may be about to do it.
        let before = if *phase == Phase::Cleaning { Phase::Ending } else { Phase::Closed };
        sleep(until_known(Some(before))).await;
        self.announce(&self.next(&marker, Some((Phase::Moving, to)))).await
    }

    fn placement(&self, layout: &Layout) -> Placement {
        let weight =
            |child: &Child| layout.iter().find(|(name, _)| **name == *child.name).map_or(0, |(_, weight)| *weight);
        Placement::new(self.children.iter().map(|child| (&*child.name, weight(child))))
    }

    /// The keys that a store holds, as the caller has them.
    async fn held_by(&self, child: &Child) -> Result<stream::BoxStream<'static, Result<Entry>>> {
        let options = ListOptions::new().etags(false);
        let each = |mut entry: Entry| {
            entry.key = names::key_above(entry.key)?;
            Ok(Some(entry))
        };
        let items = streams::list(child.backend.clone(), &options, each).await.map_err(|e| child.error(e))?;
        let (name, entries) = (child.name.clone(), items.try_filter_map(|item| async move { Ok(item.into_entry()) }));
        Ok(entries.map_err(move |e| crate::error::above(&name, e)).boxed())
    }

    /// Removes what lies where nobody looks for it, but would in the new layout.
    async fn remove_strays(&self, marker: &Marker, to: &Layout, pace: &Pace<'_>) -> Result<()> {
        let (from, to) = (self.placement(&marker.layout), self.placement(to));
        for (at, child) in self.children.iter().enumerate().filter(|(_, child)| child.weight > 0) {
            let mut held = self.held_by(child).await?;
            while let Some(entry) = held.try_next().await? {
                pace.note(|done| done.keys += 1);
                let key = entry.key.as_str();
                if to.home(key) != at || from.home(key) == at {
                    continue;
                }
                self.still(marker).await?;
                child
                    .backend
                    .delete(&names::key_below(&entry.key)?, DeleteOptions::new())
                    .await
                    .map_err(|e| child.error(e))?;
                pace.note(|done| done.removed += 1);
            }
        }
        Ok(())
    }

    /// Moves what is not at its new home, until a pass finds nothing. Whether there are claims left that no condition can remove.
    async fn move_all(&self, marker: &Marker, to: &Layout, pace: &Pace<'_>) -> Result<bool> {
        let (from, to) = (self.placement(&marker.layout), self.placement(to));
        let mut left = PASSES;
        loop {
            let (before, failed, claims) = (pace.note(|_| {}), Mutex::new(None), Mutex::new(0_u64));
            for (at, child) in self.children.iter().enumerate() {
                let held = self.held_by(child).await?;
                let (from, to, failed, claims) = (&from, &to, &failed, &claims);
                held.try_for_each_concurrent(pace.options.at_once.max(1), |entry| async move {
                    let (old, new) = (from.home(entry.key.as_str()), to.home(entry.key.as_str()));
                    pace.note(|done| done.keys += 1);
                    let done = if old == at && new != at {
                        pace.turn(entry.size).await;
                        self.still(marker).await?;
                        let between = Between { inner: self, old: child, new: &self.children[new], key: &entry.key };
                        between.bring().await
                    } else if new == at && old != at && entry.size == CLAIM {
                        self.drop_claim(child, &entry.key, claims).await.map(|()| Moved::Nothing)
                    } else {
                        return Ok(());
                    };
                    match done {
                        Ok(Moved::Nothing) => {}
                        Ok(Moved::Value(bytes)) => {
                            let done = pace.note(|done| {
                                done.moved += 1;
                                done.bytes += bytes;
                            });
                            pace.options.progress.iter().for_each(|progress| progress(&done));
                        }
                        Err(e) => {
                            pace.note(|done| done.failed += 1);
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert(e.with_key(&entry.key));
                        }
                    }
                    Ok(())
                })
                .await?;
            }
            let now = pace.note(|_| {});
            match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(e) if now.moved == before.moved => {
                    left -= 1;
                    if left == 0 {
                        return Err(e);
                    }
                    sleep(Duration::from_millis(500)).await;
                }
                None if now.moved == before.moved => {
                    return Ok(claims.into_inner().unwrap_or_else(PoisonError::into_inner) > 0);
                }
                _ => left = PASSES,
            }
        }
    }

    /// Whether the phase is the one of this marker.
    async fn still(&self, marker: &Marker) -> Result<()> {
        if self.view().await?.view.epoch == marker.epoch { Ok(()) } else { Err(written_by_others()) }
    }

    /// Removes a claim that leads to nothing, or counts it.
    async fn drop_claim(&self, child: &Child, key: &Key, claims: &Mutex<u64>) -> Result<()> {
        let below = names::key_below(key)?;
        let there = child.backend.stat(&below, StatOptions::new()).await.map_err(|e| child.error(e))?;
        if let Some((entry, etag)) = there.and_then(|entry| Some((entry.clone(), entry.etag?)))
            && self.is_claim(&entry)
            && !self.unclaim(child, &below, &etag).await?
        {
            *claims.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        Ok(())
    }

    /// Removes the claims that are left, while nobody writes where they are.
    async fn remove_claims(&self, marker: &Marker, to: &Layout) -> Result<()> {
        let (from, to) = (self.placement(&marker.layout), self.placement(to));
        for (at, child) in self.children.iter().enumerate() {
            let mut held = self.held_by(child).await?;
            while let Some(entry) = held.try_next().await? {
                let key = entry.key.as_str();
                if to.home(key) != at || from.home(key) == at || entry.size != CLAIM {
                    continue;
                }
                let below = names::key_below(&entry.key)?;
                let there = child.backend.stat(&below, StatOptions::new()).await.map_err(|e| child.error(e))?;
                if there.is_some_and(|there| self.is_claim(&there)) {
                    self.still(marker).await?;
                    child.backend.delete(&below, DeleteOptions::new()).await.map_err(|e| child.error(e))?;
                }
            }
        }
        Ok(())
    }
}
