//! What is kept, and who may keep something: the protocol of the README.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::WeakShared;
use moka::{notification::RemovalCause, sync};
use storage_core::{Bytes, Entry, Key};
use tokio::time::Instant;

use crate::{
    CacheLayer, Stats,
    load::{Loading, SharedLoad},
    stats::Counts,
    value::Value,
};

/// So many keys are in doubt one by one; more put everything in doubt.
const MAX_DOUBTS: usize = 4096;
/// The longest time to live that moka takes is 1,000 years.
const MAX_TTL: Duration = Duration::from_secs(1000 * 365 * 86_400);

pub(crate) struct Table {
    values: sync::Cache<Key, Arc<Value>>,
    /// Counts how often everything was forgotten. What was kept before is no longer seen. Changes under the lock only.
    epoch: AtomicU64,
    state: Mutex<State>,
    ttl: Duration,
    doubt: Duration,
    max_bytes: u64,
    pub(crate) counts: Arc<Counts>,
}

/// A moment; `None` when it is too far away for the clock.
type Until = Option<Instant>;

#[derive(Default)]
struct State {
    /// Keys that are being written or loaded.
    keys: HashMap<Key, Activity>,
    /// Writes under way that can touch every key.
    sweeps: usize,
    /// The number of the last write or load.
    last: u64,
    /// Keys whose last write may still happen, and until when.
    doubts: HashMap<Key, Until>,
    /// Until when every key is in doubt.
    all_in_doubt: Option<Until>,
    /// Bytes kept since there was last made room.
    unsettled: u64,
}

#[derive(Default)]
struct Activity {
    writers: usize,
    /// The number of the last write.
    write: u64,
    /// The load that may keep its value; never while there are writers.
    load: Option<Load>,
}

struct Load {
    number: u64,
    /// `None` if others cannot join. Upgraded only to be handed out: were the last strong one dropped under the lock, its
    /// ticket would wait for that lock.
    shared: Option<WeakShared<Loading>>,
}

/// How a reader gets a value.
pub(crate) enum Join {
    /// Somebody else's load was just done.
    Kept(Arc<Value>),
    /// Somebody else's load is under way.
    Joined(SharedLoad),
    /// A load that others can join begins.
    Begun(SharedLoad),
    /// The key is being written: the reader reads by himself.
    Alone,
}

/// What a write can touch.
pub(crate) enum Scope {
    Keys(Vec<Key>),
    All,
}

impl Table {
    pub(crate) fn new(settings: &CacheLayer, backend: &str) -> Self {
        let counts = Arc::new(Counts::new(backend));
        let evictions = counts.clone();
        let values = sync::Cache::builder()
            .max_capacity(settings.max_bytes)
            .weigher(|_, value: &Arc<Value>| value.weight())
            // Frees memory. Whether a value is still served is decided by its own time.
            .time_to_live(settings.ttl.min(MAX_TTL))
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.evictions.one();
                }
            });
        Self {
            values: values.build(),
            epoch: AtomicU64::new(0),
            state: Mutex::default(),
            ttl: settings.ttl,
            doubt: settings.doubt,
            max_bytes: settings.max_bytes,
            counts,
        }
    }

    /// The current value, if it is there.
    pub(crate) fn lookup(&self, key: &Key) -> Option<Arc<Value>> {
        let value = self.values.get(key)?;
        let current = value.epoch == self.epoch.load(Ordering::SeqCst);
        (current && value.expires.is_none_or(|end| Instant::now() < end)).then_some(value)
    }

    /// How a reader who found no value, or one that must be validated, gets it.
    pub(crate) fn join(self: &Arc<Self>, key: &Key, known: bool, load: impl FnOnce(Ticket) -> SharedLoad) -> Join {
        let mut state = self.lock();
        let under_way = state.keys.get(key).and_then(|activity| activity.load.as_ref()?.shared.as_ref()?.upgrade());
        if let Some(shared) = under_way {
            return Join::Joined(shared);
        }
        // A load may have ended between the look at the values and this one.
        if let Some(value) = self.lookup(key).filter(|_| !known) {
            return Join::Kept(value);
        }
        let Some(ticket) = self.new_ticket(&mut state, key) else {
            return Join::Alone;
        };
        let shared = load(ticket);
        if let Some(load) = state.keys.get_mut(key).and_then(|activity| activity.load.as_mut()) {
            load.shared = shared.downgrade();
        }
        Join::Begun(shared)
    }

    /// The right to keep what is read from now on, unless there is a write in between, or somebody has it already.
    pub(crate) fn ticket(self: &Arc<Self>, key: &Key) -> Option<Ticket> {
        let mut state = self.lock();
        let taken = state.keys.get(key).is_some_and(|activity| activity.load.is_some());
        if taken { None } else { self.new_ticket(&mut state, key) }
    }

    fn new_ticket(self: &Arc<Self>, state: &mut State, key: &Key) -> Option<Ticket> {
        let written = state.keys.get(key).is_some_and(|activity| activity.writers > 0);
        if written || state.sweeps > 0 || state.in_doubt(key) {
            return None;
        }
        state.last += 1;
        let number = state.last;
        state.keys.entry(key.clone()).or_default().load = Some(Load { number, shared: None });
        Some(Ticket { table: self.clone(), key: key.clone(), number, begun: Instant::now() })
    }

    /// A write begins: what it can touch is forgotten, and nothing is kept until it ends.
    pub(crate) fn begin(self: &Arc<Self>, scope: Scope) -> Write {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let mut alone = state.sweeps == 0;
        match &scope {
            Scope::Keys(keys) => {
                for key in keys {
                    let activity = state.keys.entry(key.clone()).or_default();
                    alone &= activity.writers == 0;
                    activity.writers += 1;
                    activity.write = number;
                    activity.load = None;
                    self.values.invalidate(key);
                }
            }
            Scope::All => {
                state.sweeps += 1;
                state.keys.retain(|_, activity| {
                    activity.load = None;
                    activity.writers > 0
                });
                self.epoch.fetch_add(1, Ordering::SeqCst);
                self.values.invalidate_all();
            }
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        Write { table: self.clone(), scope: Some(scope), number, alone, epoch, begun: Instant::now() }
    }

    /// A write ends. `doubtful` says of each of its keys whether it may still happen.
    fn end(&self, state: &mut State, scope: &Scope, doubtful: impl Fn(usize) -> bool) {
        let until = Instant::now().checked_add(self.doubt);
        match scope {
            Scope::Keys(keys) => {
                for (i, key) in keys.iter().enumerate() {
                    if let Some(activity) = state.keys.get_mut(key) {
                        activity.writers -= 1;
                        if activity.writers == 0 {
                            state.keys.remove(key);
                        }
                    }
                    if doubtful(i) {
                        state.doubt(key, until);
                    }
                }
            }
            Scope::All => {
                state.sweeps -= 1;
                self.epoch.fetch_add(1, Ordering::SeqCst);
                if doubtful(0) {
                    state.all_in_doubt = Some(until);
                }
            }
        }
    }

    /// Gives a value that is kept its whole entry, which was asked for since. If it is not kept any more, nothing changes.
    pub(crate) fn complete(&self, key: &Key, value: &Arc<Value>, entry: Entry) -> Arc<Value> {
        let (mut state, whole) = (self.lock(), Arc::new(value.completed(entry)));
        // Whoever has begun to write since has made it forgotten under this lock.
        match self.lookup(key) {
            Some(kept) if Arc::ptr_eq(&kept, value) => self.insert(&mut state, key, whole),
            _ => whole,
        }
    }

    /// Forgets this value, if it is the one that is kept.
    pub(crate) fn forget(&self, key: &Key, value: &Arc<Value>) {
        let _state = self.lock();
        self.lookup(key).filter(|kept| Arc::ptr_eq(kept, value)).inspect(|_| self.values.invalidate(key));
    }

    /// Keeps a value. The lock is held since it was clear that this is allowed.
    fn keep(
        &self,
        state: &mut State,
        key: &Key,
        (entry, whole_entry): (Entry, bool),
        bytes: Bytes,
        begun: Instant,
    ) -> Arc<Value> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let value = Arc::new(Value { entry, whole_entry, bytes, epoch, expires: begun.checked_add(self.ttl) });
        self.insert(state, key, value)
    }

    fn insert(&self, state: &mut State, key: &Key, value: Arc<Value>) -> Arc<Value> {
        self.values.insert(key.clone(), value.clone());
        state.unsettled += u64::from(value.weight());
        // By itself it makes room after so many values, whatever their size.
        if state.unsettled > self.max_bytes / 16 {
            state.unsettled = 0;
            self.values.run_pending_tasks();
        }
        value
    }

    pub(crate) fn stats(&self) -> Stats {
        self.values.run_pending_tasks();
        Stats {
            hits: self.counts.hits.seen(),
            misses: self.counts.misses.seen(),
            evictions: self.counts.evictions.seen(),
            entries: self.values.entry_count(),
            bytes: self.values.weighted_size(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn doubt(&mut self, key: &Key, until: Until) {
        self.doubts.insert(key.clone(), until);
        if self.doubts.len() > MAX_DOUBTS {
            self.doubts.clear();
            self.all_in_doubt = Some(until);
        }
    }

    /// Whether a write of this key may still happen.
    fn in_doubt(&mut self, key: &Key) -> bool {
        if self.all_in_doubt.is_none() && self.doubts.is_empty() {
            return false;
        }
        let now = Instant::now();
        let is_over = |until: &Until| until.is_some_and(|until| now >= until);
        self.all_in_doubt = self.all_in_doubt.filter(|until| !is_over(until));
        if self.doubts.get(key).is_some_and(is_over) {
            self.doubts.remove(key);
        }
        self.all_in_doubt.is_some() || self.doubts.contains_key(key)
    }
}

/// The right to keep a value that is being read. A write of the key takes it away.
pub(crate) struct Ticket {
    table: Arc<Table>,
    key: Key,
    number: u64,
    begun: Instant,
}

impl Ticket {
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Keeps the value that was read, if that is still allowed.
    pub(crate) fn keep(self, entry: Entry, bytes: Bytes) -> Arc<Value> {
        let mut state = self.table.lock();
        if self.is_valid(&state) {
            return self.table.keep(&mut state, &self.key, (entry, true), bytes, self.begun);
        }
        drop(state);
        // Only those who wait for this very load see it.
        Arc::new(Value { entry, whole_entry: true, bytes, epoch: u64::MAX, expires: None })
    }

    /// Forgets what was kept: it turned out not to be current.
    pub(crate) fn forget(self) {
        self.table.values.invalidate(&self.key);
    }

    fn is_valid(&self, state: &State) -> bool {
        let load = state.keys.get(&self.key).and_then(|activity| activity.load.as_ref());
        load.is_some_and(|load| load.number == self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.table.lock();
        // A load is there only without writers, so the activity ends with it.
        if self.is_valid(&state) {
            state.keys.remove(&self.key);
        }
    }
}

/// A write under way. If it is dropped before its end, the write was cancelled and may still happen.
pub(crate) struct Write {
    table: Arc<Table>,
    /// `None` after the end.
    scope: Option<Scope>,
    number: u64,
    /// Whether no other write that can touch the same keys was under way when this one began.
    alone: bool,
    epoch: u64,
    begun: Instant,
}

impl Write {
    /// The write is over; `doubtful` says of each key, by its place in the scope, whether the write may still happen.
    pub(crate) fn end(mut self, doubtful: impl Fn(usize) -> bool) {
        if let Some(scope) = self.scope.take() {
            self.table.end(&mut self.table.lock(), &scope, doubtful);
        }
    }

    /// The write of a single key has succeeded; keeps what was written unless another write came in between.
    pub(crate) fn keep(mut self, entry: (Entry, bool), bytes: Bytes) {
        let Some(scope) = self.scope.take() else {
            return;
        };
        let mut state = self.table.lock();
        if let Scope::Keys(keys) = &scope
            && let [key] = &keys[..]
        {
            let last = state.keys.get(key).is_some_and(|activity| activity.write == self.number);
            let alone = self.alone && last && self.epoch == self.table.epoch.load(Ordering::SeqCst);
            if alone && !state.in_doubt(key) {
                self.table.keep(&mut state, key, entry, bytes, self.begun);
            }
        }
        self.table.end(&mut state, &scope, |_| false);
    }

    /// Nothing is kept any more, for good.
    pub(crate) fn never_end(mut self) {
        mem::forget(self.scope.take());
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if let Some(scope) = self.scope.take() {
            self.table.end(&mut self.table.lock(), &scope, |_| true);
        }
    }
}
