//! Writes: to every store at once, acknowledged when a quorum has it.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use storage_core::{
    Body, Buffer, ByteStream, Bytes, Entry, Error, ErrorKind, GetOptions, Key, Metadata, Result, pending::Commit,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Inner,
    child::{Child, Seen},
    quorum::Newest,
    record::{Record, WriteId, digest_of, time},
};
use crate::names;

/// How long a store is waited for once a quorum has the value, and by a stream that the others could go on with.
const STRAGGLER: Duration = Duration::from_secs(10);
/// How long a quorum is waited for.
const QUORUM: Duration = Duration::from_secs(60);
/// A stream of at most so many bytes is sent as a whole.
const WHOLE: usize = 1 << 20;

/// Gives the value for a store, again if it can.
type Bodies = Box<dyn FnMut() -> BoxFuture<'static, Result<Option<Body>>> + Send>;

/// What goes to the stores.
pub(super) struct Writing {
    key: Key,
    record: Record,
    metadata: Arc<Metadata>,
    /// What was seen of some of them before.
    seen: Vec<(usize, Seen)>,
}

impl Writing {
    /// The entry of the write.
    fn entry(&self, size: u64, metadata: Option<Arc<Metadata>>) -> Entry {
        let mut entry = Entry::new(self.key.clone(), size);
        entry.etag = Some(self.record.id.etag());
        entry.modified = Some(time(self.record.id.micros));
        entry.created = Some(time(self.record.created));
        entry.metadata = Some(metadata.unwrap_or_default());
        entry
    }
}

/// A write that is under way.
struct Sent {
    key: Key,
    tasks: JoinSet<(usize, bool, Result<()>)>,
    /// The stores that have not answered.
    waiting: Vec<usize>,
    /// The stores that have it.
    has: Vec<usize>,
}

impl Sent {
    fn ended(&mut self, at: usize, has: bool) {
        self.waiting.retain(|other| *other != at);
        if has {
            self.has.push(at);
        }
    }
}

impl Inner {
    /// A write above all that a read quorum has.
    async fn begin(
        &self,
        key: &Key,
        metadata: Option<&Metadata>,
        digest: Option<String>,
        deleted: bool,
    ) -> Result<Writing> {
        let seen = self.look(key, self.read_quorum).await?;
        let newest = seen.iter().max_by_key(|(_, seen)| seen.id());
        let id = self.next_id(newest.and_then(|(_, seen)| seen.id()))?;
        let there = newest.filter(|(_, seen)| seen.value().is_some()).and_then(|(_, seen)| seen.record.as_ref());
        let created = there.map_or(id.micros, |record| record.created);
        let record = Record { id, created, digest, deleted };
        let metadata = record.attach(metadata);
        Ok(Writing { key: key.clone(), record, metadata, seen })
    }

    /// Writes a value.
    pub(super) async fn put(
        self: Arc<Self>,
        key: Key,
        body: Body,
        metadata: Option<Arc<Metadata>>,
        commit: Commit,
    ) -> Result<Entry> {
        let len = body.len();
        let (value, rest) = match body.into_buffer() {
            Ok(value) => (value, None),
            Err(pieces) => beginning(pieces.boxed()).await?,
        };
        let Some(rest) = rest else {
            if value.len() > self.info.limits.value {
                return Err(self.too_large());
            }
            let _turn = self.locks.lock(&key).await;
            let writing = self.begin(&key, metadata.as_deref(), Some(digest_of(&value)), false).await?;
            commit.begin()?;
            let entry = writing.entry(value.len(), metadata);
            let tasks = self.send(writing, |_| {
                let value = value.clone();
                Box::new(move || std::future::ready(Ok(Some(value.clone().into()))).boxed())
            });
            return self.quorum(tasks, Some(commit)).await.map(|()| entry);
        };
        let writing = {
            // What is written whole meanwhile has a higher id.
            let _turn = self.locks.lock(&key).await;
            self.begin(&key, metadata.as_deref(), None, false).await?
        };
        self.put_stream(writing, value, rest, len, metadata, commit).await
    }

    /// Marks a key as deleted.
    pub(super) async fn remove(self: Arc<Self>, key: Key, commit: Commit) -> Result<()> {
        let _turn = self.locks.lock(&key).await;
        let writing = self.begin(&key, None, Some(digest_of(&Buffer::default())), true).await?;
        let absent =
            |seen: &Seen| seen.value().is_none() && seen.id() == writing.seen.first().and_then(|(_, first)| first.id());
        if writing.seen.iter().all(|(_, seen)| absent(seen)) {
            return Ok(());
        }
        commit.begin()?;
        let tasks = self.send(writing, |_| Box::new(|| std::future::ready(Ok(Some(Body::default()))).boxed()));
        self.quorum(tasks, Some(commit)).await
    }

    /// Writes what one store has to the others, until a quorum has it: then it is the newest. `None` where that has to be looked at again.
    /// The key's lock is held.
    pub(super) async fn spread(self: &Arc<Self>, key: &Key, from: usize) -> Result<Option<Newest>> {
        let seen = self.children[from].look(key).await?;
        let (Some(entry), None) = (&seen.entry, &seen.damaged) else { return Ok(None) };
        let Some(record) = seen.record.clone() else { return self.take_in(key, from, &seen).await.map(|()| None) };
        let users = entry.metadata.as_deref().filter(|_| !record.deleted);
        let metadata = record.attach(users);
        let writing = Writing { key: key.clone(), record, metadata, seen: Vec::new() };
        let tasks = self.send(writing, |_| self.source(key, from, &seen));
        self.quorum(tasks, None).await?;
        Ok(Some(Newest { holders: vec![(from, seen.clone())], seen }))
    }

    /// Makes what others stored in one store a write: in the other stores first, for the value is read from this one.
    async fn take_in(&self, key: &Key, from: usize, seen: &Seen) -> Result<()> {
        let id = self.next_id(None)?;
        let record = Record { id, created: id.micros, digest: None, deleted: false };
        let metadata = record.attach(seen.entry.as_ref().and_then(|entry| entry.metadata.as_deref()));
        let (mut done, mut failed) = (0, None);
        let others = (0..self.children.len()).filter(|at| *at != from);
        for at in others.chain([from]) {
            let child = &self.children[at];
            match child.write(key, id, &metadata, None, self.source(key, from, seen)).await {
                Ok(()) => done += usize::from(!child.is_fenced()),
                Err(e) => failed = Some(e),
            }
        }
        if done >= self.write_quorum { Ok(()) } else { Err(self.too_few(self.write_quorum, failed).ambiguous()) }
    }

    /// The value as one store has it.
    pub(super) fn source(&self, key: &Key, from: usize, seen: &Seen) -> Bodies {
        let (child, key, etag) = (self.children[from].clone(), key.clone(), seen.etag.clone());
        Box::new(move || {
            let (child, key, etag) = (child.clone(), key.clone(), etag.clone());
            async move {
                let mut options = GetOptions::new();
                options.if_match = etag;
                let object = child.backend().await?.get(&names::key_below(&key)?, options).await;
                Ok(object.map_err(|e| child.error(e))?.map(|object| object.body))
            }
            .boxed()
        })
    }

    /// Begins to write to each of the stores.
    fn send(&self, writing: Writing, body: impl Fn(usize) -> Bodies) -> Sent {
        let (mut tasks, mut waiting) = (JoinSet::new(), Vec::new());
        let writing = Arc::new(writing);
        // A store that failed again and again is spared, if it can be done without.
        let well = self.children.iter().filter(|child| !child.is_fenced() && !child.is_open()).count();
        for (at, child) in self.children.iter().enumerate() {
            if child.is_open() && well >= self.write_quorum {
                continue;
            }
            waiting.push(at);
            let (child, writing, body) = (child.clone(), writing.clone(), body(at));
            let write = async move { (at, !child.is_fenced(), store(&child, at, &writing, body).await) };
            tasks.spawn_on(write, &self.runtime);
        }
        Sent { key: writing.key.clone(), tasks, waiting, has: Vec::new() }
    }

    /// Waits until a quorum has the write; what is left goes on for a while. What a store missed is written down.
    async fn quorum(self: &Arc<Self>, mut sent: Sent, commit: Option<Commit>) -> Result<()> {
        let done = self.gathered(&mut sent).await;
        if done.is_err() {
            sent.tasks = JoinSet::new();
        }
        let inner = self.clone();
        self.runtime.spawn(async move {
            // What has not ended by then is dropped, and with it given up.
            let rest = async {
                while let Some(next) = sent.tasks.join_next().await {
                    if let Ok((at, _, stored)) = next {
                        sent.ended(at, stored.is_ok());
                    }
                }
            };
            let _ = timeout(STRAGGLER, rest).await;
            drop(sent.tasks);
            sent.waiting.iter().for_each(|at| inner.children[*at].failed());
            inner.note_missed(&sent.key, &sent.has).await;
        });
        if done.as_ref().is_err_and(Error::is_ambiguous) {
            commit.into_iter().for_each(Commit::lose);
        }
        done
    }

    async fn gathered(&self, sent: &mut Sent) -> Result<()> {
        let (mut done, mut maybe, mut failed) = (0, false, None);
        let late = sleep(QUORUM);
        tokio::pin!(late);
        loop {
            let next = tokio::select! {
                // So that a simulation repeats itself.
                biased;
                next = sent.tasks.join_next() => next,
                () = &mut late => None,
            };
            match next {
                Some(Ok((at, counts, Ok(())))) => {
                    maybe = true;
                    sent.ended(at, true);
                    done += usize::from(counts);
                    if done >= self.write_quorum {
                        return Ok(());
                    }
                }
                Some(Ok((at, _, Err(e)))) => {
                    sent.ended(at, false);
                    maybe |= e.is_ambiguous();
                    failed = Some(e);
                }
                Some(Err(_)) => maybe = true,
                None => break,
            }
        }
        maybe |= !sent.tasks.is_empty();
        let known = failed.as_ref().filter(|e| !e.is_retryable() && !maybe);
        if let Some(e) = known.filter(|e| !matches!(e.kind(), ErrorKind::Other | ErrorKind::Config)) {
            return Err(e.clone());
        }
        let e = self.too_few(self.write_quorum, failed);
        Err(if maybe { e.ambiguous() } else { e })
    }

    fn too_large(&self) -> Error {
        Error::new(ErrorKind::TooLarge, format!("the value is larger than {} bytes", self.info.limits.value))
    }

    /// Hands a long value to all stores while it is read, each a few pieces ahead of the slowest.
    async fn put_stream(
        self: Arc<Self>,
        writing: Writing,
        begun: Buffer,
        rest: ByteStream,
        len: Option<u64>,
        metadata: Option<Arc<Metadata>>,
        commit: Commit,
    ) -> Result<Entry> {
        let mut entry = writing.entry(0, metadata);
        let mut ways = Vec::new();
        let mut ends: Vec<Option<mpsc::Receiver<Piece>>> = Vec::new();
        for _ in &self.children {
            let (way, end) = mpsc::channel(2);
            ways.push(Some(way));
            ends.push(Some(end));
        }
        let ends = std::sync::Mutex::new(ends);
        let tasks = self.send(writing, |at| {
            let mut end = ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[at].take();
            Box::new(move || {
                let body = end.take().map(|end| match len {
                    Some(len) => Body::with_len(len, received(end)),
                    None => Body::stream(received(end)),
                });
                std::future::ready(Ok(body)).boxed()
            })
        });
        let mut pieces = stream::iter(begun.into_iter().map(Ok)).chain(rest);
        while let Some(piece) = pieces.next().await {
            let piece = piece.and_then(|piece| {
                entry.size += piece.len() as u64;
                if entry.size > self.info.limits.value { Err(self.too_large()) } else { Ok(piece) }
            });
            match piece {
                Ok(piece) => pass_on(&mut ways, &Piece::Some(piece)).await,
                Err(e) => {
                    pass_on(&mut ways, &Piece::Failed(e.clone())).await;
                    return Err(e);
                }
            }
        }
        commit.begin()?;
        pass_on(&mut ways, &Piece::End).await;
        drop(ways);
        self.quorum(tasks, Some(commit)).await.map(|()| entry)
    }
}

async fn store(child: &Child, at: usize, writing: &Writing, body: Bodies) -> Result<()> {
    let hint = writing.seen.iter().find(|(seen, _)| *seen == at).map(|(_, seen)| seen.clone());
    let id: WriteId = writing.record.id;
    child.write(&writing.key, id, &writing.metadata, hint, body).await
}

/// A piece of a value on its way to a store. Without the end it is never taken for a whole one.
#[derive(Clone)]
enum Piece {
    Some(Bytes),
    Failed(Error),
    End,
}

fn received(end: mpsc::Receiver<Piece>) -> impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static {
    stream::try_unfold(end, |mut end| async move {
        match end.recv().await {
            Some(Piece::Some(piece)) => Ok(Some((piece, end))),
            Some(Piece::End) => Ok(None),
            Some(Piece::Failed(e)) => Err(e),
            None => Err(Error::new(ErrorKind::Other, "the write was given up")),
        }
    })
}

/// Gives each store the piece; one that takes none for long goes without the value.
async fn pass_on(ways: &mut [Option<mpsc::Sender<Piece>>], piece: &Piece) {
    let sends = ways.iter_mut().map(|way| async move {
        if let Some(open) = way {
            let sent = timeout(STRAGGLER, open.send(piece.clone())).await;
            if !matches!(sent, Ok(Ok(()))) {
                *way = None;
            }
        }
    });
    futures_util::future::join_all(sends).await;
}

/// A value that is short enough as a whole, or its beginning and the rest.
async fn beginning(mut pieces: ByteStream) -> Result<(Buffer, Option<ByteStream>)> {
    let (mut begun, mut len) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        len += piece.len();
        begun.push(piece);
        if len > WHOLE {
            return Ok((begun.into_iter().collect(), Some(pieces)));
        }
    }
    Ok((begun.into_iter().collect(), None))
}
