//! Copies and renames. The bytes of a value in a file never come here: the server copies its chunks to a file of their own, or, in a
//! transaction, a rename hands the file over to the other key.
//!
//! A value in the key's document is read and written: `$merge` into the collection of the keys would be the server's own way, but it
//! does not say what it did, and so keeps no condition.

use std::sync::atomic::Ordering;

use mongodb::bson::{Document, doc, oid::ObjectId};
use storage_core::{
    Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, PutOptions, RenameOptions, Result,
    StatOptions, VersionId, pending::Keys,
};

use crate::{
    condition,
    document::{self, Content, Found},
    read,
    session::{Db, Session, Touches},
    upload::Upload,
    write::{self, Item, Received},
};

/// How many chunks one command copies.
const COPIED: i64 = 64;

/// The source of a copy or a rename.
enum Source {
    /// Its value can be written under the other key.
    Ready(Received, Entry),
    /// It has become the other key's.
    Moved(Entry),
}

impl Session {
    pub(crate) async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        if from == to && options == CopyOptions::new() {
            return self.stay(from).await;
        }
        let (received, source) = match self.source(from, to, options.version, None).await? {
            Source::Ready(received, source) => (received, source),
            Source::Moved(entry) => return Ok(entry),
        };
        let mut put = PutOptions::new();
        put.metadata = options.metadata.or(source.metadata);
        put.condition = options.condition;
        self.put_received(to, received, put).await.map_err(|e| e.with_key(to))
    }

    pub(crate) async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        if from == to {
            let entry = self.stay(from).await?;
            return options.condition.map_or(Ok(()), |condition| condition.check(Some(&entry))).map(|()| entry);
        }
        let (received, source) = match self.source(from, to, None, Some(&options)).await? {
            Source::Ready(received, source) => (received, source),
            Source::Moved(entry) => return Ok(entry),
        };
        let mut put = PutOptions::new();
        put.metadata = source.metadata;
        put.condition = options.condition;
        let entry = self.put_received(to, received, put).await.map_err(|e| e.with_key(to))?;
        let mut delete = DeleteOptions::new();
        delete.condition = source.etag.map(Condition::IfMatch);
        match self.delete(from, delete).await {
            Err(e) if e.kind() == ErrorKind::PreconditionFailed => Err(written_meanwhile(from)),
            // The target is written already.
            done => done.map(|()| entry).map_err(Error::ambiguous),
        }
    }

    async fn stay(&self, key: &Key) -> Result<Entry> {
        self.stat(key, StatOptions::new()).await?.ok_or_else(|| no_source(key))
    }

    /// Finds a source, and moves it if it is to be renamed and can be moved.
    async fn source(
        &self,
        from: &Key,
        to: &Key,
        version: Option<VersionId>,
        rename: Option<&RenameOptions>,
    ) -> Result<Source> {
        // With versions the source keeps its own. A transaction of its own would be left open by a client that is killed, and keep
        // others from both keys until the server ends it.
        let moves = self.in_transaction() && self.store.versions.is_none();
        let mut overwritten = None;
        for _ in 0..read::ATTEMPTS {
            let found = self.find(from, version.clone()).await?.ok_or_else(|| no_source(from))?;
            let entry = found.entry.clone().sound().map_err(|e| e.with_key(from))?;
            if let (Some(options), Some(Content::File { .. })) = (rename.filter(|_| moves), &found.content)
                && let Some(moved) = self.move_file(from, to, options.condition.clone()).await?
            {
                return Ok(Source::Moved(moved));
            }
            match self.stage(to, found).await {
                // Overwritten between the document and its chunks.
                Err(e) if e.kind() == ErrorKind::Conflict && !self.in_transaction() => overwritten = Some(e),
                staged => return Ok(Source::Ready(staged?, entry)),
            }
        }
        Err(overwritten.unwrap_or_else(read::conflict))
    }

    /// The value of a key, as one that another is to have.
    async fn stage(&self, to: &Key, found: Found) -> Result<Received> {
        match found.content.clone().ok_or_else(document::unreadable)? {
            Content::Inline(bytes) => self.receive(to, bytes.into()).await,
            Content::File { id, size, chunk } => {
                if let Some(copied) = self.copy_file(&found.entry.key, to, (id, size, chunk)).await? {
                    return Ok(Received::Large(copied));
                }
                let object = self.object(Some(found), &GetOptions::new()).await?.ok_or_else(document::unreadable)?;
                self.receive(to, object.body).await
            }
        }
    }

    /// Has the server copy a file. `None` if it cannot.
    async fn copy_file(&self, from: &Key, to: &Key, source: (ObjectId, u64, u32)) -> Result<Option<Upload>> {
        let (file, size, chunk) = source;
        self.store.check_open()?;
        if !self.store.copies_chunks.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let chunks = size.div_ceil(u64::from(chunk)).cast_signed();
        let mut upload = Upload::begin(self, to, chunk).await?;
        let mut next = 0;
        while next < chunks {
            let behind = (next + COPIED).min(chunks);
            if let Err(failed) = upload.copy(file, next..behind).await {
                let kind = failed.error.kind();
                let refused = matches!(kind, ErrorKind::Other | ErrorKind::Unsupported | ErrorKind::PermissionDenied);
                if next > 0 || !failed.definite || !refused {
                    return Err(failed.error);
                }
                tracing::debug!(error = %failed.error, "the server does not copy chunks; they are read and written");
                self.store.copies_chunks.store(false, Ordering::Relaxed);
                return Ok(None);
            }
            next = behind;
        }
        if upload.count().await? != chunks {
            return Err(self.missing(from, file).await);
        }
        upload.finish(to, size).await?;
        Ok(Some(upload))
    }

    /// In a transaction, hands the file of a key over to another. `None` if that cannot be done now.
    async fn move_file(&self, from: &Key, to: &Key, condition: Option<Condition>) -> Result<Option<Entry>> {
        let keys = [from.clone(), to.clone()];
        let [from, to] = keys.clone();
        let job = |mut db: Db| async move { hand_over(&mut db, &from, &to, condition).await };
        self.run(Keys::from(keys.to_vec()), Touches::Keys(&keys), job).await
    }
}

/// In a transaction: the other key's document names the file, the file bears the other key's name, and the key is gone. At no moment
/// do two documents name the file, or none.
async fn hand_over(db: &mut Db, from: &Key, to: &Key, condition: Option<Condition>) -> Result<Option<Entry>> {
    let find = doc! {
        "find": &db.store.collection,
        "filter": { "_id": { "$in": [from.as_str(), to.as_str()] } },
        "projection": { "data": 0 },
        "limit": 2,
        "singleBatch": true,
    };
    let (documents, _) = db.documents(find).await?;
    let of = |key: &Key| documents.iter().find(|found| found.get_str("_id").is_ok_and(|id| id == key.as_str()));
    let (source, target) = (of(from).ok_or_else(|| no_source(from))?, of(to));
    let found = document::found(source.clone(), false, true).ok_or_else(document::unreadable)?;
    let entry = found.entry.sound().map_err(|e| e.with_key(from))?;
    let Some(content @ Content::File { id, .. }) = found.content else { return Ok(None) };
    let mut put = PutOptions::new();
    put.metadata = entry.metadata;
    put.condition = condition;
    let item = Item::new(to, content, &put);
    condition::checked(&item, target).map_err(|e| e.with_key(to))?;
    // The sweep that has taken a lease looks who names the file, and nobody may hand it over meanwhile.
    let leases = db.store.name("leases");
    let find = doc! { "find": &leases, "filter": { "_id": id }, "limit": 1, "singleBatch": true };
    let lease = db.documents(find).await?.0.pop();
    if lease.as_ref().is_some_and(|lease| lease.get_str("state").is_ok_and(|state| state == "taken")) {
        return Ok(None);
    }
    let renamed = doc! { "q": { "_id": id, "metadata.storage": 1 }, "u": { "$set": { "filename": to.as_str() } } };
    let answer = db.write(doc! { "update": db.store.name("files"), "updates": [renamed] }).await?;
    if answer.get_i32("n").unwrap_or(0) == 0 {
        return Ok(None);
    }
    if lease.is_some() {
        let update = doc! { "$set": { "key": to.as_str() }, "$currentDate": { "renewed": true } };
        let updates: Vec<Document> = vec![doc! { "q": { "_id": id }, "u": update }];
        db.write(doc! { "update": leases, "updates": updates }).await?;
    }
    write::remove(db, doc! { "_id": from.as_str() }).await?;
    let statement = item.statement(db, doc! { "_id": to.as_str() }, true)?;
    write::update(db, statement).await?;
    write::replaced(db, to, target);
    Ok(Some(item.entry(&db.store)))
}

fn no_source(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "the source does not exist").with_key(key)
}

/// The target of the rename is written already.
fn written_meanwhile(source: &Key) -> Error {
    let message = "the source was written during the rename; it was kept, and the target holds a copy of it";
    Error::new(ErrorKind::Conflict, message).ambiguous().with_key(source)
}
