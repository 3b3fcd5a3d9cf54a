//! Several keys at once: one transaction, or one statement, for many of them.

use std::collections::HashMap;

use storage_core::{
    BatchOptions, Body, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, Object, PutOptions, Result,
};

use crate::{
    dialect::Begin,
    read::{Found, damaged, find_all},
    session::Session,
    versions,
    write::{Item, delete, delete_all, write_all},
};

/// How many items one transaction or statement takes, unless the batch is atomic.
const ITEMS: usize = 500;
/// How many bytes of values are collected before they are written, unless the batch is atomic.
const BYTES: usize = 8 << 20;

impl Session {
    pub(crate) async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let mut results = Vec::with_capacity(items.len());
        for some in items.chunks(ITEMS) {
            let keys: Vec<Key> = some.iter().map(|(key, _)| key.clone()).collect();
            let found = self.read(move |mut db| {
                let keys = keys.clone();
                Box::pin(async move { find_all(&mut db, &keys).await })
            });
            let found = found.await?;
            let found: HashMap<Key, Found> = found.into_iter().map(|found| (found.entry.key.clone(), found)).collect();
            for (key, options) in some {
                if options.version.is_some() {
                    results.push(self.get(key, options.clone()).await);
                    continue;
                }
                let result = match self.object(found.get(key).cloned(), options).await {
                    // Overwritten while it was collected: the single read tries again.
                    Err(e) if e.kind() == ErrorKind::Conflict => self.get(key, options.clone()).await,
                    result => result,
                };
                results.push(result);
            }
        }
        Ok(results)
    }

    pub(crate) async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let mut results = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            // Bodies come at their own speed, so all of a transaction's are there before it begins.
            let (mut ready, mut received, mut failed, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
            while options.atomic || (ready.len() < ITEMS && bytes < BYTES) {
                let Some((key, body, put)) = items.next() else {
                    break;
                };
                let item = match self.receive(body).await {
                    Ok(body) => Item::new(key.clone(), body.content.clone(), put).map(|item| (item, body)),
                    Err(e) => Err(e),
                };
                match item {
                    Ok((item, body)) => {
                        bytes += item.content.in_memory();
                        ready.push(item);
                        received.push(body);
                        failed.push(None);
                    }
                    Err(e) if options.atomic => return Err(e.with_key(&key)),
                    Err(e) => failed.push(Some(e)),
                }
            }
            let mut written = self.write_all(ready, options.atomic).await?.into_iter().zip(received);
            for failed in failed {
                let result = match failed {
                    Some(e) => Err(e),
                    None => {
                        let (result, body) = written.next().ok_or_else(damaged)?;
                        if result.is_ok() {
                            body.keep();
                        }
                        result
                    }
                };
                results.push(result);
            }
        }
        Ok(results)
    }

    pub(crate) async fn delete_batch(
        &self,
        items: Vec<(Key, DeleteOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<()>>> {
        let most = if options.atomic { usize::MAX } else { ITEMS };
        let mut results = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let some: Vec<_> = items.by_ref().take(most).collect();
            let begin = if options.atomic { Begin::Deletes } else { Begin::Write };
            let deleted = self.write_batch(begin, move |mut db| {
                let some = some.clone();
                Box::pin(async move {
                    if let Some(keys) = unconditional(&some).filter(|_| db.store.versions.is_none()) {
                        return delete_all(&mut db, &keys).await;
                    }
                    let mut results = Vec::with_capacity(some.len());
                    for (key, item) in &some {
                        let result = match db.store.versions {
                            Some(_) => versions::delete(&mut db, key, item).await,
                            None => delete(&mut db, key, item).await,
                        };
                        results.push(settle(key, result, options.atomic)?);
                    }
                    Ok(results)
                })
            });
            results.extend(deleted.await?);
        }
        Ok(results)
    }

    /// Writes these in one transaction.
    async fn write_all(&self, items: Vec<Item>, atomic: bool) -> Result<Vec<Result<Entry>>> {
        let begin = if atomic { Begin::Isolated } else { Begin::Write };
        let write = self.write_batch(begin, move |mut db| {
            let items = items.clone();
            Box::pin(async move {
                let written = write_all(&mut db, &items).await?;
                items.iter().zip(written).map(|(item, result)| settle(&item.key, result, atomic)).collect()
            })
        });
        write.await
    }
}

/// The keys, if all are to be deleted whatever they hold.
fn unconditional(items: &[(Key, DeleteOptions)]) -> Option<Vec<Key>> {
    let plain = items.iter().all(|(_, options)| *options == DeleteOptions::new());
    plain.then(|| items.iter().map(|(key, _)| key.clone()).collect())
}

/// Whether an item's failure is its own, in which case nothing was written for it, or that of the whole transaction.
fn settle<T>(key: &Key, result: Result<T>, atomic: bool) -> Result<Result<T>> {
    let own = |e: &Error| matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed);
    match result {
        Err(e) if atomic || !own(&e) => Err(e.with_key(key)),
        result => Ok(result),
    }
}
