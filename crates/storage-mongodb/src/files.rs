//! Large values, in the layout of GridFS: a document in `<collection>.files`, chunks of 255 KiB in `<collection>.chunks`.
//!
//! Each write has a file of its own. While no key's document names it, a lease does; the sweep deletes only files that expired
//! leases of ours name and no document does. Whether a lease has expired is judged by the server's clock.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use mongodb::bson::{Binary, DateTime, Document, doc, oid::ObjectId, spec::BinarySubtype};
use storage_core::{BodyStream, Bytes, Error, ErrorKind, Key, Result};
use tokio::task::JoinHandle;

use crate::{
    document::Content,
    session::{Session, Store},
};

/// Bytes of a chunk, as other GridFS clients have it.
pub(crate) const CHUNK: usize = 255 * 1024;
/// How many chunks one answer has.
pub(crate) const CHUNKS: usize = 16;
/// How many of them one insert has: each is copied for the driver and for the wire, while the next are received.
const SENT: usize = 8;

/// A file that is being written. Dropped before [`keep`](Upload::keep), it is deleted.
pub(crate) struct Upload {
    session: Session,
    pub(crate) id: ObjectId,
    size: u64,
    chunks: i32,
    /// What is being sent.
    sending: Option<JoinHandle<Result<()>>>,
    renewed: Instant,
    kept: bool,
}

impl Upload {
    /// Writes a value: what of it was received already, and the rest.
    pub(crate) async fn receive(
        session: &Session,
        key: &Key,
        begun: Vec<Bytes>,
        mut rest: BodyStream,
        limit: u64,
    ) -> Result<Self> {
        let id = ObjectId::new();
        lease(&session.store, id, key, "open").await?;
        let mut upload = Self {
            session: session.clone(),
            id,
            size: 0,
            chunks: 0,
            sending: None,
            renewed: Instant::now(),
            kept: false,
        };
        let mut buffer = Vec::with_capacity(CHUNK * SENT);
        let mut begun = begun.into_iter();
        loop {
            let piece = match begun.next() {
                Some(piece) => Some(piece),
                None => rest.next().await.transpose()?,
            };
            let Some(mut piece) = piece else { break };
            upload.size += piece.len() as u64;
            if upload.size > limit {
                return Err(Error::new(ErrorKind::TooLarge, format!("the value is larger than {limit} bytes")));
            }
            while !piece.is_empty() {
                let room = (CHUNK * SENT - buffer.len()).min(piece.len());
                buffer.extend_from_slice(&piece.split_to(room));
                if buffer.len() == CHUNK * SENT {
                    upload.send(&buffer).await?;
                    buffer.clear();
                }
            }
        }
        if !buffer.is_empty() {
            upload.send(&buffer).await?;
        }
        upload.sent().await?;
        session.store.check_open()?;
        let file = doc! {
            "_id": id,
            "length": upload.size.cast_signed(),
            "chunkSize": CHUNK as i32,
            "uploadDate": session.store.now(),
            "filename": key.as_str(),
            "metadata": { "storage": 1 },
        };
        insert(&session.store, "files", vec![file]).await?;
        Ok(upload)
    }

    pub(crate) fn content(&self) -> Content {
        Content::File { id: self.id, size: self.size, chunk: CHUNK as u32 }
    }

    /// Its fate is somebody else's affair from now on.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Sends chunks while the next are received.
    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.sent().await?;
        self.session.store.check_open()?;
        let chunk = |(n, bytes): (i32, &[u8])| {
            let data = Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() };
            doc! { "files_id": self.id, "n": n, "data": data }
        };
        let chunks: Vec<Document> = (self.chunks..).zip(bytes.chunks(CHUNK)).map(chunk).collect();
        self.chunks += chunks.len() as i32;
        let (store, id) = (self.session.store.clone(), self.id);
        let renew = self.renewed.elapsed() > store.sweep_after / 4;
        if renew {
            self.renewed = Instant::now();
        }
        self.sending = Some(self.session.store.tasks.runtime.spawn(async move {
            if renew {
                self::renew(&store, id).await?;
            }
            insert(&store, "chunks", chunks).await
        }));
        Ok(())
    }

    async fn sent(&mut self) -> Result<()> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let sent = sending.await;
        self.sending = None;
        sent.unwrap_or_else(|e| {
            Err(Error::new(ErrorKind::Closed, "the runtime has ended; connect again").with_source(e))
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (store, id, sending) = (self.session.store.clone(), self.id, self.sending.take());
        let runtime = store.tasks.runtime.clone();
        runtime.spawn(async move {
            if let Some(sending) = sending {
                let _ = sending.await;
            }
            discard(&store, id).await;
        });
    }
}

/// Writes documents that nobody looks at yet, so that a failure is certain to have no effect.
async fn insert(store: &Store, into: &str, documents: Vec<Document>) -> Result<()> {
    let concern = doc! { "w": "majority", "j": true };
    let command = doc! { "insert": store.name(into), "documents": documents, "writeConcern": concern };
    let answer = store.command(command).await?;
    match crate::error::write_errors(&answer).first() {
        Some((_, code)) => Err(crate::error::from_code(*code)),
        None => crate::error::write_concern(&answer).map_or(Ok(()), Err),
    }
}

/// Changes a lease, and says whether there was one that matched.
async fn change(store: &Store, filter: Document, set: Document, upsert: bool) -> Result<bool> {
    let update = doc! { "$set": set, "$currentDate": { "renewed": true } };
    let command = doc! {
        "update": store.name("leases"),
        "updates": [{ "q": filter, "u": update, "upsert": upsert }],
        "writeConcern": { "w": "majority", "j": true },
    };
    let answer = store.command(command).await?;
    match crate::error::write_errors(&answer).first() {
        Some((_, code)) => Err(crate::error::from_code(*code)),
        None => Ok(answer.get_i32("n").unwrap_or(0) > 0),
    }
}

/// Names a file that no key's document may name: one that is being written, or one that is about to be replaced.
pub(crate) async fn lease(store: &Store, file: ObjectId, key: &Key, state: &str) -> Result<()> {
    change(store, doc! { "_id": file }, doc! { "key": key.as_str(), "state": state }, true).await.map(drop)
}

async fn renew(store: &Store, file: ObjectId) -> Result<()> {
    match change(store, doc! { "_id": file, "state": "open" }, doc! { "state": "open" }, false).await? {
        true => Ok(()),
        false => Err(swept()),
    }
}

/// Takes the file out of the sweep's reach for long enough that a key's document can name it.
pub(crate) async fn commit_lease(store: &Store, file: ObjectId) -> Result<()> {
    match change(store, doc! { "_id": file, "state": "open" }, doc! { "state": "committing" }, false).await? {
        true => Ok(()),
        false => Err(swept()),
    }
}

fn swept() -> Error {
    let message =
        "the write took so long that another instance removed what it had stored; write again, or raise `sweep_after`";
    Error::new(ErrorKind::Unavailable, message)
}

/// How long a writer may take from [`commit_lease`] to its last command.
pub(crate) fn grace(store: &Store) -> Duration {
    store.timeout
}

/// Forgets a lease. If that fails, the sweep does it.
pub(crate) async fn end_lease(store: &Store, file: ObjectId) {
    let deletes = doc! { "q": { "_id": file }, "limit": 1 };
    let _ = store.command(doc! { "delete": store.name("leases"), "deletes": [deletes] }).await;
}

/// Deletes a file that a lease names, and then the lease. What fails is left to the sweep.
pub(crate) async fn discard(store: &Store, file: ObjectId) {
    for (of, field, limit) in [("files", "_id", 1), ("chunks", "files_id", 0)] {
        let mut filter = doc! { field: file };
        if of == "files" {
            filter.insert("metadata.storage", 1);
        }
        let deletes = doc! { "q": filter, "limit": limit };
        if store.command(doc! { "delete": store.name(of), "deletes": [deletes] }).await.is_err() {
            return;
        }
    }
    end_lease(store, file).await;
}

pub(crate) async fn discard_all(store: &Store, files: &[ObjectId]) {
    for file in files {
        discard(store, *file).await;
    }
}

/// Deletes what expired leases name and no key does.
pub(crate) async fn sweep(store: &Store, now: DateTime) -> Result<()> {
    let before = |age: Duration| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        DateTime::from_millis(now.timestamp_millis().saturating_sub(age))
    };
    // A writer that has marked its lease as committing has so long for its last command.
    let settled = store.sweep_after.max(grace(store) * 4);
    let expired = doc! { "$or": [
        { "state": { "$ne": "committing" }, "renewed": { "$lt": before(store.sweep_after) } },
        { "state": "committing", "renewed": { "$lt": before(settled) } },
    ] };
    let find = doc! { "find": store.name("leases"), "filter": expired, "limit": 1000, "singleBatch": true };
    let answer = store.command(find).await?;
    let leases = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    for lease in leases.into_iter().flatten().filter_map(|lease| lease.as_document()) {
        let (Ok(file), Ok(key), Ok(state), Ok(renewed)) =
            (lease.get_object_id("_id"), lease.get_str("key"), lease.get_str("state"), lease.get_datetime("renewed"))
        else {
            continue;
        };
        let unchanged = doc! { "_id": file, "state": state, "renewed": *renewed };
        if !change(store, unchanged, doc! { "state": "taken" }, false).await? {
            continue;
        }
        let Ok(key) = Key::parse(key) else { continue };
        match is_named(store, file, &key).await? {
            false => discard(store, file).await,
            true => end_lease(store, file).await,
        }
    }
    Ok(())
}

/// Whether the key's document or one of its older versions names the file.
pub(crate) async fn is_named(store: &Store, file: ObjectId, key: &Key) -> Result<bool> {
    for (collection, field) in [(store.collection.clone(), "_id"), (store.name("versions"), "key")] {
        let find = doc! {
            "find": collection,
            "filter": { field: key.as_str(), "file": file },
            "projection": { "_id": 1 },
            "limit": 1,
            "singleBatch": true,
        };
        let answer = store.command(find).await?;
        let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let batch =
            batch.map_err(|_| Error::new(ErrorKind::Unavailable, "the answer of the server is not readable"))?;
        if !batch.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes a file that a lease names, unless a version does, too. What fails is left to the sweep.
pub(crate) async fn discard_unnamed(store: &Store, file: ObjectId, key: &Key) {
    match is_named(store, file, key).await {
        Ok(false) => discard(store, file).await,
        Ok(true) => end_lease(store, file).await,
        Err(_) => {}
    }
}
