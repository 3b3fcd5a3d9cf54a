//! Writing and deleting one key.

use std::{sync::Arc, time::Instant};

use futures_util::{StreamExt, stream};
use mongodb::bson::{Bson, Document, doc};
use storage_core::{
    Body, Bytes, Condition, DeleteOptions, Entry, Error, ErrorKind, Etag, Key, Metadata, PutOptions, Result, VersionId,
    pending::Keys,
};

use crate::{
    condition,
    document::{self, Content},
    error, files, read, replace,
    session::{Db, Session, Store, Touches},
    upload::Upload,
    versions,
};

/// How often a write that another was faster than is made again.
pub(crate) const ATTEMPTS: usize = 100;
/// Keys have a document with this for a revision never.
pub(crate) const NO_REVISION: &str = "";

/// A value to be written.
pub(crate) struct Item {
    pub(crate) key: Key,
    pub(crate) content: Content,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) condition: Option<Condition>,
    pub(crate) rev: String,
}

impl Item {
    pub(crate) fn new(key: &Key, content: Content, options: &PutOptions) -> Self {
        let (metadata, condition) = (options.metadata.clone().unwrap_or_default(), options.condition.clone());
        Self { key: key.clone(), content, metadata, condition, rev: document::revision() }
    }

    pub(crate) fn entry(&self, store: &Store) -> Entry {
        let mut entry = Entry::new(self.key.clone(), self.content.size());
        entry.etag = Some(Etag::new(self.rev.as_str()));
        entry.version = store.versions.map(|_| VersionId::new(self.rev.as_str()));
        entry.metadata = Some(self.metadata.clone());
        entry
    }

    /// The statement that writes it where this holds.
    pub(crate) fn statement(&self, db: &Db, filter: Document, upsert: bool) -> Result<Document> {
        self.nth_statement(db, filter, upsert, None)
    }

    /// The same as the write of this number of its key, where writes are counted.
    pub(crate) fn nth_statement(&self, db: &Db, filter: Document, upsert: bool, n: Option<i64>) -> Result<Document> {
        let update = document::update(&self.rev, &self.content, &self.metadata, db.store.now(), n)?;
        Ok(doc! { "q": filter, "u": update, "upsert": upsert })
    }
}

/// A value that was received: small, or stored in a file that is deleted unless it is kept.
pub(crate) enum Received {
    Small(Bytes),
    Large(Upload),
}

impl Received {
    pub(crate) fn content(&self) -> Content {
        match self {
            Self::Small(bytes) => Content::Inline(bytes.clone()),
            Self::Large(upload) => upload.content(),
        }
    }

    /// After the write: what it has become of.
    pub(crate) fn settle<T>(self, result: &Result<T>) {
        // What may have been written is left to the sweep.
        if let (Self::Large(upload), true) = (self, result.as_ref().map_or_else(Error::is_ambiguous, |_| true)) {
            upload.keep();
        }
    }
}

impl Session {
    pub(crate) async fn receive(&self, key: &Key, body: Body) -> Result<Received> {
        let (inline, limit) = (self.store.inline_limit, self.store.info.limits.value);
        if body.len().is_some_and(|len| len > limit) {
            return Err(Error::new(ErrorKind::TooLarge, format!("the value is larger than {limit} bytes")));
        }
        if body.is_in_memory() && body.len().is_some_and(|len| len <= inline as u64) {
            return body.bytes(limit).await.map(Received::Small);
        }
        let mut pieces = match body.into_buffer() {
            Ok(buffer) => {
                let len = buffer.len();
                let whole = Body::with_len(len, stream::iter(buffer.into_iter().map(Ok)));
                match whole.into_buffer() {
                    Err(stream) => stream,
                    Ok(_) => return Err(Error::new(ErrorKind::Other, "a stream became a buffer")),
                }
            }
            Err(stream) => stream,
        };
        let (mut begun, mut size) = (Vec::new(), 0);
        while size <= inline {
            match pieces.next().await.transpose()? {
                Some(piece) => {
                    size += piece.len();
                    begun.push(piece);
                }
                None => {
                    let whole: storage_core::Buffer = begun.into_iter().collect();
                    return whole.into_bytes().map(Received::Small);
                }
            }
        }
        Upload::receive(self, key, begun, pieces, limit).await.map(Received::Large)
    }

    pub(crate) async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.store.check_open()?;
        let received = self.receive(key, body).await?;
        self.put_received(key, received, options).await
    }

    pub(crate) async fn put_received(&self, key: &Key, received: Received, options: PutOptions) -> Result<Entry> {
        let item = Item::new(key, received.content(), &options);
        // The job keeps the file, for it may go on without its caller.
        let job = |mut db: Db| async move {
            let result = write(&mut db, &item).await;
            received.settle(&result);
            result.map(|()| item.entry(&db.store))
        };
        self.run(Keys::from(key), Touches::Keys(std::slice::from_ref(key)), job).await
    }

    pub(crate) async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        if let Some(version) = &options.version {
            return self.delete_version(key, version).await;
        }
        let doomed = key.clone();
        let job = |mut db: Db| async move { delete(&mut db, &doomed, options.condition.as_ref()).await };
        self.run(Keys::from(key), Touches::Keys(std::slice::from_ref(key)), job).await
    }
}

/// Writes an item if its condition holds.
pub(crate) async fn write(db: &mut Db, item: &Item) -> Result<()> {
    let file = match &item.content {
        Content::File { id, .. } => Some(*id),
        Content::Inline(_) => None,
    };
    if db.in_transaction() {
        write_within(db, item).await?;
        if let (Some(open), Some(file)) = (&mut db.open, file) {
            open.written.push(file);
        }
        return Ok(());
    }
    let committing = Instant::now();
    if let Some(file) = file {
        files::commit_lease(&db.store, file).await?;
    }
    let mut pause = 1;
    for _ in 0..ATTEMPTS {
        if file.is_some() && committing.elapsed() > files::grace(&db.store) {
            return Err(error::timed_out());
        }
        let done = match db.store.versions {
            None => try_write(db, item).await?,
            Some(_) => replace::try_replace(db, item).await?,
        };
        if done {
            if let Some(file) = file {
                files::end_lease(&db.store, file).await;
            }
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..=pause))).await;
        pause = (pause * 2).min(64);
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "write conflict: other writers changed the key first again and again; retry later",
    ))
}

/// `false` if another writer was faster, and nothing was done.
async fn try_write(db: &mut Db, item: &Item) -> Result<bool> {
    let key = item.key.as_str();
    // Over a value that has a file this finds nothing and creates a second document of the key, which the index refuses.
    let (filter, upsert) = match &item.condition {
        None => (doc! { "_id": key, "file": { "$exists": false } }, true),
        Some(Condition::IfAbsent) => (doc! { "_id": key, "rev": NO_REVISION }, true),
        Some(Condition::IfMatch(etag)) => {
            let mut filter = doc! { "_id": key, "rev": etag.as_str(), "file": { "$exists": false } };
            filter.extend(document::sound());
            (filter, false)
        }
        Some(_) => return Err(Error::unsupported("this condition")),
    };
    let looks = db.store.unsafe_server && !upsert;
    if !looks {
        let statement = item.statement(db, filter, upsert)?;
        match update(db, statement).await? {
            Updated::Yes => return Ok(true),
            Updated::Duplicate if item.condition == Some(Condition::IfAbsent) => return Err(condition::exists()),
            Updated::Duplicate | Updated::No => {}
        }
    }
    let there = read::current(db, &item.key).await?;
    if let Some(Condition::IfMatch(etag)) = &item.condition {
        condition::matches(there.as_ref(), etag)?;
    }
    let Some(there) = there else { return Ok(false) };
    let Ok(old) = there.get_object_id("file") else {
        if !looks && !there.contains_key("file") {
            condition::refuse_unreadable(db, &item.key, item.condition.as_ref()).await?;
            return Ok(false);
        }
        let statement = item.statement(db, same(&there), false)?;
        return Ok(matches!(update(db, statement).await?, Updated::Yes));
    };
    // The lease finds the old file if this process ends before it is deleted.
    files::lease(&db.store, old, &item.key, "replaced").await?;
    let statement = item.statement(db, same(&there), false)?;
    let done = update(db, statement).await?;
    match done {
        Updated::Yes => files::discard(&db.store, old).await,
        _ => files::end_lease(&db.store, old).await,
    }
    Ok(matches!(done, Updated::Yes))
}

async fn write_within(db: &mut Db, item: &Item) -> Result<()> {
    let there = read::current(db, &item.key).await?;
    condition::checked(item, there.as_ref())?;
    let kept = replace::keep_within(db, &item.key, there.as_ref()).await?;
    let n = match db.store.versions {
        Some(_) => Some(versions::next(db, &item.key, there.as_ref()).await?),
        None => None,
    };
    let statement = item.nth_statement(db, doc! { "_id": item.key.as_str() }, true, n)?;
    update(db, statement).await?;
    if !kept {
        replaced(db, &item.key, there.as_ref());
    }
    versions::prune(db, &item.key, true, n.unwrap_or(0)).await
}

/// Remembers the file of a value that the transaction has replaced or deleted.
pub(crate) fn replaced(db: &mut Db, key: &Key, there: Option<&Document>) {
    if let (Some(open), Some(Ok(file))) = (&mut db.open, there.map(|there| there.get_object_id("file"))) {
        open.replaced.push((file, key.clone()));
    }
}

pub(crate) enum Updated {
    Yes,
    No,
    Duplicate,
}

pub(crate) async fn update(db: &mut Db, statement: Document) -> Result<Updated> {
    let command = doc! { "update": &db.store.collection, "updates": [statement], "ordered": true };
    let answer = match db.write(command).await {
        Err(e) if met_another(db, &e) => return Ok(Updated::No),
        answer => answer?,
    };
    match error::write_errors(&answer).first() {
        Some((_, 11000)) => Ok(Updated::Duplicate),
        Some((_, 112)) => Ok(Updated::No),
        Some((_, code)) => Err(error::from_code(*code)),
        None if answer.get_i32("n").unwrap_or(0) > 0 => Ok(Updated::Yes),
        None => Ok(Updated::No),
    }
}

/// Holds as long as nobody has written the key.
pub(crate) fn same(there: &Document) -> Document {
    let of = |name: &str| {
        there
            .get(name)
            .map_or_else(|| Bson::Document(doc! { "$exists": false }), |value| Bson::Document(doc! { "$eq": value }))
    };
    doc! { "_id": there.get("_id"), "rev": of("rev"), "file": of("file") }
}

/// Deletes a key if the condition holds.
pub(crate) async fn delete(db: &mut Db, key: &Key, condition: Option<&Condition>) -> Result<()> {
    if db.in_transaction() {
        let there = read::current(db, key).await?;
        if let Some(Condition::IfMatch(etag)) = condition {
            condition::matches(there.as_ref(), etag)?;
        }
        if there.is_none() {
            // Otherwise nothing of this would meet a writer who creates the key at the same time, and both would have their way.
            let statement =
                doc! { "q": { "_id": key.as_str() }, "u": { "$set": { "rev": NO_REVISION } }, "upsert": true };
            update(db, statement).await?;
            remove(db, doc! { "_id": key.as_str() }).await?;
        } else {
            let kept = replace::keep_within(db, key, there.as_ref()).await?;
            remove(db, doc! { "_id": key.as_str() }).await?;
            if !kept {
                replaced(db, key, there.as_ref());
            }
            versions::prune(db, key, false, there.as_ref().map_or(0, versions::count)).await?;
        }
        return Ok(());
    }
    if db.store.versions.is_some() {
        return replace::delete_kept(db, key, condition).await;
    }
    for _ in 0..ATTEMPTS {
        let mut filter = doc! { "_id": key.as_str(), "file": { "$exists": false } };
        if let Some(Condition::IfMatch(etag)) = condition {
            filter.insert("rev", etag.as_str());
            filter.extend(document::sound());
        }
        let looks = db.store.unsafe_server && condition.is_some();
        if !looks && remove(db, filter).await? {
            return Ok(());
        }
        let there = read::current(db, key).await?;
        if let Some(Condition::IfMatch(etag)) = condition {
            condition::matches(there.as_ref(), etag)?;
        }
        let Some(there) = there else { return Ok(()) };
        let Ok(old) = there.get_object_id("file") else {
            if looks || there.contains_key("file") {
                if remove(db, same(&there)).await? {
                    return Ok(());
                }
            } else {
                condition::refuse_unreadable(db, key, condition).await?;
            }
            continue;
        };
        files::lease(&db.store, old, key, "replaced").await?;
        if remove(db, same(&there)).await? {
            files::discard(&db.store, old).await;
            return Ok(());
        }
        files::end_lease(&db.store, old).await;
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "write conflict: other writers changed the key first again and again; retry later",
    ))
}

/// Whether a write outside of transactions met a transaction, has done nothing, and can be made again.
pub(crate) fn met_another(db: &Db, e: &Error) -> bool {
    e.kind() == ErrorKind::Conflict && !e.is_ambiguous() && !db.in_transaction()
}

pub(crate) async fn remove(db: &mut Db, filter: Document) -> Result<bool> {
    let deletes = doc! { "q": filter, "limit": 1 };
    let answer = match db.write(doc! { "delete": &db.store.collection, "deletes": [deletes] }).await {
        Err(e) if met_another(db, &e) => return Ok(false),
        answer => answer?,
    };
    match error::write_errors(&answer).first() {
        Some((_, 112)) => Ok(false),
        Some((_, code)) => Err(error::from_code(*code)),
        None => Ok(answer.get_i32("n").unwrap_or(0) > 0),
    }
}
