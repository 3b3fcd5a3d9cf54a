//! What several tests do with a store.

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use storage_core::{Body, PutOptions, Result, Storage};

pub(crate) async fn list(storage: &Storage) -> Vec<String> {
    let keys = storage.keys().await.unwrap().map_ok(|key| key.as_str().to_owned());
    keys.try_collect().await.unwrap()
}

/// Every way to write, and what becomes of it.
pub(crate) async fn writes(storage: &Storage, key: &str) -> Vec<(&'static str, Result<()>)> {
    let stream = Body::stream(stream::iter([Ok(Bytes::from_static(b"new")), Ok(Bytes::from_static(b"er"))]));
    let put = [(key, "new", PutOptions::new())];
    vec![
        ("put", storage.put(key, "new").await.map(drop)),
        ("put a stream", storage.put(key, stream).await.map(drop)),
        ("put_batch", storage.put_batch_with(put, Default::default()).await.and_then(only)),
        ("copy", storage.copy(key, "copy").await.map(drop)),
        ("copy onto itself", storage.copy(key, key).await.map(drop)),
        ("rename", storage.rename(key, "renamed").await.map(drop)),
        ("delete_batch", storage.delete_batch([key]).await),
        ("delete", storage.delete(key).await),
        ("clear", storage.clear().await),
    ]
}

pub(crate) fn only<T>(results: Vec<Result<T>>) -> Result<()> {
    results.into_iter().next().unwrap().map(drop)
}
