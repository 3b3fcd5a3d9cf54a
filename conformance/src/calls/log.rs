//! What is kept of the calls of a check.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use storage_core::Key;

use crate::support::locked;

/// Places to write to, so that calls that race do not wait for one another here.
const SHARDS: usize = 8;
/// Calls that each of them keeps.
const KEPT: usize = 32;
/// Calls that a message shows.
const SHOWN: usize = 12;

/// The calls of one check, through all its handles. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Calls(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    started: Instant,
    next: AtomicU64,
    handles: AtomicU64,
    /// Microseconds from the start to when something has come from the store the last time.
    last: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
    focus: Mutex<Focus>,
}

/// Which calls the message of a failure shows.
#[derive(Debug, Default)]
enum Focus {
    /// The last ones on the keys of the very last one, or all of the last ones if that names none.
    #[default]
    Last,
    /// Those on these keys.
    Keys(Vec<Key>),
    /// Those from this number on.
    Since(u64),
    /// Not those that are kept here, but these, below a title.
    Instead(&'static str, String),
    /// As they were at some moment.
    Frozen(String),
}

#[derive(Debug, Default)]
struct Shard {
    ended: VecDeque<(u64, Call)>,
    under_way: BTreeMap<u64, Call>,
    /// Streams that calls have returned and whose next piece is waited for.
    waiting: BTreeMap<u64, Call>,
}

#[derive(Clone, Debug)]
struct Call {
    /// Which handle it went through.
    handle: u64,
    text: String,
    /// The keys it names; none where it may concern every key.
    keys: Vec<Key>,
    began: Instant,
    outcome: Option<String>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inside {
            started: Instant::now(),
            next: AtomicU64::new(0),
            handles: AtomicU64::new(0),
            last: AtomicU64::new(0),
            shards: Default::default(),
            focus: Mutex::default(),
        }))
    }

    /// The number of another handle, from 1.
    pub(super) fn handle(&self) -> u64 {
        self.0.handles.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that a call begins.
    pub(crate) fn begin(&self, handle: u64, text: String, keys: Vec<Key>) -> UnderWay {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let call = Call { handle, text, keys, began: Instant::now(), outcome: None };
        self.shard(number).under_way.insert(number, call);
        UnderWay { calls: self.clone(), number, ended: false }
    }

    /// How many calls were begun.
    pub(crate) fn count(&self) -> u64 {
        self.0.next.load(Ordering::Relaxed)
    }

    /// A failure from now on shows the calls from here on, whichever keys they name.
    pub(crate) fn case(&self) {
        *self.focus() = Focus::Since(self.count());
    }

    /// A failure from now on shows these calls, which begin with a line feed each, below a title.
    pub(crate) fn show(&self, title: &'static str, calls: String) {
        *self.focus() = Focus::Instead(title, calls);
    }

    fn focus(&self) -> MutexGuard<'_, Focus> {
        locked(&self.0.focus)
    }

    /// Why the check counts as hung, if so: a call, or the next piece of a stream, takes longer than `limit`, or nothing has come
    /// for as long.
    pub(crate) fn stuck(&self, limit: Duration) -> Option<String> {
        let oldest = self.pending().into_iter().min_by_key(|(_, call)| call.began);
        if let Some((_, call)) = oldest {
            let time = call.began.elapsed();
            let what = call.outcome.is_some();
            return (time >= limit).then(|| {
                *self.focus() = if call.keys.is_empty() { Focus::Last } else { Focus::Keys(call.keys) };
                // As they are now: when the check is stopped, its calls are dropped.
                let lines = self.lines();
                *self.focus() = Focus::Frozen(lines);
                let what = if what { "the next piece" } else { "its end" };
                format!("hung in {}: expected {what} within {limit:?}, saw none for {time:.1?}", call.text)
            });
        }
        let last = Duration::from_micros(self.0.last.load(Ordering::Relaxed));
        let idle = self.0.started.elapsed().saturating_sub(last);
        let text = || format!("hung outside of the store: expected a call within {limit:?}, saw none for {idle:.1?}");
        (idle >= limit).then(text)
    }

    fn pending(&self) -> Vec<(u64, Call)> {
        let mut pending = Vec::new();
        for shard in &self.0.shards {
            let shard = locked(shard);
            pending.extend(shard.under_way.iter().chain(&shard.waiting).map(|(number, call)| (*number, call.clone())));
        }
        pending
    }

    /// The calls that a failure shows, in the order in which they began, each on a line of its own. Empty when there was none.
    pub(crate) fn lines(&self) -> String {
        let focus = self.focus();
        match &*focus {
            Focus::Instead(title, calls) => return format!("\n  {title}:{calls}"),
            Focus::Frozen(lines) => return lines.clone(),
            _ => {}
        }
        let mut calls: BTreeMap<u64, Call> = BTreeMap::new();
        for shard in &self.0.shards {
            calls.extend(locked(shard).ended.iter().cloned());
        }
        calls.extend(self.pending());
        let mut text = String::new();
        let Some((_, last)) = calls.last_key_value() else {
            return text;
        };
        let (keys, since) = match &*focus {
            Focus::Keys(keys) => (&keys[..], 0),
            Focus::Since(number) => (&[][..], *number),
            _ => (&last.keys[..], 0),
        };
        let concerned =
            |call: &Call| keys.is_empty() || call.keys.is_empty() || call.keys.iter().any(|key| keys.contains(key));
        let kept: Vec<&Call> = calls.range(since..).map(|(_, call)| call).filter(|call| concerned(call)).collect();
        let kept = &kept[kept.len().saturating_sub(SHOWN)..];
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  calls");
        if let [key] = keys {
            let _ = write!(text, " on {key:?}");
        }
        let _ = write!(text, " (the last {} of {} in all):", kept.len(), self.count());
        let several = self.0.handles.load(Ordering::Relaxed) > 1;
        let line = |call: &Call| {
            let handle = if several { format!("handle {}: ", call.handle) } else { String::new() };
            format!("{handle}{} → {}", call.text, call.outcome.as_deref().unwrap_or("no end yet"))
        };
        let lines: Vec<String> = kept.iter().map(|call| line(call)).collect();
        for run in lines.chunk_by(|a, b| a == b) {
            let times = if run.len() > 1 { format!(" ({} times)", run.len()) } else { String::new() };
            let _ = write!(text, "\n    {}{times}", run[0]);
        }
        text
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, Shard> {
        locked(&self.0.shards[number as usize % SHARDS])
    }

    /// Notes that the store, or another process of the check, has answered.
    pub(crate) fn came(&self) {
        let now = u64::try_from(self.0.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
    }

    fn end(&self, number: u64, outcome: String) {
        self.came();
        let mut shard = self.shard(number);
        if let Some(mut call) = shard.under_way.remove(&number) {
            call.outcome = Some(outcome);
            if shard.ended.len() == KEPT {
                shard.ended.pop_front();
            }
            shard.ended.push_back((number, call));
        }
    }
}

/// A call that is under way; dropped before its end, it was given up.
#[derive(Debug)]
pub(crate) struct UnderWay {
    calls: Calls,
    number: u64,
    ended: bool,
}

impl UnderWay {
    /// Notes what the call came to.
    pub(crate) fn end(mut self, outcome: String) -> Returned {
        self.ended = true;
        self.calls.end(self.number, outcome);
        Returned { calls: self.calls.clone(), number: self.number, waits: false }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            self.calls.end(self.number, "dropped before its end".into());
        }
    }
}

/// A call that has returned a stream.
#[derive(Debug)]
pub(crate) struct Returned {
    calls: Calls,
    number: u64,
    waits: bool,
}

impl Returned {
    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Notes that the next piece is waited for.
    pub(super) fn wait(&mut self, so_far: impl FnOnce() -> String) {
        if self.waits {
            return;
        }
        self.waits = true;
        let mut shard = self.calls.shard(self.number);
        // One that has left the log long since is known by its number only.
        let call = shard.ended.iter().rev().find(|(number, _)| *number == self.number).map(|(_, call)| call.clone());
        let mut call = call.unwrap_or_else(|| Call {
            handle: 0,
            text: format!("call {}", self.number),
            keys: Vec::new(),
            began: Instant::now(),
            outcome: None,
        });
        (call.began, call.outcome) = (Instant::now(), Some(so_far()));
        shard.waiting.insert(self.number, call);
    }

    /// Notes that it has come.
    pub(super) fn came(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.calls.shard(self.number).waiting.remove(&self.number);
            self.calls.came();
        }
    }

    /// Notes what became of the stream.
    pub(super) fn amend(&self, outcome: String) {
        let mut shard = self.calls.shard(self.number);
        if let Some((_, call)) = shard.ended.iter_mut().rev().find(|(number, _)| *number == self.number) {
            call.outcome = Some(outcome);
        }
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        self.came();
    }
}
