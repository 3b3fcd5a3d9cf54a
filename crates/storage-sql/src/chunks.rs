//! Large values on their way out: the chunks of an upload, which never change, a chunk at a time.

use std::ops::Range;

use futures_util::{StreamExt, stream};
use storage_core::{ByteStream, Bytes, Error, ErrorKind, Result};

use crate::{read::damaged, session::Session};

impl Session {
    /// The bytes of a range, a chunk at a time, without a connection in between.
    pub(crate) fn chunks(&self, upload: i64, chunk: u64, size: u64, range: Range<u64>) -> ByteStream {
        let session = self.clone();
        stream::try_unfold(range, move |range| {
            let session = session.clone();
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let (index, skip) = (range.start / chunk, range.start % chunk);
                let data = session.load(upload, index).await?;
                if data.len() as u64 != chunk.min(size - index * chunk) {
                    return Err(damaged());
                }
                let end = (data.len() as u64).min(skip + range.end - range.start);
                let piece = data.slice(skip as usize..end as usize);
                let next = range.start + piece.len() as u64..range.end;
                Ok(Some((piece, next)))
            }
        })
        .boxed()
    }

    async fn load(&self, upload: i64, index: u64) -> Result<Bytes> {
        self.read(move |mut db| {
            Box::pin(async move {
                let chunks = &db.store.tables.chunks;
                let sql = format!("SELECT data FROM {chunks} WHERE upload = ? AND idx = ?");
                let row = db.fetch_one(sql, vec![upload.into(), (index as i64).into()]);
                row.await?.ok_or_else(overwritten)?.bytes()
            })
        })
        .await
    }
}

pub(crate) fn overwritten() -> Error {
    Error::new(ErrorKind::Conflict, "the value was overwritten or deleted while it was read; read it again")
}
