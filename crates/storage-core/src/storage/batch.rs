//! Batches by iterators and maps.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Storage;
use crate::{
    BatchOptions, Body, DeleteOptions, Entry, Error, GetOptions, IntoKey, Key, PutOptions, Result,
    StorageBackend,
};

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// The values of those keys that have one. See [`StorageBackend::get_batch`].
    ///
    /// # Errors
    /// As said at [`Storage`]; the first item's that failed.
    pub async fn get_batch<K: IntoKey>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<BTreeMap<Key, Bytes>> {
        let call = self.call("get_batch");
        let keys: Vec<Key> = keys
            .into_iter()
            .map(|key| call.key(key))
            .collect::<Result<_>>()?;
        let items = keys
            .iter()
            .map(|key| (key.clone(), GetOptions::new().whole(true)))
            .collect();
        let results = call
            .run(None, Ok(()), || self.backend.get_batch(items))
            .await?;
        let mut found = BTreeMap::new();
        for (key, result) in keys.into_iter().zip(results) {
            let explain = |e: Error| call.explain(e).with_key(&key);
            if let Some(object) = result.map_err(explain)? {
                let value = object.body.bytes(u64::MAX).await.map_err(explain)?;
                found.insert(key, value);
            }
        }
        Ok(found)
    }

    /// Writes all pairs and returns their entries. See [`StorageBackend::put_batch`].
    ///
    /// # Errors
    /// As said at [`Storage`]; the first item's that failed, the others may have been written. Use
    /// [`put_batch_with`](Storage::put_batch_with) for each item's own result, or for all-or-nothing.
    pub async fn put_batch<K: IntoKey, V: Into<Body>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Vec<Entry>> {
        let items = items
            .into_iter()
            .map(|(key, value)| (key, value, PutOptions::new()));
        self.put_batch_with(items, BatchOptions::new())
            .await?
            .into_iter()
            .collect()
    }

    /// Writes all items; results in their order. See [`StorageBackend::put_batch`].
    ///
    /// # Errors
    /// As said at [`Storage`], before anything is written; with `atomic` also any item's.
    pub async fn put_batch_with<K: IntoKey, V: Into<Body>>(
        &self,
        items: impl IntoIterator<Item = (K, V, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let (call, info) = (self.call("put_batch"), self.info());
        let mut checked = Vec::new();
        for (key, value, options) in items {
            let (key, body) = (call.key(key)?, value.into());
            let check = options.check(info).and(body.check(info));
            check.map_err(|e| call.explain(e).with_key(&key))?;
            checked.push((key, body, options));
        }
        let keys: Vec<Key> = checked.iter().map(|(key, ..)| key.clone()).collect();
        let results = call
            .run(None, options.check(info), || {
                self.backend.put_batch(checked, options)
            })
            .await?;
        let explained = keys
            .iter()
            .zip(results)
            .map(|(key, result)| result.map_err(|e| call.explain(e).with_key(key)));
        Ok(explained.collect())
    }

    /// Removes the values of all keys. See [`StorageBackend::delete_batch`].
    ///
    /// # Errors
    /// As said at [`Storage`]; the first item's that failed, the others may be gone.
    pub async fn delete_batch<K: IntoKey>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        let items = keys.into_iter().map(|key| (key, DeleteOptions::new()));
        self.delete_batch_with(items, BatchOptions::new())
            .await?
            .into_iter()
            .collect()
    }

    /// Removes the values of all items; results in their order. See [`StorageBackend::delete_batch`].
    ///
    /// # Errors
    /// As said at [`Storage`], before anything is deleted; with `atomic` also any item's.
    pub async fn delete_batch_with<K: IntoKey>(
        &self,
        items: impl IntoIterator<Item = (K, DeleteOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<()>>> {
        let (call, info) = (self.call("delete_batch"), self.info());
        let mut checked = Vec::new();
        for (key, options) in items {
            let key = call.key(key)?;
            options
                .check(info)
                .map_err(|e| call.explain(e).with_key(&key))?;
            checked.push((key, options));
        }
        let keys: Vec<Key> = checked.iter().map(|(key, _)| key.clone()).collect();
        let results = call
            .run(None, options.check(info), || {
                self.backend.delete_batch(checked, options)
            })
            .await?;
        let explained = keys
            .iter()
            .zip(results)
            .map(|(key, result)| result.map_err(|e| call.explain(e).with_key(key)));
        Ok(explained.collect())
    }
}
