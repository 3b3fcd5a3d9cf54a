//! The operations on OpenDAL, in the way its documentation shows.

use bytes::Bytes;
use futures_util::TryStreamExt;
use opendal::Operator;

use crate::{
    Result,
    subject::{PIECE, Subject},
};

impl Subject for Operator {
    async fn put(&self, key: &str, value: Bytes) -> Result<()> {
        Operator::write(self, key, value).await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        Ok(Operator::read(self, key).await?.to_bytes())
    }

    async fn stat(&self, key: &str) -> Result<u64> {
        Ok(Operator::stat(self, key).await?.content_length())
    }

    async fn list(&self, prefix: &str) -> Result<usize> {
        let mut entries = self.lister_with(prefix).recursive(true).await?;
        let mut count = 0;
        while let Some(entry) = entries.try_next().await? {
            // The directory itself is listed too.
            count += usize::from(entry.metadata().is_file());
        }
        Ok(count)
    }

    async fn write(&self, key: &str, pieces: Vec<Bytes>) -> Result<()> {
        let mut writer = self.writer(key).await?;
        for piece in pieces {
            writer.write(piece).await?;
        }
        writer.close().await?;
        Ok(())
    }

    async fn read(&self, key: &str) -> Result<usize> {
        let mut pieces = self.reader_with(key).chunk(PIECE).await?.into_bytes_stream(..).await?;
        let mut len = 0;
        while let Some(piece) = pieces.try_next().await? {
            len += piece.len();
        }
        Ok(len)
    }
}
