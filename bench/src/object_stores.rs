//! The operations on object_store, in the way its documentation shows.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use crate::{Result, subject::Subject};

impl Subject for Arc<dyn ObjectStore> {
    async fn put(&self, key: &str, value: Bytes) -> Result<()> {
        ObjectStoreExt::put(self, &Path::parse(key)?, value.into()).await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        Ok(ObjectStoreExt::get(self, &Path::parse(key)?).await?.bytes().await?)
    }

    async fn stat(&self, key: &str) -> Result<u64> {
        Ok(self.head(&Path::parse(key)?).await?.size)
    }

    async fn list(&self, prefix: &str) -> Result<usize> {
        let mut entries = ObjectStore::list(self, Some(&Path::parse(prefix)?));
        let mut count = 0;
        while entries.try_next().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    async fn write(&self, key: &str, pieces: Vec<Bytes>) -> Result<()> {
        let mut upload = self.put_multipart(&Path::parse(key)?).await?;
        for piece in pieces {
            upload.put_part(piece.into()).await?;
        }
        upload.complete().await?;
        Ok(())
    }

    async fn read(&self, key: &str) -> Result<usize> {
        let mut pieces = ObjectStoreExt::get(self, &Path::parse(key)?).await?.into_stream();
        let mut len = 0;
        while let Some(piece) = pieces.try_next().await? {
            len += piece.len();
        }
        Ok(len)
    }
}
