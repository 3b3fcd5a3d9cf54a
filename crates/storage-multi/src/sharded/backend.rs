//! The trait, by asking the store that has the key, or all.

use std::{future::Future, sync::Arc};

use futures_util::{
    FutureExt, StreamExt,
    future::{join_all, try_join_all},
};
use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions, Key,
    ListItem, ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query, RenameOptions,
    Result, StatOptions, StorageBackend, Transaction, async_trait, defaults,
};

use super::{Child, Sharded};
use crate::{names, streams};

/// Items of a batch for one store, and their places in the input.
type Share<I> = (Vec<usize>, Vec<(Key, I)>);

impl Sharded {
    fn home(&self, key: &Key) -> &Child {
        &self.0.children[self.0.placement.home(key.as_str())]
    }

    /// The entry as the caller sees it, unless others put it into this store, where it is not found by its key.
    fn at_home(&self, at: usize) -> impl Fn(Entry) -> Result<Option<Entry>> + Send + Sync + 'static {
        let inner = self.0.clone();
        move |entry| {
            let entry = inner.children[at].entry(entry)?;
            Ok((inner.placement.home(entry.key.as_str()) == at).then_some(entry))
        }
    }

    /// Hands each store its items in one call, all at once, and puts the results back into the order of the input.
    async fn batch<'a, I, T, Fut>(
        &'a self,
        items: Vec<(Key, I)>,
        call: impl Fn(&'a Child, Vec<(Key, I)>) -> Fut,
    ) -> Result<Vec<Result<T>>>
    where
        Fut: Future<Output = Result<Vec<Result<T>>>>,
    {
        let mut shares: Vec<Share<I>> = Vec::new();
        shares.resize_with(self.0.children.len(), Default::default);
        let count = items.len();
        for (number, (key, item)) in items.into_iter().enumerate() {
            let (numbers, share) = &mut shares[self.0.placement.home(key.as_str())];
            numbers.push(number);
            share.push((names::key_below(&key)?, item));
        }
        let calls = shares.into_iter().zip(&self.0.children).filter(|((numbers, _), _)| !numbers.is_empty());
        let calls = calls.map(|((numbers, share), child)| call(child, share).map(move |done| (child, numbers, done)));
        let mut results: Vec<Option<Result<T>>> = Vec::new();
        results.resize_with(count, || None);
        for (child, numbers, done) in join_all(calls).await {
            match done {
                Ok(done) => {
                    for (number, result) in numbers.into_iter().zip(done) {
                        results[number] = Some(result.map_err(|e| child.error(e)));
                    }
                }
                // The other stores have done theirs.
                Err(e) => {
                    let e = child.error(e);
                    numbers.into_iter().for_each(|number| results[number] = Some(Err(e.clone())));
                }
            }
        }
        let missing = || Err(Error::new(ErrorKind::Other, "a store answered a batch with too few results"));
        Ok(results.into_iter().map(|result| result.unwrap_or_else(missing)).collect())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for Sharded {
    fn info(&self) -> &BackendInfo {
        &self.0.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let (child, below) = (self.home(key), names::key_below(key)?);
        let Some(options) = child.reading(options) else {
            // A damaged value is told as such, whatever the etag.
            child.backend.stat(&below, StatOptions::new()).await.map_err(|e| child.error(e))?;
            return Err(Error::new(ErrorKind::PreconditionFailed, "the value has another etag, or there is none"));
        };
        let object = child.backend.get(&below, options).await.map_err(|e| child.error(e))?;
        object.map(|object| child.object(object)).transpose()
    }

    async fn put(&self, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let child = self.home(key);
        options.condition = child.condition(options.condition)?;
        let entry = child.backend.put(&names::key_below(key)?, body, options).await;
        child.entry(entry.map_err(|e| child.error(e))?)
    }

    async fn delete(&self, key: &Key, mut options: DeleteOptions) -> Result<()> {
        let child = self.home(key);
        options.condition = child.condition(options.condition)?;
        child.backend.delete(&names::key_below(key)?, options).await.map_err(|e| child.error(e))
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let child = self.home(key);
        let entry = child.backend.stat(&names::key_below(key)?, options).await.map_err(|e| child.error(e))?;
        entry.map(|entry| child.entry(entry)).transpose()
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let listings = self.0.children.iter().enumerate().map(|(at, child)| {
            let (options, each) = (&options, self.at_home(at));
            async move {
                let items = streams::list(child.backend.clone(), options, each).await;
                let name = child.name.clone();
                let items = items.map_err(|e| child.error(e))?;
                Ok(items.map(move |item| item.map_err(|e| crate::error::above(&name, e))).boxed())
            }
        });
        let listings: Vec<ListStream> = try_join_all(listings).await?;
        let merged = streams::merge(listings, |a: &ListItem, b| a.position().cmp(b.position()));
        Ok(merged.take(options.limit.unwrap_or(usize::MAX)).boxed())
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        if items.iter().any(|(_, options)| options.if_match.is_some() || options.if_none_match.is_some()) {
            return defaults::get_batch(self, items).await;
        }
        let call = |child: &'_ Child, share| {
            let child = child.clone();
            async move {
                let objects = child.backend.get_batch(share).await?;
                Ok(objects.into_iter().map(|object| object?.map(|object| child.object(object)).transpose()).collect())
            }
        };
        self.batch(items, call).await
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        if items.iter().any(|(.., options)| options.condition.is_some()) {
            return defaults::put_batch(self, items, options).await;
        }
        let call = |child: &'_ Child, share: Vec<(Key, (Body, PutOptions))>| {
            let child = child.clone();
            let share = share.into_iter().map(|(key, (body, options))| (key, body, options)).collect();
            async move {
                let entries = child.backend.put_batch(share, BatchOptions::new()).await?;
                Ok(entries.into_iter().map(|entry| child.entry(entry?)).collect())
            }
        };
        self.batch(items.into_iter().map(|(key, body, options)| (key, (body, options))).collect(), call).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        if items.iter().any(|(_, options)| options.condition.is_some()) {
            return defaults::delete_batch(self, items, options).await;
        }
        let call = |child: &'_ Child, share| {
            let child = child.clone();
            async move { child.backend.delete_batch(share, BatchOptions::new()).await }
        };
        self.batch(items, call).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        query.validate()?;
        let answers = self.0.children.iter().enumerate().map(|(at, child)| {
            let (query, each) = (&query, self.at_home(at));
            async move {
                let entries = streams::query(child.backend.clone(), query, each).await;
                let name = child.name.clone();
                let entries = entries.map_err(|e| child.error(e))?;
                Ok(entries.map(move |entry| entry.map_err(|e| crate::error::above(&name, e))).boxed())
            }
        });
        let answers: Vec<EntryStream> = try_join_all(answers).await?;
        let limit = query.limit.unwrap_or(usize::MAX);
        Ok(streams::merge(answers, move |a, b| query.compare(a, b)).take(limit).boxed())
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        if names::surrounds_our_own(prefix) {
            // The markers stay.
            return defaults::clear(self, prefix).await;
        }
        let prefix = names::below(prefix);
        let clears = self
            .0
            .children
            .iter()
            .map(|child| child.backend.clear(&prefix).map(|done| done.map_err(|e| child.error(e))));
        join_all(clears).await.into_iter().collect()
    }

    async fn copy(&self, from: &Key, to: &Key, mut options: CopyOptions) -> Result<Entry> {
        let (child, target) = (self.home(from), self.home(to));
        if child.name != target.name {
            return defaults::copy(self, from, to, options).await;
        }
        options.condition = child.condition(options.condition)?;
        let entry = child.backend.copy(&names::key_below(from)?, &names::key_below(to)?, options).await;
        child.entry(entry.map_err(|e| child.error(e))?)
    }

    async fn rename(&self, from: &Key, to: &Key, mut options: RenameOptions) -> Result<Entry> {
        let (child, target) = (self.home(from), self.home(to));
        if child.name != target.name {
            return defaults::rename(self, from, to, options).await;
        }
        options.condition = child.condition(options.condition)?;
        let entry = child.backend.rename(&names::key_below(from)?, &names::key_below(to)?, options).await;
        child.entry(entry.map_err(|e| child.error(e))?)
    }

    async fn versions(&self, _: &Key) -> Result<EntryStream> {
        Err(Error::unsupported("versions"))
    }

    async fn presign(&self, _: &Key, _: PresignOptions) -> Result<PresignedRequest> {
        Err(Error::unsupported("presigned requests"))
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        Err(Error::unsupported("transactions"))
    }

    async fn health(&self) -> Result<()> {
        let asked =
            self.0.children.iter().map(|child| child.backend.health().map(|done| done.map_err(|e| child.error(e))));
        join_all(asked).await.into_iter().collect()
    }

    async fn disconnect(&self) -> Result<()> {
        let ended =
            self.0.children.iter().map(|child| child.backend.disconnect().map(|done| done.map_err(|e| child.error(e))));
        join_all(ended).await.into_iter().collect()
    }
}
