//! Reading one key.

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::{
    bson::{Document, RawBsonRef, RawDocument, doc, oid::ObjectId},
    raw_batch_cursor::RawBatch,
};
use storage_core::{
    Body, Bytes, Entry, Error, ErrorKind, GetOptions, Key, Object, Result, StatOptions, VersionId, pending::Keys,
};

use crate::{
    document::{self, Content, Found},
    files,
    session::{Db, Session, Touches},
    upload::CHUNKS,
    versions,
};

/// How often a value that is overwritten while it is looked for is read again.
pub(crate) const ATTEMPTS: usize = 20;

/// A part of a file, in bytes.
#[derive(Clone)]
struct Part {
    key: Key,
    file: ObjectId,
    size: u64,
    chunk: u64,
    next: u64,
    end: u64,
}

impl Session {
    pub(crate) async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let sought = key.clone();
        let find = |mut db: Db| async move { at(&mut db, &sought, options.version, false).await };
        let found = self.run(Keys::from(key), Touches::Keys(std::slice::from_ref(key)), find).await?;
        found.map(|found| found.entry.sound()).transpose()
    }

    pub(crate) async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let mut overwritten = None;
        for _ in 0..ATTEMPTS {
            let found = self.find(key, options.version.clone()).await?;
            match self.object(found, &options).await {
                // Overwritten between the document and its first chunks.
                Err(e) if e.kind() == ErrorKind::Conflict && !self.in_transaction() => overwritten = Some(e),
                done => return done,
            }
        }
        Err(overwritten.unwrap_or_else(conflict))
    }

    /// What a key, or a version of it, has.
    pub(crate) async fn find(&self, key: &Key, version: Option<VersionId>) -> Result<Option<Found>> {
        let sought = key.clone();
        let find = |mut db: Db| async move { at(&mut db, &sought, version, true).await };
        self.run(Keys::from(key), Touches::Keys(std::slice::from_ref(key)), find).await
    }

    pub(crate) async fn object(&self, found: Option<Found>, options: &GetOptions) -> Result<Option<Object>> {
        options.check_current(found.as_ref().map(|found| &found.entry))?;
        let Some(Found { entry, content }) = found else { return Ok(None) };
        let content = content.ok_or_else(document::unreadable)?;
        let range = match options.range {
            Some(range) => range.resolve(entry.size)?,
            None => 0..entry.size,
        };
        let (file, chunk) = match content {
            Content::Inline(bytes) => {
                // Within the bytes, whose length is that of the entry.
                let bytes = bytes.slice(range.start as usize..range.end as usize);
                return Ok(Some(Object::new(entry, bytes)));
            }
            Content::File { id, chunk, .. } => (id, u64::from(chunk)),
        };
        let mut part =
            Part { key: entry.key.clone(), file, size: entry.size, chunk, next: range.start, end: range.end };
        let first = self.pieces(&mut part).await?;
        if part.next == part.end {
            let whole: storage_core::Buffer = first.into_iter().collect();
            return Ok(Some(Object::new(entry, whole)));
        }
        let session = self.clone();
        let rest = stream::try_unfold(part, move |mut part| {
            let session = session.clone();
            async move {
                if part.next == part.end {
                    return Ok(None);
                }
                let pieces = session.pieces(&mut part).await?;
                Ok::<_, Error>(Some((stream::iter(pieces.into_iter().map(Ok)), part)))
            }
        });
        let pieces = stream::iter(first.into_iter().map(Ok)).chain(rest.try_flatten());
        Ok(Some(Object::new(entry, Body::from_backend(range.end - range.start, pieces))))
    }

    /// The next pieces of a part.
    async fn pieces(&self, part: &mut Part) -> Result<Vec<Bytes>> {
        if part.next == part.end {
            return Ok(Vec::new());
        }
        let (begin, behind) = (part.next / part.chunk, part.end.div_ceil(part.chunk));
        let behind = behind.min(begin + CHUNKS as u64);
        let find = doc! {
            "find": self.store.name("chunks"),
            "filter": { "files_id": part.file, "n": { "$gte": begin.cast_signed(), "$lt": behind.cast_signed() } },
            "projection": { "_id": 0, "n": 1, "data": 1 },
            "sort": { "n": 1 },
            "limit": (behind - begin).cast_signed(),
            "singleBatch": true,
        };
        // The chunks of a file never change, so no transaction is needed to read them.
        self.store.check_open()?;
        let store = self.store.clone();
        let task = self.store.tasks.runtime.spawn(async move { store.batch(find).await.map_err(Error::from) });
        let answer =
            task.await.map_err(|e| Error::new(ErrorKind::Closed, "the runtime has ended").with_source(e))??;
        let Some(chunks) = chunks_of(answer, begin) else {
            return Err(self.missing(&part.key, part.file).await);
        };
        let mut pieces = Vec::with_capacity(chunks.len());
        for (n, bytes) in (begin..).zip(chunks) {
            let (from, len) = (n * part.chunk, bytes.len() as u64);
            if len != part.chunk.min(part.size - from) {
                return Err(self.missing(&part.key, part.file).await);
            }
            // Both lie within the chunk.
            let (start, end) = (part.next - from, (part.end - from).min(len));
            pieces.push(bytes.slice(start as usize..end as usize));
            part.next = from + end;
        }
        match pieces.len() as u64 == behind - begin {
            true => Ok(pieces),
            false => Err(self.missing(&part.key, part.file).await),
        }
    }

    /// Why a chunk is not there: the value is another by now, or somebody has damaged it.
    pub(crate) async fn missing(&self, key: &Key, file: ObjectId) -> Error {
        let (store, known) = (self.store.clone(), key.clone());
        let named = self.store.tasks.runtime.spawn(async move { files::is_named(&store, file, &known).await });
        match named.await {
            Ok(Ok(true)) => {
                Error::new(ErrorKind::Corrupt, "chunks of the value are missing; restore a backup").with_key(key)
            }
            Ok(Ok(false)) => conflict(),
            Ok(Err(e)) => e,
            Err(_) => Error::closed(),
        }
    }
}

/// The bytes of the chunks from number `begin` on, where the answer has them, which they share with it.
fn chunks_of(answer: RawBatch, begin: u64) -> Option<Vec<Bytes>> {
    let bytes = Bytes::from_owner(Answer(answer));
    let cursor = RawDocument::from_bytes(&bytes).ok()?.get_document("cursor").ok()?;
    let mut chunks = Vec::new();
    for (n, chunk) in (begin..).zip(cursor.get_array("firstBatch").ok()?) {
        let chunk = chunk.ok()?.as_document()?;
        let number = match chunk.get("n").ok()?? {
            RawBsonRef::Int32(number) => i64::from(number),
            RawBsonRef::Int64(number) => number,
            _ => return None,
        };
        let data = chunk.get_binary("data").ok().filter(|_| number == n.cast_signed())?;
        chunks.push(bytes.slice_ref(data.bytes));
    }
    Some(chunks)
}

struct Answer(RawBatch);

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_raw_document().as_bytes()
    }
}

pub(crate) fn conflict() -> Error {
    Error::new(ErrorKind::Conflict, "the value was overwritten or deleted while it was read; read it again")
}

/// The command that finds one key's document.
fn find_one(db: &Db, key: &Key, with_data: bool) -> Document {
    let mut find =
        doc! { "find": &db.store.collection, "filter": { "_id": key.as_str() }, "limit": 1, "singleBatch": true };
    if !with_data {
        find.insert("projection", doc! { "data": 0 });
    }
    find
}

pub(crate) async fn one(db: &mut Db, key: &Key, with_data: bool) -> Result<Option<Found>> {
    let find = find_one(db, key, with_data);
    let (mut documents, _) = db.documents(find).await?;
    let found = documents.pop().and_then(|document| document::found(document, with_data, true));
    Ok(found.map(|found| db.store.versioned(found)))
}

/// The value, or one of its versions.
async fn at(db: &mut Db, key: &Key, version: Option<VersionId>, with_data: bool) -> Result<Option<Found>> {
    match version {
        None => one(db, key, with_data).await,
        Some(_) if db.store.versions.is_none() => Err(Error::unsupported("versions")),
        Some(version) => versions::find(db, key, &version, with_data).await,
    }
}

/// What is there now, as a write has to know it: the raw document without the value, or with it where it is to be kept.
pub(crate) async fn current(db: &mut Db, key: &Key) -> Result<Option<Document>> {
    let find = find_one(db, key, db.store.versions.is_some());
    Ok(db.documents(find).await?.0.pop())
}
