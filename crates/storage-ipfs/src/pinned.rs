//! Content on its way to a name: received, on the node, pinned.
//!
//! What is pinned and has no name yet can be taken for left behind by a sweep. The sweep leaves a trace of that in the count of the
//! content: whoever pins first looks at the count, and names only what has the same count then, or keys that keep it pinned.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use storage_core::{Body, Condition, Entry, Error, ErrorKind, Etag, PutOptions, Result, StorageBackend};
use tokio::time::{Instant, sleep};

use crate::{
    error,
    node::{Node, about_content},
    record::{self, Count, State},
    store::{self, Failure, Session, Store, etag_of},
    sweep::{CLAIM, InUse, TRACE},
    unixfs::{Block, CHUNK, Part, leaf},
};

/// A value, and what is known of its content on the node.
pub(crate) struct Content {
    pub(crate) part: Part,
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
#[derive(Clone, Debug)]
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
    fn new(part: Part, form: Form) -> Self {
        Self { part, form, pinned: None, abandoned: Abandoned(None), in_use: None }
    }

    pub(crate) fn pinned(&self) -> Option<Pinned> {
        self.pinned.clone()
    }

    /// Equal content was pinned so.
    pub(crate) fn pinned_with(&mut self, pinned: Option<Pinned>) {
        if self.pinned.is_none() {
            self.pinned = pinned;
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
        if body.len().is_some_and(|len| len <= CHUNK as u64) && body.is_in_memory() {
            let value = body.bytes(CHUNK as u64).await?;
            return Ok(small(value));
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
                return Ok(small(joined(first)));
            };
            len += piece.len();
            first.push(piece);
        }
        self.send(first, stream, again).await
    }

    async fn send(&self, first: Vec<Bytes>, rest: storage_core::BodyStream, again: Option<Body>) -> Result<Content> {
        let store = &self.store;
        let found: Arc<std::sync::OnceLock<Looked>> = Arc::default();
        let looked = found.clone();
        let (session, mut abandoned) = (self.clone(), Abandoned(Some(store.clone())));
        let used: Arc<Mutex<Option<InUse>>> = Arc::default();
        let using = used.clone();
        let before = move |part: Part| {
            async move {
                *using.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.store.sweeper.using(part.cid));
                // The node collects nothing while it takes an upload, and unpins nothing while it wants to collect: it must not wait.
                let seen = session.look(&part, false).await?;
                let _ = looked.set(seen);
                Ok(())
            }
            .boxed()
        };
        match store.node()?.add_stream(first, rest, &store.pin_name, before).await {
            Ok(part) => {
                let looked = found.get().cloned().unwrap_or_default();
                if let Some(name) = &looked.foreign {
                    // Somebody else's pin is called what it was.
                    store.node()?.pin_add(&part.cid, name, true).await?;
                }
                let mut content = Content::new(part, Form::Sent(again));
                content.pinned = Some(looked.pinned.unwrap_or_else(|| Pinned::now(None)));
                content.abandoned = abandoned;
                content.in_use = used.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(content)
            }
            Err((e, Some(cid))) => {
                abandoned.0 = None;
                store.sweeper.discard(cid);
                Err(e)
            }
            Err((e, None)) => Err(e),
        }
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
        Ok(Content::new(Part { cid, size }, Form::Named))
    }

    /// Makes sure that content is pinned, or that a key keeps it so. `again` if it was found out that it is not.
    pub(crate) async fn ensure(&self, content: &mut Content, again: bool) -> Result<()> {
        self.ensure_on_node(content, again).await?;
        match &self.store.pinning {
            // What has a key was asked for with that.
            Some(service) if content.pinned.is_some() => service.pin(&content.part.cid).await,
            _ => Ok(()),
        }
    }

    async fn ensure_on_node(&self, content: &mut Content, again: bool) -> Result<()> {
        if content.pinned.is_some() && !again {
            return Ok(());
        }
        let store = &self.store;
        let (node, part) = (store.node()?, content.part);
        content.in_use.get_or_insert_with(|| store.sweeper.using(part.cid));
        let looked = self.look(&part, true).await?;
        let Some(pinned) = looked.pinned else { return Ok(()) };
        if looked.foreign.is_none() {
            content.abandoned.0 = Some(store.clone());
            match content.form.once_more() {
                Form::Small(value) => node.add_small(&value, &part.cid, &store.pin_name).await?,
                Form::Sent(body) => match node.pin_add(&part.cid, &store.pin_name, true).await {
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
                Form::Named => node.pin_add(&part.cid, &store.pin_name, false).await.map_err(about_content)?,
            }
        }
        content.pinned = Some(pinned);
        Ok(())
    }

    /// Looks at content that is about to be pinned. If it is just being unpinned, it waits for that, or leaves it to the write that names
    /// the content to find out.
    async fn look(&self, part: &Part, waits: bool) -> Result<Looked> {
        let begun = Instant::now();
        loop {
            let found = self.count(&part.cid).await?;
            let etag = etag_of(found.as_ref());
            match &found {
                Some((count, _)) if count.keys > 0 => return Ok(Looked::default()),
                // It is about to be unpinned: as newly found it is left alone for a while.
                Some((count, record)) if count.is_pinned() => {
                    let staked = Count { state: State::Found, ..count.clone() };
                    let condition = record.etag.as_ref().map(|etag| Condition::IfMatch(etag.clone()));
                    if self.write_count(part, &staked, condition).await?.is_some() {
                        return Ok(Looked::default());
                    }
                }
                Some((Count { state: State::Claimed(_), .. }, record)) => {
                    if !waits {
                        return Ok(Looked { pinned: Some(Pinned::in_vain()), foreign: None });
                    }
                    if self.open.is_some() {
                        return Err(busy(ErrorKind::Conflict));
                    }
                    // Whoever has claimed it is gone, if it has been so for long.
                    let age = self.store.now().await.ok().zip(record.modified);
                    let age = age.and_then(|(now, since)| now.duration_since(since).ok());
                    if age.is_some_and(|age| age > CLAIM) {
                        return Ok(Looked { pinned: Some(Pinned::now(etag)), foreign: None });
                    }
                    if begun.elapsed() > CLAIM + self.store.config.timeout {
                        return Err(busy(ErrorKind::Unavailable));
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                _ => {
                    let pin = self.store.node()?.pin(&part.cid).await?;
                    let Some(pin) = pin.filter(|pin| !pin.name.starts_with("storage-ipfs:")) else {
                        return Ok(Looked { pinned: Some(Pinned::now(etag)), foreign: None });
                    };
                    if found.as_ref().is_some_and(|(count, _)| count.foreign.as_ref() == Some(&pin.name)) {
                        return Ok(Looked { pinned: Some(Pinned::now(etag)), foreign: Some(pin.name) });
                    }
                    // Somebody else's pin. That is written down before ours can take its place.
                    let count = Count { foreign: Some(pin.name.clone()), ..Count::default() };
                    let condition = etag.map_or(Condition::IfAbsent, Condition::IfMatch);
                    if let Some(record) = self.write_count(part, &count, Some(condition)).await? {
                        return Ok(Looked { pinned: Some(Pinned::now(record.etag)), foreign: Some(pin.name) });
                    }
                }
            }
        }
    }

    /// Writes a count, unless another writer was first.
    async fn write_count(&self, part: &Part, count: &Count, condition: Option<Condition>) -> Result<Option<Entry>> {
        let mut options = PutOptions::new();
        options.condition = condition;
        match self.view().put(&record::count_key(&part.cid)?, count.write().into(), options).await {
            Ok(record) => Ok(Some(record)),
            Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed) => Ok(None),
            Err(e) => Err(self.store.own(e)),
        }
    }

    /// Leaves content that was pinned, and will not be named, to the sweep.
    pub(crate) fn discard(&self, content: Content) {
        if content.pinned.is_some() {
            self.store.sweeper.discard(content.part.cid);
        }
        content.named();
    }
}

/// What is to be known before content is pinned.
#[derive(Clone, Default)]
struct Looked {
    /// What a pin that is made now rests on; `None` if it is pinned already, for keys.
    pinned: Option<Pinned>,
    /// The name of somebody else's pin.
    foreign: Option<String>,
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

/// The same, looked up.
pub(crate) async fn found(view: &dyn StorageBackend, cid: &cid::Cid) -> Result<Option<(Count, Entry)>> {
    store::count(view, cid).await
}

fn small(value: Bytes) -> Content {
    let part = Part { cid: leaf(&value), size: value.len() as u64 };
    Content::new(part, Form::Small(value))
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
