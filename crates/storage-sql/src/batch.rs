//! Several keys at once: one transaction, or one statement, for many of them.

use std::collections::HashMap;

use storage_core::{
    BatchOptions, Body, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, Object, PutOptions, Result,
};

use crate::{
    read::{Found, find_all},
    session::Session,
    staging::Content,
    write::{delete, replace},
};

/// How many items one transaction or statement takes, unless the batch is atomic.
const ITEMS: usize = 500;
/// How many bytes of values are collected before they are written, unless the batch is atomic.
const BYTES: usize = 8 << 20;

type Put = (Key, Result<Content>, PutOptions);

impl Session {
    pub(crate) async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let mut results = Vec::with_capacity(items.len());
        for some in items.chunks(ITEMS) {
            let keys: Vec<Key> = some.iter().map(|(key, _)| key.clone()).collect();
            let found = self.read(move |mut db| Box::pin(async move { find_all(&mut db, &keys).await })).await?;
            let found: HashMap<Key, Found> = found.into_iter().map(|found| (found.entry.key.clone(), found)).collect();
            for (key, options) in some {
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
            let (mut ready, mut received, mut bytes) = (Vec::new(), Vec::new(), 0);
            while options.atomic || (ready.len() < ITEMS && bytes < BYTES) {
                let Some((key, body, put)) = items.next() else {
                    break;
                };
                let (content, body) = match self.receive(body).await {
                    Ok(body) => (Ok(body.content.clone()), Some(body)),
                    Err(e) if options.atomic => return Err(e.with_key(&key)),
                    Err(e) => (Err(e), None),
                };
                bytes += content.as_ref().map_or(0, Content::in_memory);
                ready.push((key, content, put));
                received.push(body);
            }
            let written = self.write_all(ready, options.atomic).await?;
            for (result, received) in written.iter().zip(received) {
                if let (Ok(_), Some(received)) = (result, received) {
                    received.keep();
                }
            }
            results.extend(written);
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
            let deleted = self.write(move |mut db| {
                Box::pin(async move {
                    let mut results = Vec::with_capacity(some.len());
                    for (key, item) in some {
                        let result = delete(&mut db, &key, &item).await;
                        results.push(settle(&key, result, options.atomic)?);
                    }
                    Ok(results)
                })
            });
            results.extend(deleted.await?);
        }
        Ok(results)
    }

    /// Writes these in one transaction.
    async fn write_all(&self, items: Vec<Put>, atomic: bool) -> Result<Vec<Result<Entry>>> {
        self.write(move |mut db| {
            Box::pin(async move {
                let mut results = Vec::with_capacity(items.len());
                for (key, content, options) in items {
                    results.push(match content {
                        Ok(content) => {
                            let result = replace(&mut db, key.clone(), content, options).await;
                            settle(&key, result, atomic)?
                        }
                        Err(e) => Err(e),
                    });
                }
                Ok(results)
            })
        })
        .await
    }
}

/// Whether an item's failure is its own, in which case nothing was written for it, or that of the whole transaction.
fn settle<T>(key: &Key, result: Result<T>, atomic: bool) -> Result<Result<T>> {
    let own = |e: &Error| matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed);
    match result {
        Err(e) if atomic || !own(&e) => Err(e.with_key(key)),
        result => Ok(result),
    }
}
