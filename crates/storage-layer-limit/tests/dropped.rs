//! A backend that gives up a body while it waits for it goes on with a permit all the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures_util::{FutureExt, stream};
use storage_core::{
    BackendInfo, BatchOptions, Body, Bytes, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions,
    ListStream, Object, PutOptions, Result, StatOptions, Storage, StorageBackend, async_trait,
};
use storage_layer_limit::LimitLayer;
use storage_memory::Memory;
use tokio::sync::Notify;

/// Gives up bodies that are not there at once, and after each other waits until it is told to go on.
#[derive(Debug)]
struct Impatient {
    inner: Memory,
    go: Arc<Notify>,
}

#[async_trait]
impl StorageBackend for Impatient {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if key.as_str() == "given up" {
            let nothing = body.bytes(u64::MAX).now_or_never();
            assert!(nothing.is_none());
            return Err(Error::new(ErrorKind::Unavailable, "the body takes too long"));
        }
        let value = body.bytes(u64::MAX).await?;
        self.go.notified().await;
        self.inner.put(key, value.into(), options).await
    }
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.inner.get(key, options).await
    }
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.inner.delete(key, options).await
    }
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.inner.stat(key, options).await
    }
    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.inner.list(options).await
    }
}

#[tokio::test]
async fn the_next_body_of_the_call_gets_its_permit_back() -> Result<()> {
    let (go, come) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let backend = Impatient { inner: Memory::new(), go: go.clone() };
    let storage = Storage::typed(backend).layer(LimitLayer::new().concurrency(1).unwrap());
    let there = come.clone();
    let late = stream::once(async move {
        there.notified().await;
        Ok(Bytes::from_static(b"late"))
    });
    let never = Body::stream(stream::pending());
    let items = [("given up", never, PutOptions::new()), ("late", Body::stream(late), PutOptions::new())];
    let mut batch = Box::pin(storage.put_batch_with(items, BatchOptions::new()));
    let free = || storage.backend().intercept().available();
    assert!((&mut batch).now_or_never().is_none());
    assert_eq!(free(), 1, "the call waits for its second body");
    come.notify_one();
    assert!((&mut batch).now_or_never().is_none());
    assert_eq!(free(), 0, "the call is at work");
    go.notify_one();
    let results = batch.await?;
    assert!(results[0].is_err() && results[1].is_ok());
    assert_eq!(free(), 1);
    Ok(())
}
