//! Values on their way in: inline, or staged in chunks under an upload's number.
//!
//! A body is never read while anything is locked, in SQLite the whole database: its chunks are staged a few at a time in
//! transactions of their own, and one short transaction at the end makes them the value. The chunks of an upload never
//! change; they disappear with the entry that owns them, or with the upload if none ever did.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use storage_core::{Body, ByteStream, Error, ErrorKind, Key, Result};

use crate::{
    chunks::missing,
    session::{Db, Session},
    value::Value,
};

/// How many bytes are staged in one transaction, at least one chunk.
const BATCH: usize = 2 << 20;

/// How many bytes of values one statement takes, at least one value. Servers limit the size of statements.
pub(crate) const STATEMENT: usize = 1 << 20;

/// What holds of an upload that nobody owns.
const STAGED: &str = "entry IS NULL AND past IS NULL";

/// The bytes of a value that is about to be written.
#[derive(Clone)]
pub(crate) enum Content {
    Inline(Bytes),
    /// Chunks of this size under an upload that nobody owns yet.
    Staged {
        upload: i64,
        chunk: i64,
        size: i64,
    },
}

impl Content {
    /// How many bytes it has.
    pub(crate) fn size(&self) -> i64 {
        match self {
            Self::Inline(data) => data.len() as i64,
            Self::Staged { size, .. } => *size,
        }
    }

    /// How many bytes of it are in memory.
    pub(crate) fn in_memory(&self) -> usize {
        match self {
            Self::Inline(data) => data.len(),
            Self::Staged { .. } => 0,
        }
    }
}

/// A value that was received and can be written in one short transaction. Dropped before [`keep`](Received::keep), what was
/// staged for it is removed.
pub(crate) struct Received {
    pub(crate) content: Content,
    staged: Option<Staged>,
}

impl Received {
    /// The value was written.
    pub(crate) fn keep(self) {
        if let Some(mut staged) = self.staged {
            staged.kept = true;
        }
    }
}

/// Chunks without an owner.
struct Staged {
    session: Session,
    upload: i64,
    chunk: i64,
    size: i64,
    kept: bool,
}

impl Session {
    /// Reads a body to its end.
    pub(crate) async fn receive(&self, body: Body) -> Result<Received> {
        let inline = |data| Received { content: Content::Inline(data), staged: None };
        if body.buffer().is_some_and(|buffer| buffer.len() <= self.store.chunk_size as u64) {
            return body.bytes(u64::MAX).await.map(inline);
        }
        let mut chunks = Chunks {
            pieces: body.into_stream().fuse().boxed(),
            size: self.store.chunk_size,
            left: self.store.info.limits.value,
            piece: Bytes::new(),
        };
        let first = chunks.next().await?.unwrap_or_default();
        let Some(second) = chunks.next().await? else {
            return Ok(inline(first));
        };
        let mut staged = self.stage(chunks.size).await?;
        let mut batch = vec![first, second];
        loop {
            match chunks.next().await? {
                Some(chunk) => batch.push(chunk),
                None => {
                    staged.append(batch).await?;
                    return Ok(staged.received());
                }
            }
            if batch.len() * chunks.size >= BATCH {
                staged.append(std::mem::take(&mut batch)).await?;
            }
        }
    }

    /// A copy of an upload, staged. Its chunks are copied by the database, some at a time.
    pub(crate) async fn stage_copy(&self, key: &Key, upload: i64, chunk: u64, size: u64) -> Result<Received> {
        let mut staged = self.stage(chunk as usize).await?;
        let count = size.div_ceil(chunk) as i64;
        let step = (BATCH as u64 / chunk).max(1) as usize;
        for first in (0..count).step_by(step) {
            let last = count.min(first + step as i64);
            let to = staged.upload;
            let copied = self.write(move |mut db| {
                Box::pin(async move {
                    touch(&mut db, to).await?;
                    let chunks = &db.store.tables.chunks;
                    let sql = format!(
                        "INSERT INTO {chunks} (upload, idx, data) SELECT ?, idx, data FROM {chunks} \
                         WHERE upload = ? AND idx >= ? AND idx < ?"
                    );
                    let bounds = [to, upload, first, last].map(Value::Int);
                    db.execute(sql, bounds.into()).await
                })
            });
            if copied.await? != (last - first) as u64 {
                let key = key.clone();
                let missing = self.read(move |mut db| {
                    let key = key.clone();
                    Box::pin(async move { missing(&mut db, &key, upload).await })
                });
                return Err(missing.await?);
            }
        }
        staged.size = size as i64;
        Ok(staged.received())
    }

    async fn stage(&self, chunk: usize) -> Result<Staged> {
        let session = self.clone();
        let staged = self.write_once(move |mut db| {
            let session = session.clone();
            Box::pin(async move {
                let (uploads, now) = (&db.store.tables.uploads, db.store.dialect.now());
                let sql = format!("INSERT INTO {uploads} (touched_at) VALUES ({now}) RETURNING upload");
                let upload = db.fetch_one(sql, vec![]).await?.ok_or_else(swept)?.int()?;
                // A call that is dropped while the answer is on its way drops this.
                Ok(Staged { session, upload, chunk: chunk as i64, size: 0, kept: false })
            })
        });
        let staged = staged.await?;
        self.store.abandoned.again(self);
        Ok(staged)
    }

    /// Removes what was staged by writers that have not been heard of for so long, as far as that is possible now.
    pub(crate) async fn sweep(&self, age: Duration) {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let stale = self.read(move |mut db| {
            Box::pin(async move {
                let (uploads, now) = (&db.store.tables.uploads, db.store.dialect.now());
                let sql = format!("SELECT upload FROM {uploads} WHERE {STAGED} AND {now} - touched_at > ?");
                let rows = db.fetch(sql, vec![age.into()]).await?;
                rows.into_iter().map(|mut row| row.int()).collect::<Result<Vec<i64>>>()
            })
        });
        let swept = async {
            for upload in stale.await? {
                self.abandon(upload).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(e) = swept.await {
            tracing::warn!(error = %e, "what interrupted writes have staged is left for a later connection to sweep");
        }
    }

    /// Removes an upload unless an entry owns it.
    async fn abandon(&self, upload: i64) -> Result<()> {
        self.write_once(move |mut db| {
            Box::pin(async move {
                let uploads = &db.store.tables.uploads;
                let sql = format!("DELETE FROM {uploads} WHERE upload = ? AND {STAGED}");
                db.execute(sql, vec![upload.into()]).await.map(drop)
            })
        })
        .await
    }
}

impl Staged {
    fn received(self) -> Received {
        Received {
            content: Content::Staged { upload: self.upload, chunk: self.chunk, size: self.size },
            staged: Some(self),
        }
    }

    async fn append(&mut self, batch: Vec<Bytes>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (upload, index) = (self.upload, self.size / self.chunk);
        // A statement takes one chunk, or so many as are not large together.
        let together = (STATEMENT / self.chunk as usize).max(1);
        self.size += batch.iter().map(|chunk| chunk.len() as i64).sum::<i64>();
        let appended = self.session.write(move |mut db| {
            let batch = batch.clone();
            Box::pin(async move {
                touch(&mut db, upload).await?;
                let chunks = &db.store.tables.chunks;
                let mut rows = batch.into_iter().zip(index..).peekable();
                while rows.peek().is_some() {
                    let some: Vec<_> = rows.by_ref().take(together).collect();
                    let places = vec!["(?, ?, ?)"; some.len()].join(", ");
                    let sql = format!("INSERT INTO {chunks} (upload, idx, data) VALUES {places}");
                    let row = |(chunk, index): (Bytes, i64)| [upload.into(), index.into(), Value::Bytes(chunk)];
                    db.execute(sql, some.into_iter().flat_map(row).collect()).await?;
                }
                Ok(())
            })
        });
        appended.await
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // What an entry owns by now is not touched, so there is no need to know how the write ended.
        self.session.store.abandoned.remove(&self.session, self.upload);
    }
}

/// What could not be removed when it was abandoned: the next streamed write tries again, so that no more stays than one failure of
/// the database leaves. The rest is for a connection made `sweep_after` later.
#[derive(Debug, Default)]
pub(crate) struct Abandoned(Mutex<Vec<i64>>);

impl Abandoned {
    /// The most that are remembered.
    const MOST: usize = 10_000;

    fn list(&self) -> MutexGuard<'_, Vec<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an upload in the background, now or later.
    fn remove(&self, session: &Session, upload: i64) {
        let own = session.clone();
        session.detach(async move {
            if let Err(e) = own.abandon(upload).await {
                tracing::debug!(error = %e, "staged chunks are left for a later write or connection to remove");
                let mut list = own.store.abandoned.list();
                // What was staged in a transaction has ended with it.
                if e.kind() != ErrorKind::Closed && list.len() < Self::MOST {
                    list.push(upload);
                }
            }
        });
    }

    fn again(&self, session: &Session) {
        let left = std::mem::take(&mut *self.list());
        left.into_iter().for_each(|upload| self.remove(session, upload));
    }
}

/// Makes an entry the owner of what was staged.
pub(crate) async fn adopt(db: &mut Db<'_>, upload: i64, entry: i64) -> Result<()> {
    let uploads = &db.store.tables.uploads;
    let sql = format!("UPDATE {uploads} SET entry = ? WHERE upload = ? AND {STAGED}");
    match db.execute(sql, vec![entry.into(), upload.into()]).await? {
        1 => Ok(()),
        _ => Err(swept()),
    }
}

/// Says that the writer is still there.
async fn touch(db: &mut Db<'_>, upload: i64) -> Result<()> {
    let (uploads, now) = (&db.store.tables.uploads, db.store.dialect.now());
    let sql = format!("UPDATE {uploads} SET touched_at = {now} WHERE upload = ? AND {STAGED}");
    match db.execute(sql, vec![upload.into()]).await? {
        1 => Ok(()),
        _ => Err(swept()),
    }
}

fn swept() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the body paused for so long that another connection swept what was staged; send it again, or raise `sweep_after`",
    )
}

/// Cuts a body into chunks of one size; the last may be shorter. Only what is spread over several pieces is copied.
struct Chunks {
    pieces: ByteStream,
    size: usize,
    /// How many more bytes a value may have.
    left: u64,
    piece: Bytes,
}

impl Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut chunk = BytesMut::new();
        while chunk.len() < self.size {
            if self.piece.is_empty() {
                let Some(piece) = self.pieces.next().await.transpose()? else {
                    break;
                };
                let left = self.left.checked_sub(piece.len() as u64);
                self.left =
                    left.ok_or_else(|| Error::new(ErrorKind::TooLarge, "the value is larger than this backend takes"))?;
                self.piece = piece;
            }
            let missing = self.size - chunk.len();
            if chunk.is_empty() && self.piece.len() >= missing {
                return Ok(Some(self.piece.split_to(missing)));
            }
            let part = self.piece.split_to(missing.min(self.piece.len()));
            chunk.extend_from_slice(&part);
        }
        Ok((!chunk.is_empty()).then(|| chunk.freeze()))
    }
}
