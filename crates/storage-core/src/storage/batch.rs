//! Batches by iterators.
//!
//! The public methods collect and check their items before the future begins. So the future does not hold the caller's
//! iterator, whose closures would keep it from being `Send` in generic code.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Storage;
use crate::{
    BatchOptions, Body, DeleteOptions, Entry, Error, GetOptions, IntoKey, Key, PutOptions, Result, StorageBackend,
};

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// The values of those keys that have one. See [`StorageBackend::get_batch`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors); the first item's that failed.
    pub fn get_batch<K: IntoKey>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> impl Future<Output = Result<BTreeMap<Key, Bytes>>> {
        let call = self.call("get_batch");
        let keys: Result<Vec<Key>> = keys.into_iter().map(|key| call.key(key)).collect();
        self.read_batch(keys)
    }

    /// Writes all pairs and returns their entries in order. See [`StorageBackend::put_batch`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors); the first item's that failed, the others may have been written. Use
    /// [`put_batch_with`](Storage::put_batch_with) for each item's own result, or for all-or-nothing.
    pub fn put_batch<K: IntoKey, V: Into<Body>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> impl Future<Output = Result<Vec<Entry>>> {
        let with_options = |(key, value)| (key, value, PutOptions::new());
        let items = items.into_iter().map(with_options);
        all(self.write(self.check_writes(items), BatchOptions::new()))
    }

    /// Writes all items; results in their order. See [`StorageBackend::put_batch`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors), before anything is written; with `atomic` also any item's.
    pub fn put_batch_with<K: IntoKey, V: Into<Body>>(
        &self,
        items: impl IntoIterator<Item = (K, V, PutOptions)>,
        options: BatchOptions,
    ) -> impl Future<Output = Result<Vec<Result<Entry>>>> {
        self.write(self.check_writes(items), options)
    }

    /// Removes the values of all keys. See [`StorageBackend::delete_batch`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors); the first item's that failed, the others may be gone.
    pub fn delete_batch<K: IntoKey>(&self, keys: impl IntoIterator<Item = K>) -> impl Future<Output = Result<()>> {
        let items = keys.into_iter().map(|key| (key, DeleteOptions::new()));
        all(self.remove(self.check_removals(items), BatchOptions::new()))
    }

    /// Removes the values of all items; results in their order. See [`StorageBackend::delete_batch`].
    ///
    /// # Errors
    /// Those of [every call](Storage#errors), before anything is deleted; with `atomic` also any item's.
    pub fn delete_batch_with<K: IntoKey>(
        &self,
        items: impl IntoIterator<Item = (K, DeleteOptions)>,
        options: BatchOptions,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> {
        self.remove(self.check_removals(items), options)
    }

    fn check_writes<K: IntoKey, V: Into<Body>>(
        &self,
        items: impl IntoIterator<Item = (K, V, PutOptions)>,
    ) -> Result<Vec<(Key, Body, PutOptions)>> {
        let (call, info) = (self.call("put_batch"), self.info());
        let check = |(key, value, options): (K, V, PutOptions)| {
            let (key, body) = (call.key(key)?, value.into());
            let check = options.check(info).and(body.check(info)).and(options.check_body(&body));
            check.map_err(|e| call.explain(e).with_key(&key))?;
            Ok((key, body, options))
        };
        items.into_iter().map(check).collect()
    }

    fn check_removals<K: IntoKey>(
        &self,
        items: impl IntoIterator<Item = (K, DeleteOptions)>,
    ) -> Result<Vec<(Key, DeleteOptions)>> {
        let (call, info) = (self.call("delete_batch"), self.info());
        let check = |(key, options): (K, DeleteOptions)| {
            let key = call.key(key)?;
            let check = options.check(info);
            check.map_err(|e| call.explain(e).with_key(&key))?;
            Ok((key, options))
        };
        items.into_iter().map(check).collect()
    }

    async fn read_batch(&self, keys: Result<Vec<Key>>) -> Result<BTreeMap<Key, Bytes>> {
        let (call, keys) = (self.call("get_batch"), keys?);
        let items =
            keys.iter().map(|key| (key.clone(), GetOptions::new().prefer_buffered(true).entry(false))).collect();
        let results = call.run(None, Ok(()), || self.backend.get_batch(items)).await?;
        let mut found = BTreeMap::new();
        for (key, result) in keys.into_iter().zip(results) {
            let explain = |e: Error| call.explain(e).with_key(&key);
            if let Some(object) = result.map_err(explain)? {
                // As in `open`: the size that a backend states binds it.
                let body = object.body.expecting(object.entry.size);
                let value = body.bytes(u64::MAX).await.map_err(explain)?;
                found.insert(key, value);
            }
        }
        Ok(found)
    }

    async fn write(
        &self,
        items: Result<Vec<(Key, Body, PutOptions)>>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let (call, items) = (self.call("put_batch"), items?);
        let keys: Vec<Key> = items.iter().map(|(key, ..)| key.clone()).collect();
        let check = options.check(self.info());
        let send = || self.backend.put_batch(items, options);
        let results = call.run(None, check, send).await?;
        Ok(call.explain_each(&keys, results))
    }

    async fn remove(&self, items: Result<Vec<(Key, DeleteOptions)>>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let (call, items) = (self.call("delete_batch"), items?);
        let keys: Vec<Key> = items.iter().map(|(key, _)| key.clone()).collect();
        let check = options.check(self.info());
        let send = || self.backend.delete_batch(items, options);
        let results = call.run(None, check, send).await?;
        Ok(call.explain_each(&keys, results))
    }
}

/// All results, or the first failure.
async fn all<T, C: FromIterator<T>>(results: impl Future<Output = Result<Vec<Result<T>>>>) -> Result<C> {
    results.await?.into_iter().collect()
}
