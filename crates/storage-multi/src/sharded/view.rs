//! What an instance knows of the layout, and for how long it may rely on it.
//!
//! Nobody can change the layout under an instance: whoever moves values writes each [`Phase`] into all markers and waits until every view
//! from before has run out. An instance reads a marker again when half of that time is over, and looks at the clock after each call.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use storage_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::{Child, Inner, Placement};
use crate::{
    error::wrong,
    marker::{Layout, Marker, Phase},
};

/// How long a view holds.
const LONG: Duration = Duration::from_secs(10);
/// How long it holds just before and while writers have to wait.
const SHORT: Duration = Duration::from_secs(1);
/// How long a writer waits for the next phase before it sees to it itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In this store.
    At(usize),
    /// On its way from one to the other.
    Between { old: usize, new: usize },
}

/// The layout as a marker says it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) epoch: u64,
    phase: Option<Phase>,
    now: Placement,
    next: Option<Placement>,
}

/// A view, and until when nobody goes on to the phase after the next.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) view: Arc<View>,
    read: Instant,
}

impl View {
    pub(super) fn of(marker: &Marker, children: &[Child]) -> Result<Self> {
        let (phase, next) = match &marker.moving {
            Some(moving) => (Some(moving.phase), Some(placement(&moving.to, children)?)),
            None => (None, None),
        };
        Ok(Self { epoch: marker.epoch, phase, now: placement(&marker.layout, children)?, next })
    }

    /// Where a key is.
    pub(super) fn place(&self, key: &str) -> Place {
        let old = self.now.home(key);
        match self.next.as_ref().filter(|_| self.is_moving()).map(|next| next.home(key)) {
            Some(new) if new != old => Place::Between { old, new },
            _ => Place::At(old),
        }
    }

    /// Whether keys are in two places.
    pub(super) fn is_moving(&self) -> bool {
        self.phase.is_some_and(|phase| phase > Phase::Prepared)
    }

    /// Whether a key can be written.
    fn takes(&self, key: &str) -> bool {
        let closed = matches!(self.phase, Some(Phase::Closed | Phase::Cleaning));
        !closed || matches!(self.place(key), Place::At(_))
    }

    /// Whether what was written to this store stays the key's value.
    fn keeps(&self, key: &str, written: usize) -> bool {
        match self.place(key) {
            Place::At(at) => at == written,
            Place::Between { old, new } => new == written || (old == written && self.phase == Some(Phase::Closed)),
        }
    }

    fn lease(&self) -> Duration {
        if matches!(self.phase, None | Some(Phase::Moving)) { LONG } else { SHORT }
    }
}

fn placement(layout: &Layout, children: &[Child]) -> Result<Placement> {
    if let Some((name, _)) = layout.iter().find(|(name, _)| children.iter().all(|child| *child.name != **name)) {
        return Err(wrong(format!("the set has got the store `{name}`; open it with this one too")));
    }
    let weight = |child: &Child| layout.iter().find(|(name, _)| **name == *child.name).map_or(0, |(_, weight)| *weight);
    Ok(Placement::new(children.iter().map(|child| (&*child.name, weight(child)))))
}

/// How long everybody may go on in what was before this phase.
pub(super) fn until_known(phase: Option<Phase>) -> Duration {
    match phase {
        Some(Phase::Prepared | Phase::Ending) => LONG + Duration::from_secs(1),
        Some(Phase::Closed | Phase::Cleaning) => SHORT + Duration::from_millis(500),
        Some(Phase::Moving) | None => Duration::ZERO,
    }
}

/// The newest view of an instance.
#[derive(Debug)]
pub(super) struct Views {
    newest: Mutex<Held>,
    turn: tokio::sync::Mutex<()>,
}

impl Views {
    pub(super) fn new(view: View, read: Instant) -> Self {
        Self { newest: Mutex::new(Held { view: Arc::new(view), read }), turn: tokio::sync::Mutex::default() }
    }

    fn newest(&self) -> MutexGuard<'_, Held> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The layout, as it is now.
    pub(super) async fn view(&self) -> Result<Held> {
        let held = self.views.newest().clone();
        if held.read.elapsed() < held.view.lease() / 2 {
            return Ok(held);
        }
        let _turn = self.views.turn.lock().await;
        let held = self.views.newest().clone();
        if held.read.elapsed() < held.view.lease() / 2 {
            return Ok(held);
        }
        match self.look().await {
            Err(_) if held.read.elapsed() < held.view.lease() => Ok(held),
            looked => looked,
        }
    }

    /// Reads the marker of whichever store answers first: each has a phase before the next begins.
    pub(super) async fn look(&self) -> Result<Held> {
        let read = Instant::now();
        let markers = self.children.iter().map(|child| async move { (child, Marker::read(&child.backend).await) });
        let mut markers: FuturesUnordered<_> = markers.collect();
        let mut failed = None;
        while let Some((child, marker)) = markers.next().await {
            match marker {
                Ok(Some(marker)) if marker.set == self.set => return self.learn(&marker, read),
                Ok(_) => {}
                Err(e) => failed = failed.or(Some(child.error(e))),
            }
        }
        Err(failed.unwrap_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no store of the set has its marker any more: they were emptied; restore them",
            )
        }))
    }

    /// Takes in what a marker says, unless more is known.
    pub(super) fn learn(&self, marker: &Marker, read: Instant) -> Result<Held> {
        let known = self.views.newest().view.epoch;
        let view = if marker.epoch > known { Some(Arc::new(View::of(marker, &self.children)?)) } else { None };
        let mut newest = self.views.newest();
        if let Some(view) = view.filter(|view| view.epoch > newest.view.epoch) {
            newest.view = view;
        }
        newest.read = newest.read.max(read);
        Ok(newest.clone())
    }

    /// The layout once this key can be written.
    pub(super) async fn writable(&self, key: &str) -> Result<Held> {
        let begun = Instant::now();
        loop {
            let held = self.view().await?;
            if held.view.takes(key) {
                return Ok(held);
            }
            if begun.elapsed() > PATIENCE {
                // Whoever moves the values has stopped.
                self.reopen().await?;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether the layout was this one until now.
    pub(super) async fn held(&self, held: &Held) -> Result<bool> {
        Ok(held.read.elapsed() < held.view.lease() || self.view().await?.view.epoch == held.view.epoch)
    }

    /// Whether what was written to this store under that view stays the value of the key.
    pub(super) async fn kept(&self, held: &Held, key: &str, written: usize) -> Result<bool> {
        Ok(self.held(held).await? || self.view().await?.view.keeps(key, written))
    }
}
