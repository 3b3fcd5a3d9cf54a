//! A layer that hands every body out as a stream of small pieces, as stores at the end of a network do.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use storage_core::{
    BackendInfo, Body, ByteRange, Entry, GetOptions, Key, Layer, Object, PutOptions, Result, StorageBackend,
};
use storage_layer::{Transform, Transformed};

#[derive(Debug)]
pub(crate) struct Chunked(pub(crate) usize);

impl Transform for Chunked {
    fn info(&self, inner: &BackendInfo) -> BackendInfo {
        inner.clone()
    }

    async fn encode(&self, _: &Key, body: Body, options: PutOptions) -> Result<(Body, PutOptions)> {
        Ok((body, options))
    }

    async fn decode(&self, _: &Key, stored: Object) -> Result<Object> {
        let whole = stored.body.bytes(u64::MAX).await?;
        let size = self.0;
        let pieces = (0..whole.len()).step_by(size).map({
            let whole = whole.clone();
            move |at| Ok(whole.slice(at..whole.len().min(at + size)))
        });
        let body = Body::with_len(whole.len() as u64, stream::iter(pieces).boxed());
        Ok(Object::new(stored.entry, body))
    }

    async fn read_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: GetOptions,
    ) -> Result<Option<Object>> {
        match inner.get(key, options.range(range)).await? {
            Some(stored) => self.decode(key, stored).await.map(Some),
            None => Ok(None),
        }
    }

    async fn entry<S: StorageBackend + ?Sized>(&self, _: &S, stored: Entry) -> Result<Option<Entry>> {
        Ok(Some(stored))
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Chunked {
    type Backend = Transformed<S, Chunked>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Transformed::new(inner, self)
    }
}
