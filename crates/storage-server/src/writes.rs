//! Write ids: each write happens once, however often its request arrives.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use storage_core::ErrorKind;
use storage_rest_wire::{WriteId, code};
use tokio::sync::watch;

use crate::answer::{Answer, Failure};

/// How long the outcome of a write is known after its end.
const KEPT: Duration = Duration::from_secs(600);
/// How many outcomes of one token are kept at most, and bytes of them.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 16 << 20;
/// How far the clock of a client may be ahead, in milliseconds.
const AHEAD: u64 = 60_000;

/// What became of a write.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was answered.
    Answered(Answer),
    /// Nothing was done, and nothing will be.
    Void,
}

/// The writes of this run of the server.
pub(crate) struct Writes {
    boot: String,
    started: Instant,
    tables: Mutex<HashMap<String, Table>>,
}

type Id = (u64, String);

#[derive(Default)]
struct Table {
    records: HashMap<Id, Record>,
    /// Those that have ended, in the order of their ends, with their bytes.
    ended: VecDeque<(Instant, Id, usize)>,
    bytes: usize,
    /// Ids from before this time may have been forgotten.
    floor: u64,
}

struct Record {
    /// Method and path: one id is of one request.
    target: String,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// What an id means for a request.
pub(crate) enum Claim<'a> {
    /// The request is the first with this id.
    New(Running<'a>),
    /// Another had it.
    Known(Known),
}

/// A write under way. Dropping it without an outcome leaves the outcome unknown.
pub(crate) struct Running<'a> {
    writes: &'a Writes,
    scope: String,
    id: Id,
    outcome: watch::Sender<Option<Outcome>>,
}

/// A write that has an outcome, or will have one.
pub(crate) struct Known(watch::Receiver<Option<Outcome>>);

impl Writes {
    pub(crate) fn new() -> Self {
        let boot = format!("{:016x}", fastrand::u64(..));
        Self { boot, started: Instant::now(), tables: Mutex::default() }
    }

    /// Names this run of the server.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// Takes an id for a request.
    pub(crate) fn claim(&self, scope: &str, id: &WriteId, target: &str) -> Result<Claim<'_>, Failure> {
        let (mut tables, key) = (self.lock(), self.check(id)?);
        let table = tables.entry(scope.to_owned()).or_default();
        if let Some(record) = table.records.get(&key) {
            // One that was settled before it arrived is of whichever request it would have been.
            return match record.target == target || record.target.is_empty() {
                true => Ok(Claim::Known(Known(record.outcome.clone()))),
                false => {
                    Err(Failure::invalid("the write id belongs to another request; each write has one of its own"))
                }
            };
        }
        if id.at_ms < table.floor {
            return Err(stale());
        }
        let (sender, outcome) = watch::channel(None);
        table.records.insert(key.clone(), Record { target: target.to_owned(), outcome });
        Ok(Claim::New(Running { writes: self, scope: scope.to_owned(), id: key, outcome: sender }))
    }

    /// What became of the write with this id. One that has not come will not be done.
    pub(crate) fn settle(&self, scope: &str, id: &WriteId, target: &str) -> Result<Known, Failure> {
        match self.claim(scope, id, target) {
            Ok(Claim::Known(known)) => Ok(known),
            Ok(Claim::New(running)) => {
                let known = Known(running.outcome.subscribe());
                running.finish(Outcome::Void);
                Ok(known)
            }
            // Whatever the request was, it has its outcome.
            Err(e) => {
                match self.lock().get(scope).and_then(|table| table.records.get(&(id.at_ms, id.unique.clone()))) {
                    Some(record) if id.boot == self.boot => Ok(Known(record.outcome.clone())),
                    _ => Err(e),
                }
            }
        }
    }

    fn check(&self, id: &WriteId) -> Result<Id, Failure> {
        if id.boot != self.boot {
            return Err(stale());
        }
        if id.at_ms > self.uptime_ms().saturating_add(AHEAD) {
            return Err(Failure::invalid(
                "the write id is from the future; take the time from `uptime_ms` of `GET /v1`",
            ));
        }
        Ok((id.at_ms, id.unique.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Table>> {
        // Every change leaves the tables whole before anything that can panic.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running<'_> {
    pub(crate) fn finish(self, outcome: Outcome) {
        let bytes = 256
            + match &outcome {
                Outcome::Answered(answer) => answer.body.len(),
                Outcome::Void => 0,
            };
        self.outcome.send_replace(Some(outcome));
        let mut tables = self.writes.lock();
        let Some(table) = tables.get_mut(&self.scope) else { return };
        table.ended.push_back((Instant::now(), self.id, bytes));
        table.bytes += bytes;
        table.forget();
    }
}

impl Table {
    /// Forgets what has ended long ago, or is too much.
    fn forget(&mut self) {
        let old = |ended: &Instant| ended.elapsed() > KEPT;
        while self.ended.len() > MOST || self.bytes > MOST_BYTES || self.ended.front().is_some_and(|(at, ..)| old(at)) {
            let Some((_, id, bytes)) = self.ended.pop_front() else { return };
            self.records.remove(&id);
            self.bytes -= bytes;
            self.floor = self.floor.max(id.0.saturating_add(1));
        }
    }
}

impl Known {
    /// What became of it, as soon as that is known.
    pub(crate) async fn outcome(mut self) -> Result<Outcome, Failure> {
        let ended = self.0.wait_for(Option::is_some).await;
        let outcome = ended.ok().and_then(|outcome| outcome.clone());
        outcome.ok_or_else(lost)
    }
}

/// That nobody knows what became of a write.
pub(crate) fn lost() -> Failure {
    let mut failure = Failure::new(ErrorKind::Other, "the server failed in the midst of the write; look what is there");
    failure.0.ambiguous = true;
    failure
}

pub(crate) fn stale() -> Failure {
    let detail = "the write id is of another run of the server, or was forgotten or given up; nothing was done for this request, \
                  whatever became of earlier ones";
    let mut failure = Failure::new(ErrorKind::Conflict, detail).code(code::STALE_WRITE_ID);
    failure.0.ambiguous = true;
    failure
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes").field("boot", &self.boot).finish_non_exhaustive()
    }
}
