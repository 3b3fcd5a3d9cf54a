//! Unpinning what no key names any more.
//!
//! Content is claimed in the index before it is unpinned, and marked as released after that. A write that is about to name it sees
//! the one or the other, and pins it again. What processes that were killed have pinned is found by the name of its pin, and is left alone for
//! `sweep_after`.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use cid::Cid;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::ready, stream};
use storage_core::{
    BatchOptions, Body, DeleteOptions, Entry, Key, ListItem, ListOptions, PutOptions, Result, StorageBackend,
    pending::Keys,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    add::Added,
    car,
    change::read_counts,
    open,
    pins::{is_own, keeps},
    record::{self, Count, State},
    store::{Failure, Job, Session, Store},
};

/// How long content may be claimed before another sweep takes it over.
pub(crate) const CLAIM: Duration = Duration::from_secs(30);
/// How long it is remembered that content was unpinned.
pub(crate) const TRACE: Duration = Duration::from_secs(60 * 60);
/// How long one unpinning may take. With the time until it begins, it is far from the end of the claim.
const UNPIN: Duration = Duration::from_secs(8);
/// How many are claimed at once, and how many are unpinned at once.
const TOGETHER: usize = 100;
const AT_ONCE: usize = 8;
/// Of how much content it is remembered that it has lost its last key. Beyond that, the whole queue is looked at.
const REMEMBERED: usize = 10_000;
/// How long more work is waited for, before a sweep of its own accord begins.
const PAUSE: Duration = Duration::from_millis(50);
/// How long lies between two sweeps of everything.
const BETWEEN: Duration = Duration::from_secs(60);

/// What there is to do.
#[derive(Default)]
pub(crate) struct Sweeper {
    notify: Notify,
    /// Content that was pinned and will not be named, with its pin.
    discarded: Mutex<HashMap<Cid, Cid>>,
    /// Content that lost its last key by a write of this instance. What others do is left to their sweeps for a while, which know when it is
    /// no conflict to their transactions.
    queued: Mutex<HashSet<Cid>>,
    /// There is more in the queue.
    missed: AtomicBool,
    leftovers: AtomicBool,
    /// Content that is on its way to a name in this process, and how often.
    in_use: Mutex<HashMap<Cid, usize>>,
}

/// Keeps a sweep of this process from content that is on its way to a name.
pub(crate) struct InUse {
    sweeper: Arc<Sweeper>,
    cid: Cid,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut in_use = lock(&self.sweeper.in_use);
        if let Some(times) = in_use.get_mut(&self.cid) {
            *times -= 1;
            if *times == 0 {
                in_use.remove(&self.cid);
            }
        }
        // It may have been left out.
        self.sweeper.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sweeper {
    /// There may be something in the queue, or the store has gone.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// This content was pinned, and will not be named.
    pub(crate) fn discard(&self, content: Added) {
        lock(&self.discarded).insert(content.cid, content.pin);
        self.wake();
    }

    /// This content has lost its last key.
    pub(crate) fn queued(&self, cids: Vec<Cid>) {
        if cids.is_empty() {
            return;
        }
        let mut queued = lock(&self.queued);
        queued.extend(cids);
        if queued.len() > REMEMBERED {
            queued.clear();
            self.missed.store(true, Ordering::Release);
        }
        self.wake();
    }

    /// There is something in the queue that is not known here.
    pub(crate) fn missed(&self) {
        self.missed.store(true, Ordering::Release);
        self.wake();
    }

    /// This content is on its way to a name.
    pub(crate) fn using(self: &Arc<Self>, cid: Cid) -> InUse {
        *lock(&self.in_use).entry(cid).or_default() += 1;
        InUse { sweeper: self.clone(), cid }
    }

    /// Something was pinned that will not be named.
    pub(crate) fn leftovers(&self) {
        self.leftovers.store(true, Ordering::Release);
        self.wake();
    }

    /// Sweeps whenever there is something to do, until the store is dropped or disconnected.
    pub(crate) fn run(store: &Arc<Store>) {
        let (sweeper, weak) = (store.sweeper.clone(), Arc::downgrade(store));
        store.tasks.runtime.spawn(async move {
            let (mut all, mut queue) = (Instant::now(), Instant::now());
            while let Some(()) = sweeper.next(&weak).await {
                let Some(store) = weak.upgrade().filter(|store| store.check_open().is_ok()) else { return };
                let mut what = What::Own;
                if sweeper.missed.swap(false, Ordering::AcqRel) || queue.elapsed() > BETWEEN {
                    (what, queue) = (What::Queue, Instant::now());
                }
                if all.elapsed() > BETWEEN && sweeper.leftovers.swap(false, Ordering::AcqRel) {
                    (what, all) = (What::Everything, Instant::now());
                }
                if let Err(e) = sweep(&store, what, true).await {
                    sweeper.missed.store(true, Ordering::Release);
                    tracing::warn!(error = %e, "content without a key could not be unpinned; a later sweep does it");
                }
            }
        });
    }

    async fn next(&self, store: &Weak<Store>) -> Option<()> {
        self.notify.notified().await;
        if store.strong_count() > 0 {
            sleep(PAUSE).await;
        }
        (store.strong_count() > 0).then_some(())
    }
}

/// What a sweep looks at: what has lost its last key here; all that is queued; that, and all pins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Own,
    Queue,
    Everything,
}

/// What became of content that was claimed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Became {
    Unpinned,
    /// Somebody else pins it.
    Theirs,
    /// Nothing was asked of the node.
    Untouched,
    /// Whether it is pinned is not known.
    Unknown,
}

/// Unpins what has no key. A sweep `of_its_own` ends when nobody holds the store any more.
pub(crate) async fn sweep(store: &Arc<Store>, what: What, of_its_own: bool) -> Result<()> {
    let session = Session::new(store.clone());
    let gone = || of_its_own && Arc::strong_count(store) <= 2;
    let discarded = std::mem::take(&mut *lock(&store.sweeper.discarded));
    let mut own = std::mem::take(&mut *lock(&store.sweeper.queued));
    own.extend(discarded.keys());
    queue(&session, discarded.into_iter().map(|(cid, pin)| (cid, Some(pin))).collect(), State::Kept).await?;
    if what == What::Everything {
        car::sweep(store).await?;
        let pins = store.node()?.pins(&store.pin_name).await?.try_chunks(TOGETHER);
        futures_util::pin_mut!(pins);
        while let Some(pins) = pins.next().await {
            let pins = stream::iter(pins.map_err(|broken| broken.1)?).map(|pin| keeps(store, pin)).buffered(AT_ONCE);
            let kept: Vec<Option<_>> = pins.try_collect().await?;
            queue(&session, kept.into_iter().flatten().collect(), State::Found).await?;
            if gone() {
                return Ok(());
            }
        }
    }
    let queued = match what {
        What::Own => stream::iter(own.into_iter().map(Ok)).left_stream(),
        What::Queue | What::Everything => {
            let listing = store.index.list(ListOptions::new().prefix("q/").etags(false)).await?;
            let cid = |item: ListItem| Cid::try_from(item.position().get(2..)?).ok();
            listing.try_filter_map(move |item| ready(Ok(cid(item)))).right_stream()
        }
    };
    let mut queued = queued.try_chunks(TOGETHER);
    let mut clock = None;
    while let Some(some) = queued.next().await {
        if gone() {
            return Ok(());
        }
        let cids = some.map_err(|broken| broken.1)?;
        let now = match clock {
            Some(now) => now,
            None => {
                let _calm = store.calm().await;
                *clock.insert(store.now().await?)
            }
        };
        unpin(&session, cids, now).await?;
    }
    Ok(())
}

/// Queues content that has no key.
async fn queue(session: &Session, pinned: Vec<(Cid, Option<Cid>)>, state: State) -> Result<()> {
    if pinned.is_empty() {
        return Ok(());
    }
    let pinned: HashMap<Cid, Option<Cid>> = pinned.into_iter().collect();
    let cids = pinned.keys().copied().collect();
    let update = move |cid: &Cid, found: Option<&(Count, Entry)>| match found {
        None | Some((Count { keys: 0, state: State::Released, .. }, _)) => {
            let pin = pinned.get(cid).copied().flatten();
            let foreign = found.and_then(|(count, _)| count.foreign.clone()).filter(|_| pin.is_none());
            let count = Count { keys: 0, state: state.clone(), pin, foreign };
            vec![Write::Count(*cid, count), Write::Queue(*cid)]
        }
        _ => Vec::new(),
    };
    update_all(session, cids, update).await.map(drop)
}

async fn unpin(session: &Session, cids: Vec<Cid>, now: SystemTime) -> Result<()> {
    let store = &session.store;
    let shared = store.config.shared_node || open::is_shared(store).await?;
    let token = format!("{:032x}", fastrand::u128(..));
    let (mine, sweep_after, sweeper) = (token.clone(), store.config.sweep_after, store.sweeper.clone());
    let begun = Instant::now();
    let claim = move |cid: &Cid, found: Option<&(Count, Entry)>| {
        let Some((count, record)) = found else { return vec![Write::Unqueue(*cid)] };
        let age = record.modified.and_then(|since| now.duration_since(since).ok()).unwrap_or_default();
        let claim = match &count.state {
            _ if count.keys > 0 => return vec![Write::Unqueue(*cid)],
            _ if lock(&sweeper.in_use).contains_key(cid) => {
                // It is looked at again when it is not any more.
                lock(&sweeper.queued).insert(*cid);
                false
            }
            State::Kept => true,
            State::Found => age >= sweep_after,
            State::Claimed(_) => age > CLAIM,
            State::Released if age > TRACE => return vec![Write::NoCount(*cid), Write::Unqueue(*cid)],
            State::Released => false,
        };
        if !claim {
            return Vec::new();
        }
        if shared {
            return vec![Write::NoCount(*cid), Write::Unqueue(*cid)];
        }
        vec![Write::Count(*cid, Count { state: State::Claimed(mine.clone()), ..count.clone() })]
    };
    let mut claimed = update_all(session, cids, claim).await?;
    claimed.retain(|(_, count)| matches!(count.state, State::Claimed(_)));
    let done = stream::iter(claimed).map(|(cid, count)| async move {
        // Another sweep may take it over later.
        match begun.elapsed() > CLAIM / 6 {
            true => (cid, Became::Untouched, Ok(())),
            false => release(store, cid, &count).await,
        }
    });
    let done: Vec<(Cid, Became, Result<()>)> = done.buffered(AT_ONCE).collect().await;
    let became: HashMap<Cid, Became> = done.iter().map(|(cid, became, _)| (*cid, *became)).collect();
    let cids = became.keys().copied().collect();
    let released = move |cid: &Cid, found: Option<&(Count, Entry)>| match found {
        Some((count, _)) if count.keys == 0 && count.state == State::Claimed(token.clone()) => match became.get(cid) {
            Some(Became::Unpinned) => vec![Write::Count(*cid, Count { state: State::Released, ..Count::default() })],
            Some(Became::Theirs) => vec![Write::NoCount(*cid), Write::Unqueue(*cid)],
            Some(Became::Untouched) => vec![Write::Count(*cid, Count { state: State::Kept, ..count.clone() })],
            // The request may still arrive at the node.
            Some(Became::Unknown) | None => Vec::new(),
        },
        _ => Vec::new(),
    };
    update_all(session, cids, released).await?;
    done.into_iter().try_for_each(|(.., done)| done)
}

/// Unpins content that was claimed, here and at the pinning service.
async fn release(store: &Store, cid: Cid, count: &Count) -> (Cid, Became, Result<()>) {
    let (cid, became, done) = release_on_node(store, cid, count).await;
    match &store.pinning {
        Some(service) if became != Became::Untouched && done.is_ok() => match service.unpin(&cid).await {
            Ok(()) => (cid, became, Ok(())),
            // A later sweep asks again.
            Err(e) => (cid, Became::Unknown, Err(e)),
        },
        _ => (cid, became, done),
    }
}

/// Unpins content on the node, if the pin is ours.
async fn release_on_node(store: &Store, cid: Cid, count: &Count) -> (Cid, Became, Result<()>) {
    let pinned = count.pin.unwrap_or(cid);
    let pin = match store.node() {
        Ok(node) => node.pin(&pinned).await.map(|pin| (node, pin)),
        Err(e) => Err(e),
    };
    let (node, pin) = match pin {
        Ok(found) => found,
        Err(e) => return (cid, Became::Untouched, Err(e)),
    };
    match (pin, &count.foreign) {
        (None, _) => (cid, Became::Unpinned, Ok(())),
        (Some(pin), _) if !is_own(store, &pin) => (cid, Became::Theirs, Ok(())),
        // Somebody else's pin, which was called otherwise.
        (Some(_), Some(name)) => match node.pin_add(&cid, name, true).await {
            Ok(()) => (cid, Became::Theirs, Ok(())),
            Err(e) => (cid, Became::Untouched, Err(e)),
        },
        (Some(_), None) => match node.pin_rm(&pinned, UNPIN).await {
            Ok(()) => (cid, Became::Unpinned, Ok(())),
            Err(e) => (cid, Became::Unknown, Err(e)),
        },
    }
}

/// What a sweep writes about some content.
enum Write {
    Count(Cid, Count),
    NoCount(Cid),
    Queue(Cid),
    Unqueue(Cid),
}

/// Looks at the counts of some content, and changes them in the same transaction of the index. It returns the counts that were written.
async fn update_all<F>(session: &Session, cids: Vec<Cid>, update: F) -> Result<Vec<(Cid, Count)>>
where
    F: Fn(&Cid, Option<&(Count, Entry)>) -> Vec<Write> + Send + Sync + 'static,
{
    let (update, cids) = (Arc::new(update), Arc::new(cids));
    let job: Job<Vec<(Cid, Count)>> = Box::new(move |view| {
        let (update, cids) = (update.clone(), cids.clone());
        async move {
            let mut counts = cids.iter().map(|cid| (*cid, None)).collect();
            read_counts(&*view, &mut counts).await?;
            let writes: Vec<Write> = counts.iter().flat_map(|(cid, found)| update(cid, found.as_ref())).collect();
            Ok::<_, Failure>(write_all(&*view, writes).await?)
        }
        .boxed()
    });
    let _calm = session.store.calm().await;
    // Nothing is named here, so that nothing is asked to be pinned.
    Ok(session.change(Keys::from(Vec::<Key>::new()), job).await?.unwrap_or_default())
}

async fn write_all(view: &dyn StorageBackend, writes: Vec<Write>) -> Result<Vec<(Cid, Count)>> {
    let (mut puts, mut deletes, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for write in writes {
        match write {
            Write::Count(cid, count) => {
                puts.push((record::count_key(&cid)?, Body::from(count.write()), PutOptions::new()));
                counts.push((cid, count));
            }
            Write::Queue(cid) => puts.push((record::queue_key(&cid)?, Body::default(), PutOptions::new())),
            Write::NoCount(cid) => deletes.push((record::count_key(&cid)?, DeleteOptions::new())),
            Write::Unqueue(cid) => deletes.push((record::queue_key(&cid)?, DeleteOptions::new())),
        }
    }
    if !puts.is_empty() {
        view.put_batch(puts, BatchOptions::new()).await?.into_iter().collect::<Result<Vec<_>>>()?;
    }
    if !deletes.is_empty() {
        view.delete_batch(deletes, BatchOptions::new()).await?.into_iter().collect::<Result<()>>()?;
    }
    Ok(counts)
}
