//! Writing a large value: chunks that are sent while the next are received, or that the server copies, and the file's own document.

use std::{mem, ops::Range, sync::Arc, time::Instant};

use futures_util::StreamExt;
use mongodb::bson::{Binary, Document, doc, oid::ObjectId, spec::BinarySubtype};
use storage_core::{BodyStream, Bytes, Error, ErrorKind, Key, Result};
use tokio::task::JoinHandle;

use crate::{
    document::Content,
    error, files,
    session::{Failed, Session, Store},
};

/// Bytes of a chunk, as other GridFS clients have it.
pub(crate) const CHUNK: usize = 255 * 1024;
/// How many chunks one answer has.
pub(crate) const CHUNKS: usize = 16;
/// How many of them one insert has: each is copied for the wire, while the next are received.
const SENT: usize = 4;

/// A file that is being written. Dropped before [`keep`](Upload::keep), it is deleted.
pub(crate) struct Upload {
    session: Session,
    pub(crate) id: ObjectId,
    size: u64,
    /// Bytes of a chunk.
    chunk: u32,
    chunks: i32,
    /// What is being sent.
    sending: Option<JoinHandle<Result<(), Failed>>>,
    renewed: Instant,
    /// Chunks may still arrive, so that the file cannot be deleted yet.
    unsettled: bool,
    kept: bool,
}

impl Upload {
    pub(crate) async fn begin(session: &Session, key: &Key, chunk: u32) -> Result<Self> {
        let id = ObjectId::new();
        files::lease(&session.store, id, key, "open").await?;
        Ok(Self {
            session: session.clone(),
            id,
            size: 0,
            chunk,
            chunks: 0,
            sending: None,
            renewed: Instant::now(),
            unsettled: false,
            kept: false,
        })
    }

    /// Writes a value: what of it was received already, and the rest.
    pub(crate) async fn receive(
        session: &Session,
        key: &Key,
        begun: Vec<Bytes>,
        mut rest: BodyStream,
        limit: u64,
    ) -> Result<Self> {
        let mut upload = Self::begin(session, key, CHUNK as u32).await?;
        let (mut chunk, mut chunks) = (Vec::with_capacity(CHUNK), Vec::with_capacity(SENT));
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
                let room = (CHUNK - chunk.len()).min(piece.len());
                chunk.extend_from_slice(&piece.split_to(room));
                if chunk.len() == CHUNK {
                    chunks.push(mem::replace(&mut chunk, Vec::with_capacity(CHUNK)));
                }
                if chunks.len() == SENT {
                    upload.send(mem::take(&mut chunks)).await?;
                }
            }
        }
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        if !chunks.is_empty() {
            upload.send(chunks).await?;
        }
        upload.finish(key, upload.size).await?;
        Ok(upload)
    }

    /// Writes the file's own document when all chunks are there.
    pub(crate) async fn finish(&mut self, key: &Key, size: u64) -> Result<()> {
        self.sent().await?;
        self.size = size;
        let store = &self.session.store;
        store.check_open()?;
        let file = doc! {
            "_id": self.id,
            "length": size.cast_signed(),
            "chunkSize": self.chunk.cast_signed(),
            "uploadDate": store.now(),
            "filename": key.as_str(),
            "metadata": { "storage": 1 },
        };
        self.start(|store| async move { insert(&store, "files", vec![file]).await });
        self.sent().await
    }

    pub(crate) fn content(&self) -> Content {
        Content::File { id: self.id, size: self.size, chunk: self.chunk }
    }

    /// Its fate is somebody else's affair from now on.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Sends chunks while the next are received.
    async fn send(&mut self, chunks: Vec<Vec<u8>>) -> Result<()> {
        self.sent().await?;
        self.session.store.check_open()?;
        let chunk = |(n, bytes): (i32, Vec<u8>)| {
            let data = Binary { subtype: BinarySubtype::Generic, bytes };
            doc! { "files_id": self.id, "n": n, "data": data }
        };
        let chunks: Vec<Document> = (self.chunks..).zip(chunks).map(chunk).collect();
        self.chunks += chunks.len() as i32;
        self.start(|store| async move { insert(&store, "chunks", chunks).await });
        Ok(())
    }

    /// Copies chunks of another file, which the server does by itself.
    pub(crate) async fn copy(&mut self, from: ObjectId, chunks: Range<i64>) -> Result<(), Failed> {
        let copies = doc! { "_id": 0, "files_id": { "$literal": self.id }, "n": 1, "data": 1 };
        let merge = doc! {
            "into": self.session.store.name("chunks"),
            "on": ["files_id", "n"],
            "whenMatched": "fail",
            "whenNotMatched": "insert",
        };
        let pipeline = vec![
            doc! { "$match": { "files_id": from, "n": { "$gte": chunks.start, "$lt": chunks.end } } },
            doc! { "$project": copies },
            doc! { "$merge": merge },
        ];
        self.start(|store| async move {
            let command = doc! { "aggregate": store.name("chunks"), "pipeline": pipeline, "cursor": {} };
            written(store.command(concerned(command)).await?)
        });
        self.next_sent().await
    }

    /// How many chunks there are.
    pub(crate) async fn count(&self) -> Result<i64> {
        let store = &self.session.store;
        let pipeline = vec![doc! { "$match": { "files_id": self.id } }, doc! { "$count": "n" }];
        let count = doc! { "aggregate": store.name("chunks"), "pipeline": pipeline, "cursor": {} };
        let answer = store.command(count).await?;
        let counted = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let counted = counted.ok().and_then(|batch| batch.first()?.as_document()?.get("n"));
        Ok(counted.and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from))).unwrap_or(0))
    }

    /// Starts to send. From time to time the lease is renewed before.
    fn start<F>(&mut self, send: impl FnOnce(Arc<Store>) -> F)
    where
        F: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        let (store, id) = (self.session.store.clone(), self.id);
        let renews = self.renewed.elapsed() > store.sweep_after / 4;
        if renews {
            self.renewed = Instant::now();
        }
        let send = send(store.clone());
        self.sending = Some(self.session.store.tasks.runtime.spawn(async move {
            if renews {
                files::renew(&store, id).await.map_err(|error| Failed { error, definite: true })?;
            }
            send.await
        }));
    }

    async fn sent(&mut self) -> Result<()> {
        Ok(self.next_sent().await?)
    }

    async fn next_sent(&mut self) -> Result<(), Failed> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let sent = sending.await;
        self.sending = None;
        let sent = sent.unwrap_or_else(|e| {
            let error = Error::new(ErrorKind::Closed, "the runtime has ended; connect again").with_source(e);
            Err(Failed { error, definite: false })
        });
        self.unsettled |= sent.as_ref().is_err_and(|failed| !failed.definite);
        sent
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Where chunks may still arrive, the lease stays for the sweep.
        if self.kept || self.unsettled {
            return;
        }
        let (store, id, sending) = (self.session.store.clone(), self.id, self.sending.take());
        let runtime = store.tasks.runtime.clone();
        runtime.spawn(async move {
            let unsettled = match sending {
                Some(sending) => sending.await.map_or(true, |sent| sent.is_err_and(|failed| !failed.definite)),
                None => false,
            };
            if !unsettled {
                files::discard(&store, id).await;
            }
        });
    }
}

/// Writes documents that nobody looks at yet.
async fn insert(store: &Store, into: &str, documents: Vec<Document>) -> Result<(), Failed> {
    let command = doc! { "insert": store.name(into), "documents": documents };
    written(store.command(concerned(command)).await?)
}

fn concerned(mut command: Document) -> Document {
    command.insert("writeConcern", doc! { "w": "majority", "j": true });
    command
}

/// What the answer to a write says.
fn written(answer: Document) -> Result<(), Failed> {
    let failed = error::write_errors(&answer).first().map(|(_, code)| error::from_code(*code));
    match failed.or_else(|| error::write_concern(&answer)) {
        Some(error) => Err(Failed { error, definite: true }),
        None => Ok(()),
    }
}
