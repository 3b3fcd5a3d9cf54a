//! The operations on this project's handle.

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use storage_core::{Body, GetOptions, Query, Storage};

use crate::{
    Result,
    subject::{LARGE, Subject},
};

impl Subject for Storage {
    async fn put(&self, key: &str, value: Bytes) -> Result<()> {
        Storage::put(self, key, value).await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        Ok(Storage::get(self, key).await?.ok_or("no value")?)
    }

    async fn stat(&self, key: &str) -> Result<u64> {
        Ok(Storage::stat(self, key).await?.ok_or("no entry")?.size)
    }

    async fn list(&self, prefix: &str) -> Result<usize> {
        let mut entries = Storage::list(self, prefix).await?;
        let mut count = 0;
        while entries.try_next().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    async fn write(&self, key: &str, pieces: Vec<Bytes>) -> Result<()> {
        let body = Body::with_len(LARGE as u64, stream::iter(pieces.into_iter().map(Ok)));
        Storage::put(self, key, body).await?;
        Ok(())
    }

    async fn read(&self, key: &str) -> Result<usize> {
        let object = self.open(key, GetOptions::new()).await?.ok_or("no value")?;
        let mut pieces = object.body.into_stream();
        let mut len = 0;
        while let Some(piece) = pieces.try_next().await? {
            len += piece.len();
        }
        Ok(len)
    }

    async fn batch(&self, items: Vec<(String, Bytes)>) -> Result<()> {
        self.put_batch(items).await?;
        Ok(())
    }

    async fn query(&self, number: i64) -> Result<usize> {
        let entries = Storage::query(self, Query::new().prefix("described/").equals("n", number)).await?;
        Ok(entries.try_collect::<Vec<_>>().await?.len())
    }
}
