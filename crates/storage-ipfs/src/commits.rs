//! Writes of one key, which share commits of the index: those that come while one is under way are the next. Each has its own outcome.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use storage_core::{BatchOptions, Entry, Error, ErrorKind, Key, Result, pending::Commit};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    change::{Applied, Before, Change, Changed, apply, plan},
    store::{Failure, Outcome, PATIENCE, Store, etag_of},
};

/// How many writes share a commit at most.
const MOST: usize = 64;

/// Writes that wait, and whether somebody is at work on them.
#[derive(Default)]
pub(crate) struct Commits(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    running: bool,
}

struct Waiting {
    change: Change,
    /// What there was, if that was read.
    before: Option<Before>,
    commit: Commit,
    answer: oneshot::Sender<Result<Outcome<Changed>>>,
}

impl Waiting {
    fn answer(self, outcome: Result<Outcome<Changed>>) {
        // The write has ended when its caller hears of that.
        drop(self.commit);
        // A caller that has gone hears nothing.
        let _ = self.answer.send(outcome);
    }
}

impl Commits {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next writes, of different keys; `None` when there are no more.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.lock();
        let (mut keys, mut group, mut later) = (HashSet::<Key>::new(), Vec::new(), VecDeque::new());
        for waiting in mem::take(&mut queue.waiting) {
            match group.len() < MOST && keys.insert(waiting.change.key.clone()) {
                true => group.push(waiting),
                false => later.push_back(waiting),
            }
        }
        queue.waiting = later;
        queue.running = !group.is_empty();
        queue.running.then_some(group)
    }
}

/// Whoever is at work. When that ends early, for the runtime does, nobody waits in vain.
struct Worker {
    store: Arc<Store>,
    has_ended: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_ended {
            let mut queue = self.store.commits.lock();
            queue.running = false;
            queue.waiting.clear();
        }
    }
}

impl Worker {
    async fn run(mut self) {
        let store = self.store.clone();
        loop {
            let _turn = store.turn.lock().await;
            let Some(group) = store.commits.next() else {
                // From here on, another is at work when something comes.
                self.has_ended = true;
                return;
            };
            let left = at_once(&store, group).await;
            together(&store, left).await;
        }
    }
}

impl Store {
    /// Makes a change of one key. `before` is what was read of it before; what of that does not hold any more is read again.
    pub(crate) async fn commit(self: &Arc<Self>, change: Change, before: Option<Before>) -> Result<Outcome<Changed>> {
        let (_caller, commit) = self.tasks.writes.begin(&change.key);
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut queue = self.commits.lock();
            queue.waiting.push_back(Waiting { change, before, commit, answer });
            !mem::replace(&mut queue.running, true)
        };
        if begins {
            let worker = Worker { store: self.clone(), has_ended: false };
            self.tasks.runtime.spawn(worker.run());
        }
        let done = answered.await.unwrap_or_else(|e| {
            let message = "the runtime in which the store was connected has ended; connect again";
            Err(Error::new(ErrorKind::Closed, message).with_source(e))
        });
        done.map_err(|e| self.own(e))
    }
}

/// Makes the changes by one batch, if all is as it was read before, and returns those that are not made.
async fn at_once(store: &Store, mut group: Vec<Waiting>) -> Vec<Waiting> {
    if !store.index.info().capabilities.atomic || group.iter().any(|waiting| waiting.before.is_none()) {
        return group;
    }
    group.retain(|waiting| waiting.commit.begin().is_ok());
    let changes = changes(&group);
    let planned = joined(&mut group).map(|before| plan(&store.names, &changes, before, false, true));
    let Some(Ok(mut plan)) = planned.filter(|planned| planned.as_ref().is_ok_and(|plan| plan.is_puts())) else {
        return group;
    };
    let options = BatchOptions::new().atomic(true);
    let written = store.index.put_batch(mem::take(&mut plan.puts), options).await;
    match written.and_then(|written| written.into_iter().collect::<Result<Vec<Entry>>>()) {
        Ok(written) => finish(store, group, plan.done(&changes, written)),
        Err(e) if e.is_ambiguous() => finish(store, group, Err(e)),
        // Something is otherwise than it was, or an error is that of one change.
        Err(_) => return group,
    }
    Vec::new()
}

/// What was read before all these changes; `None` if that does not fit together.
fn joined(group: &mut [Waiting]) -> Option<Before> {
    let mut all = Before { entries: Vec::with_capacity(group.len()), counts: BTreeMap::new() };
    for waiting in group {
        let before = waiting.before.take()?;
        all.entries.extend(before.entries);
        for (cid, found) in before.counts {
            let etag = etag_of(found.as_ref());
            if all.counts.insert(cid, found).is_some_and(|other| etag_of(other.as_ref()) != etag) {
                return None;
            }
        }
    }
    Some(all)
}

fn changes(group: &[Waiting]) -> Vec<Change> {
    group.iter().map(|waiting| waiting.change.clone()).collect()
}

/// Makes the changes in one transaction of the index, again if another writer was faster.
async fn together(store: &Store, mut group: Vec<Waiting>) {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        group.retain(|waiting| waiting.commit.check().is_ok());
        if group.is_empty() {
            return;
        }
        let e = match transaction(store, &group).await {
            Ok(None) => continue,
            Ok(Some(done)) => return finish(store, group, Ok(done)),
            Err(Failure::Unpinned(cid)) => {
                let of_it = |waiting: &Waiting| waiting.change.value.as_ref().is_some_and(|v| v.part.cid == cid);
                let (unpinned, left) = group.into_iter().partition(of_it);
                let unpinned: Vec<Waiting> = unpinned;
                unpinned.into_iter().for_each(|waiting| waiting.answer(Ok(Err(cid))));
                group = left;
                continue;
            }
            Err(Failure::Error(e) | Failure::Broken(e)) => e,
        };
        if e.kind() == ErrorKind::Conflict && !e.is_ambiguous() && begun.elapsed() < PATIENCE {
            sleep(pause.mul_f64(fastrand::f64())).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(500));
            continue;
        }
        if group.len() == 1 || e.is_ambiguous() || e.is_retryable() {
            return finish(store, group, Err(e));
        }
        // It is the error of one of them.
        for waiting in group {
            Box::pin(together(store, vec![waiting])).await;
        }
        return;
    }
}

/// `None` if somebody has given up, whose change is not made then.
async fn transaction(store: &Store, group: &[Waiting]) -> Result<Option<Applied>, Failure> {
    let tx = store.index.begin().await?;
    match apply(&*tx, &store.names, &changes(group), false).await {
        Ok(done) if group.iter().all(|waiting| waiting.commit.begin().is_ok()) => {
            tx.commit().await?;
            Ok(Some(done))
        }
        done => {
            // Why it did not happen says more than a failing rollback.
            let _ = tx.rollback().await;
            done.map(|_| None)
        }
    }
}

fn finish(store: &Store, group: Vec<Waiting>, done: Result<Applied>) {
    match done {
        Ok((changed, queued)) => {
            store.sweeper.queued(queued);
            group.into_iter().zip(changed).for_each(|(waiting, changed)| waiting.answer(Ok(Ok(changed))));
        }
        Err(e) => {
            // The key of one is not that of the others.
            let e = if group.len() == 1 { e } else { e.map_key(|_| None) };
            group.into_iter().for_each(|waiting| waiting.answer(Err(e.clone())));
        }
    }
}
