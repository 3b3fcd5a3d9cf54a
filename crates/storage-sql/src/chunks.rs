//! Large values on their way out: the chunks of an upload, which never change, a chunk at a time.

use std::ops::Range;

use futures_util::{StreamExt, stream};
use storage_core::{ByteStream, Bytes, Error, ErrorKind, Key, Result};

use crate::{
    dialect::Tables,
    read::damaged,
    session::{Db, Session},
};

/// A value in chunks: under which number, of which size, and its own size.
#[derive(Clone, Copy)]
pub(crate) struct Upload {
    pub(crate) upload: i64,
    pub(crate) chunk: u64,
    pub(crate) size: u64,
}

impl Session {
    /// The bytes of a range, a chunk at a time, without a connection in between.
    pub(crate) fn chunks(&self, key: &Key, whole: Upload, range: Range<u64>) -> ByteStream {
        let (session, key, Upload { upload, chunk, size }) = (self.clone(), key.clone(), whole);
        stream::try_unfold(range, move |range| {
            let (session, key) = (session.clone(), key.clone());
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let (index, skip) = (range.start / chunk, range.start % chunk);
                let data = session.load(&key, upload, index).await?;
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

    async fn load(&self, key: &Key, upload: i64, index: u64) -> Result<Bytes> {
        let key = key.clone();
        self.read(move |mut db| {
            let key = key.clone();
            Box::pin(async move {
                let chunks = &db.store.tables.chunks;
                let sql = format!("SELECT data FROM {chunks} WHERE upload = ? AND idx = ?");
                match db.fetch_one(sql, vec![upload.into(), (index as i64).into()]).await? {
                    Some(mut row) => row.bytes(),
                    None => Err(missing(&mut db, &key, upload).await?),
                }
            })
        })
        .await
    }
}

/// Why a chunk is not there: the value is another by now, or somebody has damaged it.
pub(crate) async fn missing(db: &mut Db<'_>, key: &Key, upload: i64) -> Result<Error> {
    let Tables { entries, past, .. } = &db.store.tables;
    let sql = format!(
        "SELECT 1 FROM {entries} WHERE entry_key = ? AND upload = ? UNION ALL \
         SELECT 1 FROM {past} WHERE entry_key = ? AND upload = ?"
    );
    let named = [key.into(), upload.into()];
    let still = db.fetch_one(sql, [named.clone(), named].concat()).await?;
    Ok(if still.is_some() { damaged().with_key(key) } else { overwritten() })
}

pub(crate) fn overwritten() -> Error {
    Error::new(ErrorKind::Conflict, "the value was overwritten or deleted while it was read; read it again")
}
