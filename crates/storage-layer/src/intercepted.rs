//! One forwarding that applies an [`Intercept`] to every method.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use storage_core::{
    BackendInfo, BatchOptions, Body, ByteRange, Condition, CopyOptions, DeleteOptions, Entry, EntryStream, GetOptions,
    Key, ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query, RenameOptions, Result,
    StatOptions, StorageBackend, Transaction, async_trait,
};

use crate::{
    Intercept, Operation, OperationName, Retryability,
    batch::Batch,
    replay::ReplayBody,
    resume::{ResumeGet, ResumeList, ResumeQuery, ResumeVersions},
};

/// A backend with an intercepting layer around it.
#[derive(Debug)]
pub struct Intercepted<S: ?Sized, I> {
    intercept: Arc<I>,
    info: BackendInfo,
    in_transaction: bool,
    inner: Arc<S>,
}

impl<S: StorageBackend + ?Sized, I: Intercept> Intercepted<S, I> {
    /// Puts the layer around `inner`.
    #[must_use]
    pub fn new(inner: Arc<S>, intercept: I) -> Self {
        Self::wrap(inner, Arc::new(intercept), false)
    }

    /// The backend below.
    #[must_use]
    pub fn get_ref(&self) -> &Arc<S> {
        &self.inner
    }

    /// The backend below, without the layer.
    #[must_use]
    pub fn into_inner(self) -> Arc<S> {
        self.inner
    }

    /// The layer.
    #[must_use]
    pub fn intercept(&self) -> &I {
        &self.intercept
    }

    fn wrap(inner: Arc<S>, intercept: Arc<I>, in_transaction: bool) -> Self {
        Self { info: intercept.info(inner.info()), intercept, in_transaction, inner }
    }

    fn operation<'a>(&self, name: OperationName, key: Option<&'a Key>, replay: Retryability) -> Operation<'a> {
        // A transaction that met an error is over in most databases: only the whole of it can be run again.
        let replay = if self.in_transaction { Retryability::Never } else { replay };
        let in_transaction = self.in_transaction;
        Operation { name, key, bytes: None, replay, progress: None, bodies: None, in_transaction }
    }
}

fn unless_conditional(condition: &Option<Condition>) -> Retryability {
    match condition {
        None => Retryability::Always,
        Some(_) => Retryability::IfDefinite,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StorageBackend + ?Sized, I: Intercept> StorageBackend for Intercepted<S, I> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        options.prefer_buffered &= I::WHOLE;
        let operation = self.operation(OperationName::Get, Some(key), Retryability::Always);
        let call = || self.inner.get(key, options.clone());
        let (result, span) = self.intercept.call(operation, call).await;
        let Some(mut object) = result? else {
            return Ok(None);
        };
        if !object.body.is_in_memory() {
            // The entry tells how long the body must be: one that ends early without an error is resumed like any other.
            let range = options.range.unwrap_or(ByteRange::From(0)).resolve(object.entry.size)?;
            let len = range.end - range.start;
            let resume = ResumeGet::new(&self.inner, options, &object.entry, range);
            let whole = Body::from_backend(len, object.body.into_stream()).into_stream();
            object.body = Body::from_backend(len, I::stream(&self.intercept, span, whole, resume));
        }
        Ok(Some(object))
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let replay = unless_conditional(&options.condition);
        let mut operation = self.operation(OperationName::Put, Some(key), replay);
        let body = ReplayBody::new(body, &mut operation);
        let call = || self.inner.put(key, body.take(), options.clone());
        self.intercept.call(operation, call).await.0
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let replay = unless_conditional(&options.condition);
        let operation = self.operation(OperationName::Delete, Some(key), replay);
        let call = || self.inner.delete(key, options.clone());
        self.intercept.call(operation, call).await.0
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let operation = self.operation(OperationName::Stat, Some(key), Retryability::Always);
        let call = || self.inner.stat(key, options.clone());
        self.intercept.call(operation, call).await.0
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let operation = self.operation(OperationName::List, None, Retryability::Always);
        let call = || self.inner.list(options.clone());
        let (result, span) = self.intercept.call(operation, call).await;
        let (stream, inner) = (result?, self.inner.clone());
        let resume = ResumeList { inner, options };
        Ok(I::stream(&self.intercept, span, stream, resume))
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let operation = self.operation(OperationName::GetBatch, None, Retryability::Always);
        let batch = Batch {
            len: items.len(),
            together: false,
            send: &|open| {
                let open = open.iter().map(|index| items[*index].clone());
                self.inner.get_batch(open.collect())
            },
        };
        let mut results = self.batch(operation, batch).await?;
        for ((key, options), result) in items.iter().zip(&mut results) {
            // A body that comes as a stream is read by itself, so that the hook around streams sees it.
            if matches!(result, Ok(Some(object)) if !object.body.is_in_memory()) {
                *result = self.get(key, options.clone()).await;
            }
        }
        Ok(results)
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let mut replay = Retryability::Always;
        let mut keys = BTreeSet::new();
        for (key, _, options) in &items {
            replay = replay.min(unless_conditional(&options.condition));
            keys.insert(key);
        }
        let repeats = keys.len() < items.len();
        if repeats && replay != Retryability::Always {
            replay = Retryability::Never;
        }
        let mut operation = self.operation(OperationName::PutBatch, None, replay);
        let items: Vec<_> = items
            .into_iter()
            .map(|(key, body, options)| (key, ReplayBody::new(body, &mut operation), options))
            .collect();
        if let Some(progress) = &operation.progress {
            // Those that are whole count as taken, so that the sum is that of all bodies.
            let whole: u64 = items.iter().map(|(_, body, _)| body.whole_len()).sum();
            progress.fetch_add(whole, Ordering::Relaxed);
        }
        let batch = Batch {
            len: items.len(),
            together: options.atomic || repeats,
            send: &|open| {
                let open = open.iter().map(|index| {
                    let (key, body, options) = &items[*index];
                    (key.clone(), body.take(), options.clone())
                });
                self.inner.put_batch(open.collect(), options.clone())
            },
        };
        self.batch(operation, batch).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let replays = items.iter().map(|(_, o)| unless_conditional(&o.condition));
        let replay = replays.min().unwrap_or(Retryability::Always);
        let operation = self.operation(OperationName::DeleteBatch, None, replay);
        let batch = Batch {
            len: items.len(),
            together: options.atomic,
            send: &|open| {
                let open = open.iter().map(|index| items[*index].clone());
                self.inner.delete_batch(open.collect(), options.clone())
            },
        };
        self.batch(operation, batch).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        let operation = self.operation(OperationName::Query, None, Retryability::Always);
        let call = || self.inner.query(query.clone());
        let (result, span) = self.intercept.call(operation, call).await;
        let (stream, inner) = (result?, self.inner.clone());
        let resume = ResumeQuery { inner, query };
        Ok(I::stream(&self.intercept, span, stream, resume))
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        let operation = self.operation(OperationName::Clear, None, Retryability::Always);
        let call = || self.inner.clear(prefix);
        self.intercept.call(operation, call).await.0
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let replay = unless_conditional(&options.condition);
        let operation = self.operation(OperationName::Copy, Some(from), replay);
        let call = || self.inner.copy(from, to, options.clone());
        self.intercept.call(operation, call).await.0
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let operation = self.operation(OperationName::Rename, Some(from), Retryability::IfDefinite);
        let call = || self.inner.rename(from, to, options.clone());
        self.intercept.call(operation, call).await.0
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        let operation = self.operation(OperationName::Versions, Some(key), Retryability::Always);
        let call = || self.inner.versions(key);
        let (result, span) = self.intercept.call(operation, call).await;
        let resume = ResumeVersions { inner: self.inner.clone(), key: key.clone(), last: None };
        Ok(I::stream(&self.intercept, span, result?, resume))
    }

    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        let operation = self.operation(OperationName::Presign, Some(key), Retryability::Always);
        let call = || self.inner.presign(key, options.clone());
        self.intercept.call(operation, call).await.0
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let operation = self.operation(OperationName::Begin, None, Retryability::Always);
        let call = || self.inner.begin();
        let transaction = self.intercept.call(operation, call).await.0?;
        let intercept = self.intercept.clone();
        Ok(Arc::new(Intercepted::wrap(transaction, intercept, true)))
    }

    async fn health(&self) -> Result<()> {
        self.intercept.health(self.inner.health()).await
    }

    async fn disconnect(&self) -> Result<()> {
        let operation = self.operation(OperationName::Disconnect, None, Retryability::Always);
        let call = || self.inner.disconnect();
        self.intercept.call(operation, call).await.0
    }
}

#[async_trait]
impl<S: Transaction + ?Sized, I: Intercept> Transaction for Intercepted<S, I> {
    async fn commit(&self) -> Result<()> {
        let operation = self.operation(OperationName::Commit, None, Retryability::Never);
        let call = || self.inner.commit();
        self.intercept.call(operation, call).await.0
    }

    async fn rollback(&self) -> Result<()> {
        let operation = self.operation(OperationName::Rollback, None, Retryability::Never);
        let call = || self.inner.rollback();
        self.intercept.call(operation, call).await.0
    }
}
