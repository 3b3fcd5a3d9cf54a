//! The trait, by asking the store that has the key, or all.

use std::{future::Future, sync::Arc};

use futures_util::{FutureExt, future::join_all};
use storage_core::{
    BackendInfo, BatchOptions, Body, Condition, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind,
    GetOptions, Key, ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query,
    RenameOptions, Result, StatOptions, StorageBackend, Transaction, async_trait, defaults,
};

use super::{
    Child, Inner, Sharded,
    between::{Between, written_by_others},
    view::{Held, Place, View},
};
use crate::names;

/// How often a call is begun again when the layout changes meanwhile.
const ROUNDS: usize = 8;
/// Items of a batch for one store, and their places in the input.
type Share<I> = (Vec<usize>, Vec<(Key, I)>);

impl Inner {
    fn between<'a>(&'a self, old: usize, new: usize, key: &'a Key) -> Between<'a> {
        Between { inner: self, old: &self.children[old], new: &self.children[new], key }
    }

    async fn get(&self, view: &View, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        match view.place(key.as_str()) {
            Place::At(at) => self.children[at].get(&names::key_below(key)?, options).await,
            Place::Between { old, new } => self.between(old, new, key).get(&options).await,
        }
    }

    async fn stat(&self, view: &View, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        match view.place(key.as_str()) {
            Place::At(at) => {
                let child = &self.children[at];
                let entry = child.backend.stat(&names::key_below(key)?, options).await.map_err(|e| child.error(e))?;
                entry.map(|entry| child.entry(entry)).transpose()
            }
            Place::Between { old, new } => self.between(old, new, key).stat().await,
        }
    }

    /// Writes a value. Answers in which store it is.
    async fn put(&self, view: &View, key: &Key, body: Body, mut options: PutOptions) -> Result<(usize, Entry)> {
        match view.place(key.as_str()) {
            Place::At(at) => {
                let child = &self.children[at];
                options.condition = child.condition(options.condition)?;
                let entry = child.backend.put(&names::key_below(key)?, body, options).await;
                Ok((at, child.entry(entry.map_err(|e| child.error(e))?)?))
            }
            Place::Between { old, new } => Ok((new, self.between(old, new, key).put(body, options).await?)),
        }
    }

    async fn delete(&self, view: &View, key: &Key, mut options: DeleteOptions) -> Result<()> {
        match view.place(key.as_str()) {
            Place::At(at) => {
                let child = &self.children[at];
                options.condition = child.condition(options.condition)?;
                child.backend.delete(&names::key_below(key)?, options).await.map_err(|e| child.error(e))
            }
            Place::Between { old, new } => {
                let etag = match &options.condition {
                    Some(Condition::IfMatch(etag)) => Some(etag),
                    _ => None,
                };
                self.between(old, new, key).delete(etag).await
            }
        }
    }

    /// Whether what was written under that view is the value of the key now.
    async fn is_kept(&self, held: &Held, key: &Key, written: usize) -> Result<bool> {
        if self.held(held).await? {
            return Ok(true);
        }
        let child = &self.children[written];
        if !self.kept(held, key.as_str(), written).await? {
            return Ok(false);
        }
        if child.backend.info().capabilities.conditional_delete {
            return Ok(true);
        }
        // It may have been taken for a claim that was there before it.
        let there =
            child.backend.stat(&names::key_below(key)?, StatOptions::new()).await.map_err(|e| child.error(e))?;
        Ok(there.is_some())
    }
}

/// A write that ended in a layout that is no more.
fn laid_out_anew() -> Error {
    let what = "the values were laid out anew while it was written, and it may be lost; look whether it is there";
    Error::new(ErrorKind::Conflict, what).ambiguous()
}

impl Sharded {
    /// Hands each store its items in one call, all at once, and puts the results back into the order of the input.
    async fn batch<'a, I, T, Fut>(
        &'a self,
        view: &View,
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
            let (Place::At(at) | Place::Between { new: at, .. }) = view.place(key.as_str());
            let (numbers, share) = &mut shares[at];
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
        for _ in 0..ROUNDS {
            let held = self.0.view().await?;
            let found = self.0.get(&held.view, key, options.clone()).await;
            if self.0.held(&held).await? {
                return found;
            }
        }
        Err(written_by_others())
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let again = if options.condition.is_none() { body.try_clone() } else { None };
        let mut body = Some(body);
        for _ in 0..ROUNDS {
            let held = self.0.writable(key.as_str()).await?;
            let Some(value) = body.take() else { break };
            let (written, entry) = self.0.put(&held.view, key, value, options.clone()).await?;
            if self.0.is_kept(&held, key, written).await.map_err(Error::ambiguous)? {
                return Ok(entry);
            }
            body = again.as_ref().and_then(Body::try_clone);
        }
        Err(laid_out_anew())
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        for _ in 0..ROUNDS {
            let held = self.0.writable(key.as_str()).await?;
            self.0.delete(&held.view, key, options.clone()).await?;
            let (Place::At(at) | Place::Between { new: at, .. }) = held.view.place(key.as_str());
            if self.0.kept(&held, key.as_str(), at).await.map_err(Error::ambiguous)? {
                return Ok(());
            }
            if options.condition.is_some() {
                break;
            }
        }
        Err(laid_out_anew())
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        for _ in 0..ROUNDS {
            let held = self.0.view().await?;
            let found = self.0.stat(&held.view, key, options.clone()).await;
            if self.0.held(&held).await? {
                return found;
            }
        }
        Err(written_by_others())
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.listing(options).await
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        if items.iter().any(|(_, options)| options.if_match.is_some() || options.if_none_match.is_some()) {
            return defaults::get_batch(self, items).await;
        }
        let held = self.0.view().await?;
        if held.view.is_moving() {
            return defaults::get_batch(self, items).await;
        }
        let again = items.clone();
        let call = |child: &'_ Child, share| {
            let child = child.clone();
            async move {
                let objects = child.backend.get_batch(share).await?;
                Ok(objects.into_iter().map(|object| object?.map(|object| child.object(object)).transpose()).collect())
            }
        };
        let found = self.batch(&held.view, items, call).await?;
        if self.0.held(&held).await? { Ok(found) } else { defaults::get_batch(self, again).await }
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        if items.iter().any(|(.., options)| options.condition.is_some()) {
            return defaults::put_batch(self, items, options).await;
        }
        let held = self.0.view().await?;
        if held.view.is_moving() {
            return defaults::put_batch(self, items, options).await;
        }
        let keys: Vec<Key> = items.iter().map(|(key, ..)| key.clone()).collect();
        let call = |child: &'_ Child, share: Vec<(Key, (Body, PutOptions))>| {
            let child = child.clone();
            let share = share.into_iter().map(|(key, (body, options))| (key, body, options)).collect();
            async move {
                let entries = child.backend.put_batch(share, BatchOptions::new()).await?;
                Ok(entries.into_iter().map(|entry| child.entry(entry?)).collect())
            }
        };
        let items = items.into_iter().map(|(key, body, options)| (key, (body, options))).collect();
        let mut written = self.batch(&held.view, items, call).await?;
        if !self.0.held(&held).await.map_err(Error::ambiguous)? {
            for (key, entry) in keys.iter().zip(&mut written) {
                let Place::At(at) = held.view.place(key.as_str()) else { continue };
                if entry.is_ok() && !self.0.kept(&held, key.as_str(), at).await.map_err(Error::ambiguous)? {
                    *entry = Err(laid_out_anew().with_key(key));
                }
            }
        }
        Ok(written)
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        if items.iter().any(|(_, options)| options.condition.is_some()) {
            return defaults::delete_batch(self, items, options).await;
        }
        let held = self.0.view().await?;
        if held.view.is_moving() {
            return defaults::delete_batch(self, items, options).await;
        }
        let again = items.clone();
        let call = |child: &'_ Child, share| {
            let child = child.clone();
            async move { child.backend.delete_batch(share, BatchOptions::new()).await }
        };
        let deleted = self.batch(&held.view, items, call).await?;
        if self.0.held(&held).await.map_err(Error::ambiguous)? {
            return Ok(deleted);
        }
        defaults::delete_batch(self, again, options).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        query.validate()?;
        self.answer(query).await
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        let held = self.0.view().await?;
        if names::surrounds_our_own(prefix) || held.view.is_moving() {
            // The markers stay.
            return defaults::clear(self, prefix).await;
        }
        let below = names::below(prefix);
        let clears = self
            .0
            .children
            .iter()
            .map(|child| child.backend.clear(&below).map(|done| done.map_err(|e| child.error(e))));
        join_all(clears).await.into_iter().collect::<Result<()>>()?;
        if self.0.held(&held).await.map_err(Error::ambiguous)? {
            return Ok(());
        }
        defaults::clear(self, prefix).await
    }

    async fn copy(&self, from: &Key, to: &Key, mut options: CopyOptions) -> Result<Entry> {
        let held = self.0.view().await?;
        let (Place::At(at), Place::At(target)) = (held.view.place(from.as_str()), held.view.place(to.as_str())) else {
            return defaults::copy(self, from, to, options).await;
        };
        if at != target {
            return defaults::copy(self, from, to, options).await;
        }
        let child = &self.0.children[at];
        options.condition = child.condition(options.condition)?;
        let entry = child.backend.copy(&names::key_below(from)?, &names::key_below(to)?, options).await;
        let entry = child.entry(entry.map_err(|e| child.error(e))?)?;
        let kept =
            async { Ok(self.0.kept(&held, from.as_str(), at).await? && self.0.kept(&held, to.as_str(), at).await?) };
        if kept.await.map_err(Error::ambiguous)? { Ok(entry) } else { Err(laid_out_anew()) }
    }

    async fn rename(&self, from: &Key, to: &Key, mut options: RenameOptions) -> Result<Entry> {
        let held = self.0.view().await?;
        let (Place::At(at), Place::At(target)) = (held.view.place(from.as_str()), held.view.place(to.as_str())) else {
            return defaults::rename(self, from, to, options).await;
        };
        if at != target {
            return defaults::rename(self, from, to, options).await;
        }
        let child = &self.0.children[at];
        options.condition = child.condition(options.condition)?;
        let entry = child.backend.rename(&names::key_below(from)?, &names::key_below(to)?, options).await;
        let entry = child.entry(entry.map_err(|e| child.error(e))?)?;
        let kept =
            async { Ok(self.0.kept(&held, from.as_str(), at).await? && self.0.kept(&held, to.as_str(), at).await?) };
        if kept.await.map_err(Error::ambiguous)? { Ok(entry) } else { Err(laid_out_anew()) }
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
