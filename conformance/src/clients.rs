//! Clients that call a store at the same time, and what each has seen, as a [`history`](crate::history).
//!
//! All values of a history have the same size, and each says in every eighth byte which one it is; so does its metadata. A mix of two
//! is never taken for one of them.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    BatchOptions, Body, Bytes, Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions,
    ListItem, ListOptions, Metadata, PutOptions, Query, RenameOptions, Result, Storage,
};

use crate::{
    Outcome,
    assert::{brief, expect},
    history::{Action, Call, State, Step, explained, name, shortest, text},
    interleave::breathe,
    support::locked,
};

/// Keys of a history.
pub(crate) const KEYS: usize = 2;

/// What a client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Put,
    PutStream,
    PutBatch,
    Copy,
    Rename,
    Delete,
    DeleteBatch,
    AtomicPuts,
    AtomicDeletes,
    Clear,
    Get,
    GetPieces,
    GetRange,
    GetBatch,
    Stat,
    List,
    OneLevel,
    Query,
}

impl Verb {
    pub(crate) fn is_read(self) -> bool {
        use Verb::*;
        matches!(self, Get | GetPieces | GetRange | GetBatch | Stat | List | OneLevel | Query)
    }
}

/// A condition, by what it means to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum If {
    Always,
    Absent,
    /// The etag that the client saw last.
    Match,
}

/// A call: what is written is the key, what is copied or renamed is the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) verb: Verb,
    pub(crate) when: If,
    pub(crate) key: usize,
}

impl Op {
    pub(crate) fn other(self) -> usize {
        (self.key + 1) % KEYS
    }

    /// Whether it names more than its key.
    fn is_on_all(self) -> bool {
        use Verb::*;
        !matches!(self.verb, Put | PutStream | Delete | Get | GetPieces | GetRange | Stat)
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, other) = (name(self.key), name(self.other()));
        match self.verb {
            Verb::Copy | Verb::Rename => write!(f, "{:?} {other} to {key}", self.verb)?,
            Verb::Clear | Verb::List | Verb::OneLevel | Verb::Query | Verb::GetBatch => write!(f, "{:?}", self.verb)?,
            Verb::AtomicPuts | Verb::AtomicDeletes | Verb::PutBatch | Verb::DeleteBatch => {
                write!(f, "{:?} {key}, {other}", self.verb)?
            }
            verb => write!(f, "{verb:?} {key}")?,
        }
        match self.when {
            If::Always => Ok(()),
            If::Absent => write!(f, " if {key} is absent"),
            If::Match => write!(f, " if {key} has the etag last seen"),
        }
    }
}

/// Every call that the store can be asked for.
pub(crate) fn every_op(s: &Storage) -> Vec<(Verb, If)> {
    use Verb::*;
    let can = s.info().capabilities;
    let mut all = Vec::new();
    let mut writes = vec![Put, PutStream, PutBatch, Copy, Rename];
    let mut deletes = vec![Delete, DeleteBatch];
    if can.transactions {
        writes.push(AtomicPuts);
        deletes.push(AtomicDeletes);
    }
    for verb in writes {
        all.push((verb, If::Always));
        if can.conditional {
            all.extend([(verb, If::Absent), (verb, If::Match)]);
        }
    }
    for verb in deletes {
        all.push((verb, If::Always));
        if can.conditional_delete {
            all.push((verb, If::Match));
        }
    }
    all.extend([Clear, Get, GetPieces, GetRange, GetBatch, Stat, List, OneLevel, Query].map(|verb| (verb, If::Always)));
    all
}

/// The keys of one history and what all its clients share.
#[derive(Debug)]
pub(crate) struct World {
    prefix: String,
    size: usize,
    described: bool,
    guards_renames: bool,
    clock: AtomicUsize,
    values: AtomicU32,
    slots: AtomicUsize,
    etags: Mutex<HashMap<Etag, u32>>,
    calls: Mutex<Vec<Call>>,
    /// The call that was wrong in itself.
    wrong: Mutex<Option<Op>>,
}

impl World {
    /// A history below a prefix of its own, with values of about so many bytes; `described`: with metadata.
    pub(crate) fn new(s: &Storage, prefix: impl Into<String>, size: usize, described: bool) -> Self {
        let limit = usize::try_from(s.info().limits.value).unwrap_or(usize::MAX);
        Self {
            prefix: prefix.into(),
            size: size.min(limit) / 8 * 8,
            described,
            guards_renames: s.info().capabilities.conditional_delete,
            clock: AtomicUsize::new(0),
            values: AtomicU32::new(1),
            slots: AtomicUsize::new(0),
            etags: Mutex::default(),
            calls: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn key(&self, key: usize) -> String {
        format!("{}{}", self.prefix, name(key))
    }

    pub(crate) fn tick(&self) -> usize {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn slot(&self) -> usize {
        self.slots.fetch_add(1, Ordering::SeqCst)
    }

    /// A value that no other write has, with its number.
    pub(crate) fn value(&self) -> (u32, Bytes) {
        let number = self.values.fetch_add(1, Ordering::SeqCst);
        (number, format!("{number:08}").repeat(self.size / 8).into())
    }

    pub(crate) fn options(&self, number: u32) -> PutOptions {
        let options = PutOptions::new();
        if self.described { options.metadata(Metadata::new().field("n", i64::from(number))) } else { options }
    }

    /// The number of an etag.
    pub(crate) fn etag(&self, etag: Option<&Etag>) -> u32 {
        let Some(etag) = etag else { return 0 };
        let mut etags = locked(&self.etags);
        let next = etags.len() as u32 + 1;
        *etags.entry(etag.clone()).or_insert(next)
    }

    /// Whether a call of the first client was under way together with one of the second.
    pub(crate) fn met(&self) -> bool {
        let calls = locked(&self.calls);
        let of = |client: usize| calls.iter().filter(move |call| call.client == client);
        of(0).any(|a| of(1).any(|b| a.started < b.ended && b.started < a.ended))
    }

    /// Adds calls to the history.
    pub(crate) fn note(&self, calls: impl IntoIterator<Item = Call>) {
        locked(&self.calls).extend(calls);
    }

    /// Notes the call that was wrong in itself, if it is the first.
    pub(crate) fn wrong(&self, op: Op) {
        locked(&self.wrong).get_or_insert(op);
    }

    /// Fails unless an order explains all that was noted.
    pub(crate) fn judge(&self) -> Outcome {
        let calls = locked(&self.calls);
        expect(explained(&calls, KEYS), || {
            "expected an order in which each call takes effect between its begin and its end, saw none".into()
        })
    }

    /// The calls that a failure shows, below a title: up to the one that was wrong those on its keys, or the fewest that have no
    /// order.
    pub(crate) fn story(&self) -> (&'static str, String) {
        let mut calls = locked(&self.calls).clone();
        let wrong = *locked(&self.wrong);
        let Some(op) = wrong else {
            if explained(&calls, KEYS) {
                return ("calls of the round", text(&calls));
            }
            return ("calls, the fewest that have no order", text(&shortest(calls, KEYS)));
        };
        if !op.is_on_all() {
            calls.retain(|call| call.concerns(op.key));
        }
        ("calls on the same keys", text(&calls))
    }

    /// The number of a value that was read, of which `bytes` is a part that begins at a multiple of 8.
    pub(crate) fn number(&self, entry: &Entry, bytes: &[u8], len: usize) -> Outcome<u32> {
        let uniform = bytes.len() < 8 || bytes[8..] == bytes[..bytes.len() - 8];
        let number: Option<u32> =
            std::str::from_utf8(&bytes[..bytes.len().min(8)]).ok().and_then(|text| text.parse().ok());
        expect(bytes.len() == len && entry.size == self.size as u64, || {
            format!("expected {len} bytes of a value of {}, saw {} of {}", self.size, bytes.len(), entry.size)
        })?;
        let Some(number) = number.filter(|_| uniform) else {
            let mut seen: Vec<_> = bytes.chunks(8).map(|part| part.escape_ascii().to_string()).collect();
            seen.dedup();
            return Err(format!("expected the bytes of one write, saw a mix of {}", brief(&seen)).into());
        };
        self.described(entry).map_or(Ok(number), |metadata| {
            expect(metadata == number, || format!("expected value {number} with its metadata, saw those of {metadata}"))
                .map(|()| number)
        })
    }

    /// The number in an entry's metadata.
    pub(crate) fn described(&self, entry: &Entry) -> Option<u32> {
        if !self.described {
            return None;
        }
        let number = entry.metadata.as_ref().map(|metadata| match metadata.fields.get("n") {
            Some(storage_core::FieldValue::Int(number)) => *number as u32,
            // No write has this one.
            _ => u32::MAX,
        });
        Some(number.unwrap_or(u32::MAX))
    }

    /// What an entry that was read says.
    pub(crate) fn seen(&self, key: usize, entry: Option<&Entry>) -> Action {
        match entry {
            None => Action::Seen(key, Some(0), 0),
            Some(entry) => Action::Seen(key, self.described(entry), self.etag(entry.etag.as_ref())),
        }
    }

    /// What a listing or an answer shows of each key.
    pub(crate) fn shown(&self, entries: &[Entry]) -> Outcome<Vec<Action>> {
        let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let known: Vec<String> = (0..KEYS).map(|key| self.key(key)).collect();
        let each_once =
            keys.windows(2).all(|pair| pair[0] < pair[1]) && keys.iter().all(|k| known.iter().any(|o| o == k));
        expect(each_once, || format!("expected each key once and in order, saw {keys:?}"))?;
        let find = |key: &String| entries.iter().find(|entry| entry.key.as_str() == key);
        Ok(known.iter().enumerate().map(|(i, key)| self.seen(i, find(key))).collect())
    }
}

/// A client of a history.
#[derive(Debug)]
pub(crate) struct Client<'w> {
    pub(crate) s: Storage,
    pub(crate) world: &'w World,
    pub(crate) number: usize,
    known: [Option<Etag>; KEYS],
}

impl<'w> Client<'w> {
    pub(crate) fn new(s: Storage, world: &'w World, number: usize) -> Self {
        Self { s, world, number, known: Default::default() }
    }

    /// The client knows these etags.
    pub(crate) fn knowing(mut self, known: &[Option<Etag>; KEYS]) -> Self {
        self.known.clone_from(known);
        self
    }

    pub(crate) fn known(&self) -> &[Option<Etag>; KEYS] {
        &self.known
    }

    /// Does a call and notes it.
    pub(crate) async fn call(&mut self, mut op: Op) -> Outcome {
        if op.when == If::Match && self.known[op.key].is_none() {
            op.when = If::Always;
        }
        let started = self.world.tick();
        let result = self.act(op).await;
        let ended = self.world.tick();
        let told = result.and_then(|result| match result {
            Ok(steps) => Ok((steps, None)),
            Err(e) => Ok((self.refused(op, &e)?, Some(e.kind()))),
        });
        let call = |steps, error| Call { client: self.number, what: format!("{op:?}"), error, started, ended, steps };
        match told {
            Ok((steps, error)) => self.world.note([call(steps, error)]),
            Err(failure) => {
                self.world.wrong(op);
                self.world.note([call(Vec::new(), None)]);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Does a call of a transaction, which is noted with the others; also what a refusal says of the store.
    pub(crate) async fn within(&mut self, mut op: Op) -> Outcome<Result<Vec<Step>>> {
        if op.when == If::Match && self.known[op.key].is_none() {
            op.when = If::Always;
        }
        let told = match self.act(op).await {
            Ok(Err(e)) if e.kind() != ErrorKind::Conflict => self.refused(op, &e).map(Ok),
            result => result,
        };
        told.inspect_err(|_| self.world.wrong(op))
    }

    fn condition(&self, op: Op) -> Option<Condition> {
        match op.when {
            If::Always => None,
            If::Absent => Some(Condition::IfAbsent),
            If::Match => self.known[op.key].clone().map(Condition::IfMatch),
        }
    }

    fn found(&self, op: Op) -> Vec<Action> {
        match op.when {
            If::Always => Vec::new(),
            If::Absent => vec![Action::Seen(op.key, Some(0), 0)],
            If::Match => vec![Action::Present(op.key), Action::Seen(op.key, None, self.matched(op))],
        }
    }

    fn matched(&self, op: Op) -> u32 {
        self.world.etag(self.known[op.key].as_ref())
    }

    /// What a refusal says of the store.
    fn refused(&self, op: Op, error: &Error) -> Outcome<Vec<Step>> {
        let moves = matches!(op.verb, Verb::Copy | Verb::Rename);
        let reads = matches!(op.verb, Verb::Get | Verb::GetPieces | Verb::GetRange | Verb::GetBatch);
        let step = match error.kind() {
            ErrorKind::AlreadyExists if op.when == If::Absent => Step::new([Action::Present(op.key)]),
            ErrorKind::PreconditionFailed if op.when == If::Match => {
                Step::new([Action::Other(op.key, self.matched(op))])
            }
            ErrorKind::NotFound if moves => Step::new([Action::Seen(op.other(), Some(0), 0)]),
            // The source was written meanwhile, or the copy was gone before the store could be asked what it is; the target may have
            // been written.
            ErrorKind::Conflict if moves && error.is_ambiguous() => {
                let slot = self.world.slot();
                let taken = Step::new([Action::Take(slot, op.other())]).perhaps();
                let written = [&self.found(op)[..], &[Action::Paste(op.key, slot, 0)]].concat();
                return Ok(vec![taken, Step::then(written).perhaps()]);
            }
            // Whoever reads in pieces, or copies so, may find that the value has changed.
            ErrorKind::Conflict if !error.is_ambiguous() && (moves || reads || op.verb.is_atomic()) => {
                return Ok(Vec::new());
            }
            _ => return Err(format!("{op:?}, raced: expected success or a conflict, saw {error:?}").into()),
        };
        Ok(vec![step])
    }

    async fn act(&mut self, op: Op) -> Outcome<Result<Vec<Step>>> {
        let key = self.world.key(op.key);
        macro_rules! done {
            ($result:expr) => {
                match $result {
                    Ok(done) => done,
                    Err(e) => return Ok(Err(e)),
                }
            };
        }
        let steps = match op.verb {
            Verb::Put | Verb::PutStream => {
                let (number, value) = self.world.value();
                let mut options = self.world.options(number);
                options.condition = self.condition(op);
                let body = if op.verb == Verb::Put { value.into() } else { thirds(value) };
                let entry = done!(self.s.put_with(&key, body, options).await);
                let (found, written) = (self.found(op), self.written(op.key, number, &entry));
                vec![Step::new([&found[..], &[written]].concat())]
            }
            Verb::PutBatch | Verb::AtomicPuts => return self.puts(op).await,
            Verb::Copy => {
                let mut options = CopyOptions::new();
                options.condition = self.condition(op);
                let entry = done!(self.s.copy_with(self.world.key(op.other()), &key, options).await);
                self.moved(op, &entry, [])
            }
            Verb::Rename => {
                let mut options = RenameOptions::new();
                options.condition = self.condition(op);
                let entry = done!(self.s.rename_with(self.world.key(op.other()), &key, options).await);
                let gone = Action::Write(op.other(), State::default());
                self.moved(op, &entry, [gone])
            }
            Verb::Delete => {
                let mut options = DeleteOptions::new();
                options.condition = self.condition(op);
                done!(self.s.delete_with(&key, options).await);
                vec![Step::new([&self.found(op)[..], &[Action::Write(op.key, State::default())]].concat())]
            }
            Verb::DeleteBatch | Verb::AtomicDeletes => return self.deletes(op).await,
            Verb::Clear => {
                done!(self.s.clear_prefix(self.world.prefix()).await);
                (0..KEYS).map(|key| Step::new([Action::Write(key, State::default())])).collect()
            }
            Verb::Get | Verb::GetPieces | Verb::GetRange => {
                let from = self.world.size / 16 * 8;
                let options = match op.verb {
                    Verb::Get => GetOptions::new().prefer_buffered(true),
                    Verb::GetRange => GetOptions::new().range(from as u64..),
                    _ => GetOptions::new(),
                };
                let len = if op.verb == Verb::GetRange { self.world.size - from } else { self.world.size };
                vec![Step::new([done!(self.read(op.key, options, len).await?)])]
            }
            Verb::GetBatch => {
                let keys: Vec<String> = (0..KEYS).map(|key| self.world.key(key)).collect();
                let mut items = Vec::new();
                for key in &keys {
                    items.push((crate::support::key(key)?, GetOptions::new().prefer_buffered(true)));
                }
                let mut steps = Vec::new();
                for (key, object) in done!(self.s.backend().get_batch(items).await).into_iter().enumerate() {
                    let seen = match done!(object) {
                        None => self.world.seen(key, None),
                        Some(object) => {
                            let (entry, bytes) = (object.entry, done!(object.body.bytes(u64::MAX).await));
                            let number = self.world.number(&entry, &bytes, self.world.size)?;
                            Action::Seen(key, Some(number), self.world.etag(entry.etag.as_ref()))
                        }
                    };
                    steps.push(Step::new([seen]));
                }
                steps
            }
            Verb::Stat => {
                let entry = done!(self.s.stat(&key).await);
                self.learn(op.key, entry.as_ref());
                vec![Step::new([self.world.seen(op.key, entry.as_ref())])]
            }
            Verb::List | Verb::OneLevel => {
                let delimited = op.verb == Verb::OneLevel;
                let options = ListOptions::new().prefix(self.world.prefix()).metadata(true).delimited(delimited);
                let mut listing = done!(self.s.list_with(options).await);
                let mut entries = Vec::new();
                while let Some(item) = listing.next().await {
                    entries.extend(ListItem::into_entry(done!(item)));
                    breathe().await;
                }
                each(self.world.shown(&entries)?)
            }
            Verb::Query => {
                let answer = done!(self.s.query(Query::new().prefix(self.world.prefix())).await);
                each(self.world.shown(&done!(answer.try_collect::<Vec<_>>().await))?)
            }
        };
        Ok(Ok(steps))
    }

    /// Reads a key, piece by piece.
    async fn read(&mut self, key: usize, options: GetOptions, len: usize) -> Outcome<Result<Action>> {
        let object = match self.s.open(self.world.key(key), options).await {
            Ok(Some(object)) => object,
            Ok(None) => {
                self.learn(key, None);
                return Ok(Ok(self.world.seen(key, None)));
            }
            Err(e) => return Ok(Err(e)),
        };
        let (entry, mut body, mut bytes) = (object.entry, object.body.into_stream(), Vec::with_capacity(len));
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(e) => return Ok(Err(e)),
            }
            breathe().await;
        }
        self.learn(key, Some(&entry));
        let number = self.world.number(&entry, &bytes, len)?;
        Ok(Ok(Action::Seen(key, Some(number), self.world.etag(entry.etag.as_ref()))))
    }

    fn learn(&mut self, key: usize, entry: Option<&Entry>) {
        if let Some(etag) = entry.and_then(|entry| entry.etag.clone()) {
            self.known[key] = Some(etag);
        }
    }

    fn written(&mut self, key: usize, value: u32, entry: &Entry) -> Action {
        self.learn(key, Some(entry));
        Action::Write(key, State { value, etag: self.world.etag(entry.etag.as_ref()) })
    }

    /// A copy, or a rename with what it does at its end.
    fn moved<const N: usize>(&mut self, op: Op, entry: &Entry, end: [Action; N]) -> Vec<Step> {
        let (slot, found) = (self.world.slot(), self.found(op));
        self.learn(op.key, Some(entry));
        let written = [&found[..], &[Action::Paste(op.key, slot, self.world.etag(entry.etag.as_ref()))]].concat();
        let mut steps = vec![Step::new([Action::Take(slot, op.other())]), Step::then(written)];
        if N > 0 {
            let guard = self.world.guards_renames.then_some(Action::Still(op.other(), slot));
            steps.push(Step::then(guard.into_iter().chain(end).collect::<Vec<_>>()));
        }
        steps
    }

    /// Puts of both keys, the first under the condition.
    async fn puts(&mut self, op: Op) -> Outcome<Result<Vec<Step>>> {
        let atomic = op.verb == Verb::AtomicPuts;
        let keys = [op.key, op.other()];
        let ((first, a), (second, b)) = (self.world.value(), self.world.value());
        let mut options = self.world.options(first);
        options.condition = self.condition(op);
        let items = [(self.world.key(op.key), a, options), (self.world.key(op.other()), b, self.world.options(second))];
        let found = self.found(op);
        let results = match self.s.put_batch_with(items, BatchOptions::new().atomic(atomic)).await {
            Ok(results) => results,
            Err(e) => return Ok(Err(e)),
        };
        let mut steps = Vec::new();
        for ((key, number), result) in keys.into_iter().zip([first, second]).zip(results) {
            match result {
                Ok(entry) => {
                    let written = self.written(key, number, &entry);
                    let found = if key == op.key { &found[..] } else { &[] };
                    steps.push(Step::new([found, &[written]].concat()));
                }
                Err(e) if key == op.key && !atomic => steps.extend(self.refused(op, &e)?),
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(if atomic { at_once(steps) } else { steps }))
    }

    /// Deletes of both keys, the first under the condition.
    async fn deletes(&mut self, op: Op) -> Outcome<Result<Vec<Step>>> {
        let atomic = op.verb == Verb::AtomicDeletes;
        let mut first = DeleteOptions::new();
        first.condition = self.condition(op);
        let items = [(self.world.key(op.key), first), (self.world.key(op.other()), DeleteOptions::new())];
        let results = match self.s.delete_batch_with(items, BatchOptions::new().atomic(atomic)).await {
            Ok(results) => results,
            Err(e) => return Ok(Err(e)),
        };
        let mut steps = Vec::new();
        for (key, result) in [op.key, op.other()].into_iter().zip(results) {
            match result {
                Ok(()) => {
                    let found = if key == op.key { self.found(op) } else { Vec::new() };
                    steps.push(Step::new([&found[..], &[Action::Write(key, State::default())]].concat()));
                }
                Err(e) if key == op.key && !atomic => steps.extend(self.refused(op, &e)?),
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(if atomic { at_once(steps) } else { steps }))
    }
}

impl Verb {
    pub(crate) fn is_atomic(self) -> bool {
        matches!(self, Self::AtomicPuts | Self::AtomicDeletes)
    }
}

fn each(actions: Vec<Action>) -> Vec<Step> {
    actions.into_iter().map(|action| Step::new([action])).collect()
}

/// All steps as one.
pub(crate) fn at_once(steps: Vec<Step>) -> Vec<Step> {
    vec![Step::new(steps.into_iter().flat_map(|step| step.actions).collect::<Vec<_>>())]
}

/// The value in three pieces, before each of which others come in.
pub(crate) fn thirds(value: Bytes) -> Body {
    let third = value.len() / 3;
    let pieces = [value.slice(..third), value.slice(third..2 * third), value.slice(2 * third..)];
    Body::stream(stream::iter(pieces).then(|piece| async {
        breathe().await;
        Ok(piece)
    }))
}
