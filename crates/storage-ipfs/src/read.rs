//! Reading one key: its record from the index, its value from the node.

use std::{ops::Range, pin::pin};

use cid::Cid;
use futures_util::{
    StreamExt,
    future::{Either, select},
    stream,
};
use storage_core::{Body, ByteStream, Entry, Error, ErrorKind, GetOptions, Key, Object, Result, StatOptions};

use crate::{
    blocks::{self, slice},
    error,
    store::Session,
    unixfs::{Block, Part},
};

/// How often a read begins again whose value was replaced, and collected, before it could be read.
const ATTEMPTS: usize = 5;
/// Values up to this are read as a whole.
const SMALL: u64 = 1 << 20;

impl Session {
    pub(crate) async fn stat(&self, key: &Key, _: StatOptions) -> Result<Option<Entry>> {
        self.ready(self.keys([key])).await?;
        self.find(key).await?.map(Entry::sound).transpose()
    }

    pub(crate) async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.ready(self.keys([key])).await?;
        let mut guess = self.guess(key, &options);
        for _ in 0..ATTEMPTS {
            let (found, guessed) = match guess.take() {
                Some(part) => self.find_beside(key, part).await,
                None => (self.find(key).await, None),
            };
            let found = found?;
            options.check_current(found.as_ref())?;
            let Some(entry) = found else {
                self.store.recent.invalidate(key);
                return Ok(None);
            };
            let range = options.range.map_or(Ok(0..entry.size), |range| range.resolve(entry.size))?;
            match self.body(&entry, range, guessed).await {
                Ok(body) => {
                    self.saw(&entry);
                    return Ok(Some(Object::new(entry, body)));
                }
                Err(e) if error::is_not_found(&e) => {
                    let now = self.find(key).await?;
                    if now.is_some_and(|now| now.etag == entry.etag) {
                        return Err(error::missing().with_source(e));
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Err(replaced())
    }

    /// What the key had when it was last seen, if that is one block, which can be asked for before it is known to be the right one.
    fn guess(&self, key: &Key, options: &GetOptions) -> Option<Part> {
        let may = self.open.is_none()
            && self.store.config.verify
            && options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.version.is_none();
        let part = self.store.recent.get(key).filter(|_| may && self.store.blocks.node().is_some())?;
        (1..=SMALL).contains(&part.size).then_some(part)
    }

    fn saw(&self, entry: &Entry) {
        if self.open.is_none()
            && let Ok(part) = part(entry)
        {
            self.store.recent.insert(entry.key.clone(), part);
        }
    }

    /// The entry of a key, and beside it the block that it probably has; without a block if it has another.
    async fn find_beside(&self, key: &Key, guess: Part) -> (Result<Option<Entry>>, Option<Result<Block>>) {
        beside(self.find(key), self.store.blocks.here(&guess), |found| {
            let now = found.as_ref().ok().and_then(Option::as_ref).map(part);
            matches!(now, Some(Ok(now)) if now == guess)
        })
        .await
    }

    /// The bytes of a range of the value. Of what needs one request it is the bytes themselves.
    async fn body(&self, entry: &Entry, range: Range<u64>, guessed: Option<Result<Block>>) -> Result<Body> {
        let part = part(entry)?;
        let len = range.end - range.start;
        if len == 0 {
            return Ok(Body::default());
        }
        let blocks = self.store.blocks.clone();
        if let (false, Some(node)) = (self.store.config.verify, blocks.node()) {
            let answer = node.cat(&part.cid, range.start, len).await?;
            let pieces = self.watched(entry, answer.stream().boxed());
            let body = Body::from_backend(len, pieces);
            return if len <= SMALL { body.bytes(len).await.map(Body::from) } else { Ok(body) };
        }
        let block = match guessed {
            // It is pinned, and so should be there; if not, another node may have it.
            Some(Err(e)) if error::is_not_found(&e) => blocks.block(&part).await?,
            Some(block) => block?,
            None => blocks.block(&part).await?,
        };
        match block {
            Block::Leaf(bytes) => Ok(slice(&bytes, &range).into()),
            block => {
                let pieces = blocks::read(blocks.clone(), block, range, 0);
                Ok(Body::from_backend(len, self.watched(entry, pieces)))
            }
        }
    }

    /// The same pieces. Of a value that was replaced, the node may have collected the rest.
    fn watched(&self, entry: &Entry, pieces: ByteStream) -> ByteStream {
        let (session, key, etag) = (self.without_transaction(), entry.key.clone(), entry.etag.clone());
        let explain = move |e: Error| {
            let (session, key, etag) = (session.clone(), key.clone(), etag.clone());
            async move {
                if !error::is_not_found(&e) {
                    return e;
                }
                match session.find(&key).await {
                    Ok(Some(now)) if now.etag == etag => error::missing().with_source(e),
                    Ok(_) => replaced(),
                    Err(other) => other,
                }
            }
        };
        let explained = pieces.then(move |piece| {
            let explain = explain.clone();
            async move {
                match piece {
                    Ok(piece) => Ok(piece),
                    Err(e) => Err(explain(e).await),
                }
            }
        });
        explained.boxed()
    }

    /// A stream may outlive the transaction in which it was begun.
    fn without_transaction(&self) -> Self {
        Self::new(self.store.clone())
    }

    /// Whether index and node answer.
    pub(crate) async fn health(&self) -> Result<()> {
        self.ready(self.prefix("")).await?;
        self.store.index.health().await?;
        match self.store.blocks.node() {
            Some(node) => node.version().await.map(drop),
            None => Ok(()),
        }
    }

    pub(crate) async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        const AT_ONCE: usize = 8;
        let read = |(key, options): (Key, GetOptions)| async move {
            self.get(&key, options).await.map_err(|e| e.with_key(&key))
        };
        Ok(stream::iter(items).map(read).buffered(AT_ONCE).collect().await)
    }
}

/// The content of an entry that is sound.
pub(crate) fn part(entry: &Entry) -> Result<Part> {
    let cid = entry.attributes.get("cid").and_then(|cid| Cid::try_from(cid).ok());
    let cid = cid.ok_or_else(crate::record::damaged)?;
    Ok(Part { cid, size: entry.size })
}

/// Runs both at once. Unless the first is `right`, nobody waits for the second.
async fn beside<F, G>(
    first: impl Future<Output = F>,
    second: impl Future<Output = G>,
    right: impl Fn(&F) -> bool,
) -> (F, Option<G>) {
    match select(pin!(first), pin!(second)).await {
        Either::Left((first, second)) => match right(&first) {
            true => (first, Some(second.await)),
            false => (first, None),
        },
        Either::Right((second, first)) => {
            let first = first.await;
            let second = right(&first).then_some(second);
            (first, second)
        }
    }
}

fn replaced() -> Error {
    Error::new(ErrorKind::Conflict, "the value was replaced while it was read; read it again")
}
