//! Content on its way to a name: received, on the node, pinned.
//!
//! What is pinned is a directory with nothing but the content, under a file name that only this store uses: so nobody else's pin is ever
//! the same, and nobody need be asked whether there is one.
//!
//! What is pinned and has no name yet can be taken for left behind by a sweep. The sweep leaves a trace of that in the count of the
//! content: whoever pins first looks at the count, and names only what has the same count then, or keys that keep it pinned.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use futures_util::{FutureExt, StreamExt};
use storage_core::{Body, Condition, Entry, Error, ErrorKind, Etag, PutOptions, Result};
use tokio::time::{Instant, sleep};

use crate::{
    add::Added,
    error,
    node::{Node, about_content},
    pins::pin_name,
    record::{self, Count, Names, State},
    store::{Failure, Found, Session, Store, etag_of},
    sweep::{CLAIM, InUse, TRACE},
    unixfs::{Block, CHUNK, Part, directory, leaf, total},
};

/// A value, and what is known of its content on the node.
pub(crate) struct Content {
    pub(crate) part: Part,
    /// The directory that is pinned for it, with its block.
    directory: (Cid, Bytes),
    form: Form,
    pinned: Option<Pinned>,
    /// What takes it off the node again, unless it is named.
    abandoned: Abandoned,
    in_use: Option<InUse>,
}

enum Form {
    /// Held in memory.
    Small(Bytes),
    /// Sent; with the body once more, if it can be sent again.
    Sent(Option<Body>),
    /// To be found by its name.
    Named,
}

impl Form {
    fn once_more(&self) -> Self {
        match self {
            Self::Small(value) => Self::Small(value.clone()),
            Self::Sent(body) => Self::Sent(body.as_ref().and_then(Body::try_clone)),
            Self::Named => Self::Named,
        }
    }
}

/// That content was pinned, and what its count was before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    at: Instant,
    under: Option<Etag>,
}

impl Pinned {
    fn now(under: Option<Etag>) -> Self {
        Self { at: Instant::now(), under }
    }

    /// It is just being unpinned. No record has this etag.
    fn in_vain() -> Self {
        Self::now(Some(Etag::new("")))
    }

    /// Whether content that has this count now is still pinned. A trace does not stay for ever.
    pub(crate) fn holds(&self, etag: Option<&Etag>) -> bool {
        self.under.as_ref() == etag && self.at.elapsed() < TRACE / 4
    }
}

/// Tells the sweep of an upload that was given up, when it is dropped.
struct Abandoned(Option<Arc<Store>>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(store) = &self.0 {
            store.sweeper.leftovers();
        }
    }
}

impl Content {
    /// A file that has `total` bytes in all its blocks.
    fn new(names: &Names, part: Part, total: u64, form: Form) -> Self {
        let directory = directory(names.file(), &part.cid, total);
        Self { part, directory, form, pinned: None, abandoned: Abandoned(None), in_use: None }
    }

    fn small(names: &Names, value: Bytes) -> Self {
        let size = value.len() as u64;
        Self::new(names, Part { cid: leaf(&value), size }, size, Form::Small(value))
    }

    /// What is pinned for it.
    pub(crate) fn pin(&self) -> Cid {
        self.directory.0
    }

    /// What was pinned for it, if anything was.
    pub(crate) fn pinned(&self) -> Option<(Cid, Pinned)> {
        self.pinned.clone().map(|pinned| (self.pin(), pinned))
    }

    /// Equal content was pinned so.
    pub(crate) fn pinned_with(&mut self, pinned: Option<(Cid, Pinned)>) {
        if self.pinned.is_none() {
            self.pinned = pinned.map(|(_, pinned)| pinned);
        }
    }

    /// It has a name.
    pub(crate) fn named(mut self) {
        self.abandoned.0 = None;
    }
}

impl Session {
    /// Takes in a value: a small one into memory, a large one to the node.
    pub(crate) async fn receive(&self, body: Body, options: &PutOptions) -> Result<Content> {
        let node = self.store.node()?;
        if let Some(source) = &options.source {
            return self.source(node, source).await;
        }
        if is_small(&body) {
            let value = body.bytes(CHUNK as u64).await?;
            return Ok(Content::small(&self.store.names, value));
        }
        let again = body.try_clone();
        let mut stream = match body.into_buffer() {
            Ok(buffer) => {
                // As it lies, without a copy.
                let Err(stream) =
                    Body::with_len(buffer.len(), futures_util::stream::iter(buffer.into_iter().map(Ok))).into_buffer()
                else {
                    return Err(Error::new(ErrorKind::Other, "the body is neither in memory nor a stream"));
                };
                stream
            }
            Err(stream) => stream,
        };
        let (mut first, mut len) = (Vec::new(), 0);
        while len <= CHUNK {
            let Some(piece) = stream.next().await.transpose()? else {
                return Ok(Content::small(&self.store.names, joined(first)));
            };
            len += piece.len();
            first.push(piece);
        }
        self.send(first, stream, again).await
    }

    async fn send(&self, first: Vec<Bytes>, rest: storage_core::BodyStream, again: Option<Body>) -> Result<Content> {
        let store = &self.store;
        let looked = Arc::new(Mutex::new(None::<(Content, Option<Pinned>)>));
        let (session, set, mut abandoned) = (self.clone(), looked.clone(), Abandoned(Some(store.clone())));
        let before = move |part: Part, total: u64| {
            async move {
                let mut content = Content::new(&session.store.names, part, total, Form::Sent(None));
                content.in_use = Some(session.store.sweeper.using(part.cid));
                let pin = content.pin();
                // The node collects nothing while it takes an upload, and unpins nothing while it wants to collect: it must not wait.
                let found = session.look(part.cid, None, false).await;
                let told =
                    found.map(|pinned| *set.lock().unwrap_or_else(PoisonError::into_inner) = Some((content, pinned)));
                (pin, told)
            }
            .boxed()
        };
        let added = store.node()?.add_stream(store.names.file(), first, rest, &store.pin_name, before).await;
        let looked = looked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let e = match (added, looked) {
            (Ok(_), Some((mut content, pinned))) => {
                content.form = Form::Sent(again);
                content.pinned = Some(pinned.unwrap_or_else(|| Pinned::now(None)));
                content.abandoned = abandoned;
                return Ok(content);
            }
            // An upload that ended well was looked at.
            (Ok(_), None) => return Err(collected()),
            (Err((e, None)), _) => return Err(e),
            (Err((e, Some(added))), _) => (e, added),
        };
        abandoned.0 = None;
        store.sweeper.discard(e.1);
        Err(e.0)
    }

    /// A value by the name of its content, which the node fetches if it can.
    async fn source(&self, node: &Node, source: &str) -> Result<Content> {
        let text = source.strip_prefix("ipfs://").or_else(|| source.strip_prefix("/ipfs/")).unwrap_or(source);
        let cid = cid::Cid::try_from(text).map_err(|_| {
            let what = "the source is not a content identifier; write one as `bafy…`, `/ipfs/bafy…` or `ipfs://bafy…`";
            Error::new(ErrorKind::InvalidInput, what)
        })?;
        let root = match node.block(&cid, true).await {
            Err(e) if error::is_not_found(&e) => node.block(&cid, false).await.map_err(about_content)?,
            root => root?,
        };
        let all = total(&cid, &root);
        let size = Block::read(&cid, root).map_err(|e| match e.kind() {
            ErrorKind::Corrupt => {
                Error::new(ErrorKind::InvalidInput, "the source is not a file that can be verified").with_source(e)
            }
            _ => e,
        })?;
        let size = size.size();
        if i64::try_from(size).is_err() {
            return Err(Error::new(ErrorKind::InvalidInput, "the source says that it is larger than any value"));
        }
        Ok(Content::new(&self.store.names, Part { cid, size }, all, Form::Named))
    }

    /// Makes sure that content is pinned, or that a key keeps it so. `seen` is its count, if that was just read; `again` if it was found out
    /// that it is not pinned.
    pub(crate) async fn ensure(&self, content: &mut Content, seen: Option<Found>, again: bool) -> Result<()> {
        self.ensure_on_node(content, seen, again).await?;
        match &self.store.pinning {
            // What has a key was asked for with that.
            Some(service) if content.pinned.is_some() => service.pin(&content.part.cid).await,
            _ => Ok(()),
        }
    }

    async fn ensure_on_node(&self, content: &mut Content, seen: Option<Found>, again: bool) -> Result<()> {
        if content.pinned.is_some() && !again {
            return Ok(());
        }
        let store = &self.store;
        let (node, cid) = (store.node()?, content.part.cid);
        content.in_use.get_or_insert_with(|| store.sweeper.using(cid));
        let Some(pinned) = self.look(cid, seen, true).await? else { return Ok(()) };
        content.abandoned.0 = Some(store.clone());
        let name = pin_name(&store.pin_name, &cid);
        match content.form.once_more() {
            Form::Small(value) => {
                node.add_small(store.names.file(), &value, Added { cid, pin: content.pin() }, &name).await?;
            }
            Form::Sent(body) => match node.pin_directory(&content.directory, &name, true).await {
                Err(e) if error::is_not_found(&e) => {
                    let Some(body) = body else { return Err(collected()) };
                    let options = PutOptions::new();
                    let mut sent = Box::pin(self.receive(body, &options)).await?;
                    content.pinned = sent.pinned.take();
                    sent.named();
                    return Ok(());
                }
                pinned => pinned?,
            },
            Form::Named => node.pin_directory(&content.directory, &name, false).await.map_err(about_content)?,
        }
        content.pinned = Some(pinned);
        Ok(())
    }

    /// Looks at content that is about to be pinned, and says what a pin that is made now rests on; `None` if it is pinned already, for keys. If it
    /// is just being unpinned, it waits for that, or leaves it to the write that names the content to find out.
    async fn look(&self, cid: Cid, mut seen: Option<Found>, waits: bool) -> Result<Option<Pinned>> {
        let begun = Instant::now();
        loop {
            let found = match seen.take() {
                Some(seen) => seen,
                None => self.count(&cid).await?,
            };
            match &found {
                Some((count, _)) if count.keys > 0 => return Ok(None),
                // It is about to be unpinned: as newly found it is left alone for a while.
                Some((count, record)) if count.is_pinned() => {
                    let staked = Count { state: State::Found, ..count.clone() };
                    let condition = record.etag.as_ref().map(|etag| Condition::IfMatch(etag.clone()));
                    if self.write_count(&cid, &staked, condition).await?.is_some() {
                        return Ok(None);
                    }
                }
                Some((Count { state: State::Claimed(_), .. }, record)) => {
                    if !waits {
                        return Ok(Some(Pinned::in_vain()));
                    }
                    if self.open.is_some() {
                        return Err(busy(ErrorKind::Conflict));
                    }
                    // Whoever has claimed it is gone, if it has been so for long.
                    let age = self.store.now().await.ok().zip(record.modified);
                    let age = age.and_then(|(now, since)| now.duration_since(since).ok());
                    if age.is_some_and(|age| age > CLAIM) {
                        return Ok(Some(Pinned::now(etag_of(found.as_ref()))));
                    }
                    if begun.elapsed() > CLAIM + self.store.config.timeout {
                        return Err(busy(ErrorKind::Unavailable));
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                _ => return Ok(Some(Pinned::now(etag_of(found.as_ref())))),
            }
        }
    }

    /// Writes a count, unless another writer was first.
    async fn write_count(&self, cid: &Cid, count: &Count, condition: Option<Condition>) -> Result<Option<Entry>> {
        let mut options = PutOptions::new();
        options.condition = condition;
        match self.view().put(&record::count_key(cid)?, count.write().into(), options).await {
            Ok(record) => Ok(Some(record)),
            Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed) => Ok(None),
            Err(e) => Err(self.store.own(e)),
        }
    }

    /// Leaves content that was pinned, and will not be named, to the sweep; what only may be pinned, to one of everything.
    pub(crate) fn discard(&self, content: Content) {
        if content.pinned.is_some() {
            self.store.sweeper.discard(Added { cid: content.part.cid, pin: content.pin() });
            content.named();
        }
    }
}

/// Whether a value lies in memory, and is one block.
pub(crate) fn is_small(body: &Body) -> bool {
    body.len().is_some_and(|len| len <= CHUNK as u64) && body.is_in_memory()
}

/// Whether a write may name content that has this count.
pub(crate) fn check_pinned(
    part: &Part,
    pinned: Option<&Pinned>,
    found: Option<&(Count, Entry)>,
) -> Result<(), Failure> {
    let etag = etag_of(found);
    let holds = found.is_some_and(|(count, _)| count.is_pinned()) || pinned.is_some_and(|p| p.holds(etag.as_ref()));
    if holds { Ok(()) } else { Err(Failure::Unpinned(part.cid)) }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

fn busy(kind: ErrorKind) -> Error {
    Error::new(kind, "the same content is just being unpinned; try again")
}

fn collected() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the node collected the value before it had a name, and its stream cannot be read again; put it again",
    )
}
