//! Writing keys: content first, then records and counts in one transaction of the index.

use std::{
    collections::{HashMap, HashSet, btree_map},
    sync::Arc,
};

use cid::Cid;
use futures_util::{FutureExt, StreamExt, future::join, stream};
use storage_core::{
    BatchOptions, Body, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, PutOptions,
    RenameOptions, Result, StatOptions, pending::Keys,
};

use crate::{
    add::Added,
    change::{Applied, Before, Change, Changed, Value, apply, current, current_of, distinct, no_source, one, source},
    pinned::{Content, is_small},
    read, record,
    store::{Job, Outcome, Session, counted},
};

/// How often content is pinned again that was unpinned before it had a name.
const ATTEMPTS: usize = 20;
/// How many values of a batch are on their way to the node at once, and how many items are one transaction of the index.
const AT_ONCE: usize = 16;
const TOGETHER: usize = 500;

impl Session {
    pub(crate) async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.ready(self.keys([key])).await?;
        self.store.node()?;
        // What cannot succeed any more is not sent.
        let check = |current: Option<&Entry>| options.condition.as_ref().map_or(Ok(()), |c| c.check(current));
        let (mut content, mut before) = if options.source.is_none() && is_small(&body) {
            let content = self.receive(body, &options).await?;
            let before = self.before(key, &content.part.cid).await?;
            check(before.entries.first().and_then(Option::as_ref))?;
            (content, Some(before))
        } else {
            if options.condition.is_some() {
                check(self.find(key).await?.as_ref())?;
            }
            (self.receive(body, &options).await?, None)
        };
        for attempt in 0..ATTEMPTS {
            let cid = content.part.cid;
            let seen = before.as_ref().and_then(|before| before.counts.get(&cid).cloned());
            let ensured = self.ensure(&mut content, seen, attempt > 0);
            let (ensured, completed) = join(ensured, self.complete(before.take())).await;
            before = completed;
            if let Err(e) = ensured {
                self.discard(content);
                return Err(e);
            }
            let value = Value { part: content.part, pinned: content.pinned(), metadata: options.metadata.clone() };
            let change = Change { key: key.clone(), condition: options.condition.clone(), value: Some(value) };
            let changed = match self.open {
                Some(_) => self.apply(vec![change], false).await.map(|outcome| outcome.map(one)),
                None => self.store.commit(change, before.take()).await,
            };
            match changed {
                Ok(Ok(Ok(entry))) => {
                    if self.open.is_none() {
                        self.store.recent.insert(key.clone(), content.part);
                    }
                    self.keep(content);
                    return entry.ok_or_else(record::damaged);
                }
                Ok(Err(_)) => {}
                // What may have been named is left to a sweep of everything.
                Err(e) if e.is_ambiguous() => return Err(e),
                Ok(Ok(Err(e))) | Err(e) => {
                    self.discard(content);
                    return Err(e);
                }
            }
        }
        self.discard(content);
        Err(overtaken())
    }

    /// What there is of a key, and the count of the content that it is going to have.
    async fn before(&self, key: &Key, cid: &Cid) -> Result<Before> {
        let (view, names) = (self.view(), &self.store.names);
        let asked = [names.key(key)?, record::count_key(cid)?].map(|key| (key, GetOptions::new()));
        let read = view.get_batch(asked.into()).await.map_err(|e| self.store.own(e))?;
        let [entry, count]: [_; 2] = read.try_into().map_err(|_| record::damaged())?;
        let entry = current_of(key, names, entry).map_err(|e| self.store.own(e))?;
        let count = counted(count.map_err(|e| self.store.own(e))?).await?;
        Ok(Before { entries: vec![entry], counts: [(*cid, count)].into() })
    }

    /// Adds the count of the content that the key had. Without it, it is all read again later.
    async fn complete(&self, before: Option<Before>) -> Option<Before> {
        let mut before = before.filter(|_| self.open.is_none())?;
        let Some(Some(entry)) = before.entries.first() else { return Some(before) };
        let old = read::part(entry).ok()?.cid;
        if let btree_map::Entry::Vacant(count) = before.counts.entry(old) {
            count.insert(self.count(&old).await.ok()?);
        }
        Some(before)
    }

    pub(crate) async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        self.ready(self.keys(items.iter().map(|(key, ..)| key))).await?;
        self.store.node()?;
        let mut results = Vec::with_capacity(items.len());
        if !distinct(items.iter().map(|(key, ..)| key)) {
            for (key, body, options) in items {
                results.push(self.put(&key, body, options).await.map_err(|e| e.with_key(&key)));
            }
            return self.whole(results, options);
        }
        if options.atomic {
            let results = self.put_together(items, true).await;
            return Ok(results.into_iter().collect::<Result<Vec<_>>>()?.into_iter().map(Ok).collect());
        }
        let mut items = items.into_iter();
        loop {
            let some: Vec<_> = items.by_ref().take(TOGETHER).collect();
            if some.is_empty() {
                return self.whole(results, options);
            }
            results.extend(self.put_together(some, false).await);
        }
    }

    /// The results of a batch that is a part of a transaction. Of an atomic one that failed, the transaction can only forget what it wrote;
    /// and what ends the transaction is no item's own failure.
    fn whole<T>(&self, results: Vec<Result<T>>, options: BatchOptions) -> Result<Vec<Result<T>>> {
        if !options.atomic {
            let ends = |e: &Error| e.is_retryable() || e.kind() == ErrorKind::Closed;
            let ended = results.iter().filter_map(|result| result.as_ref().err()).find(|e| ends(e));
            return match ended.filter(|_| self.open.is_some()) {
                Some(e) => Err(e.clone()),
                None => Ok(results),
            };
        }
        let all = results.into_iter().collect::<Result<Vec<T>>>();
        if let (Err(_), Some(open)) = (&all, &self.open) {
            open.doom();
        }
        Ok(all?.into_iter().map(Ok).collect())
    }

    /// Items of different keys: on their way to the node several at once, then named in one transaction.
    async fn put_together(&self, items: Vec<(Key, Body, PutOptions)>, atomic: bool) -> Vec<Result<Entry>> {
        let receive = |(key, body, options): (Key, Body, PutOptions)| async move {
            let content = self.receive(body, &options).await;
            (key, options, content)
        };
        let received: Vec<_> = stream::iter(items).map(receive).buffered(AT_ONCE).collect().await;
        let mut results: Vec<Option<Result<Entry>>> = received.iter().map(|_| None).collect();
        let mut ready: Vec<(usize, Key, PutOptions, Content)> = Vec::new();
        // Of equal values only the first is sent.
        let (mut first, mut equal) = (HashSet::new(), Vec::new());
        for (at, (key, options, content)) in received.into_iter().enumerate() {
            match content {
                Ok(content) if first.insert(content.part.cid) => ready.push((at, key, options, content)),
                Ok(content) => equal.push((at, key, options, content)),
                Err(e) => results[at] = Some(Err(e.with_key(&key))),
            }
        }
        let ensure = |(at, key, options, mut content): (usize, Key, PutOptions, Content)| async move {
            let ensured = self.ensure(&mut content, None, false).await;
            (at, key, options, content, ensured)
        };
        let ensured: Vec<_> = stream::iter(ready).map(ensure).buffered(AT_ONCE).collect().await;
        let mut ready = Vec::with_capacity(results.len());
        let mut pinned = HashMap::new();
        for (at, key, options, content, ensured) in ensured {
            pinned.insert(content.part.cid, ensured.clone().map(|()| content.pinned()));
            match ensured {
                Ok(()) => ready.push((at, key, options, content)),
                Err(e) => {
                    self.discard(content);
                    results[at] = Some(Err(e.with_key(&key)));
                }
            }
        }
        for (at, key, options, mut content) in equal {
            match pinned.get(&content.part.cid) {
                Some(Ok(pinned)) => {
                    content.pinned_with(pinned.clone());
                    ready.push((at, key, options, content));
                }
                Some(Err(e)) => {
                    self.discard(content);
                    results[at] = Some(Err(e.clone().with_key(&key)));
                }
                None => results[at] = Some(Err(record::damaged())),
            }
        }
        let failed = |results: &[Option<Result<Entry>>]| {
            results.iter().flatten().find_map(|result| result.as_ref().err().cloned())
        };
        for _ in 0..ATTEMPTS {
            if ready.is_empty() {
                break;
            }
            if let Some(e) = failed(&results).filter(|_| atomic) {
                // All or none.
                for (at, _, _, content) in ready.drain(..) {
                    self.discard(content);
                    results[at] = Some(Err(e.clone()));
                }
                break;
            }
            let change = |(_, key, options, content): &(usize, Key, PutOptions, Content)| {
                let value = Value { part: content.part, pinned: content.pinned(), metadata: options.metadata.clone() };
                Change { key: key.clone(), condition: options.condition.clone(), value: Some(value) }
            };
            match self.apply(ready.iter().map(change).collect(), atomic).await {
                Ok(Ok(changed)) => {
                    for ((at, key, _, content), changed) in ready.drain(..).zip(changed) {
                        match &changed {
                            Ok(_) => self.keep(content),
                            Err(_) => self.discard(content),
                        }
                        let entry = changed.and_then(|entry| entry.ok_or_else(record::damaged));
                        results[at] = Some(entry.map_err(|e| e.with_key(&key)));
                    }
                }
                Ok(Err(cid)) => {
                    let unpinned = ready.iter_mut().filter(|(.., content)| content.part.cid == cid);
                    let mut failed = None;
                    for (.., content) in unpinned {
                        if let Err(e) = self.ensure(content, None, true).await {
                            failed = Some(e);
                        }
                    }
                    if let Some(e) = failed {
                        let (gone, left) = ready.into_iter().partition(|(.., content)| content.part.cid == cid);
                        ready = left;
                        let gone: Vec<(usize, Key, PutOptions, Content)> = gone;
                        for (at, key, _, content) in gone {
                            self.discard(content);
                            results[at] = Some(Err(e.clone().with_key(&key)));
                        }
                    }
                }
                Err(e) => {
                    for (at, key, _, content) in ready.drain(..) {
                        if !e.is_ambiguous() {
                            self.discard(content);
                        }
                        results[at] = Some(Err(e.clone().with_key(&key)));
                    }
                }
            }
        }
        for (at, key, _, content) in ready {
            self.discard(content);
            results[at] = Some(Err(overtaken().with_key(&key)));
        }
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(overtaken()))).collect()
    }

    pub(crate) async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let deleted = self.delete_batch(vec![(key.clone(), options)], BatchOptions::new()).await?;
        deleted.into_iter().collect()
    }

    pub(crate) async fn delete_batch(
        &self,
        items: Vec<(Key, DeleteOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<()>>> {
        self.ready(self.keys(items.iter().map(|(key, _)| key))).await?;
        self.store.node()?;
        let distinct = distinct(items.iter().map(|(key, _)| key));
        let mut results = Vec::with_capacity(items.len());
        let together = match (distinct, options.atomic) {
            (true, true) => items.len().max(1),
            (true, false) => TOGETHER,
            (false, _) => 1,
        };
        for some in items.chunks(together) {
            let change = |(key, options): &(Key, DeleteOptions)| Change {
                key: key.clone(),
                condition: options.condition.clone(),
                value: None,
            };
            // Nothing is named, so that nothing must be pinned.
            let changed = self.apply(some.iter().map(change).collect(), options.atomic && distinct).await?;
            let changed = changed.map_err(|_| overtaken())?.into_iter().zip(some);
            results.extend(changed.map(|(changed, (key, _))| changed.map(drop).map_err(|e| e.with_key(key))));
        }
        self.whole(results, options)
    }

    pub(crate) async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        self.ready(self.keys([from, to])).await?;
        self.store.node()?;
        if from == to && options == CopyOptions::new() {
            return self.stat(from, StatOptions::new()).await?.ok_or_else(|| no_source(from));
        }
        let (names, keys) = (self.store.names.clone(), (from.clone(), to.clone()));
        let job: Job<(Changed, Vec<Cid>)> = Box::new(move |view| {
            let (names, (from, to), options) = (names.clone(), keys.clone(), options.clone());
            async move {
                let source = source(&*view, &names, &from).await?;
                let metadata = options.metadata.clone().or(source.metadata.clone());
                let value = Value { part: read::part(&source)?, pinned: None, metadata };
                let change = Change { key: to.clone(), condition: options.condition.clone(), value: Some(value) };
                let (changed, queued) = apply(&*view, &names, &[change], false).await?;
                Ok((one(changed).map_err(|e| e.with_key(&to)), queued))
            }
            .boxed()
        });
        self.moved(to, Keys::from(to), job).await
    }

    pub(crate) async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        self.ready(self.keys([from, to])).await?;
        self.store.node()?;
        if from == to {
            let entry = self.stat(from, StatOptions::new()).await?.ok_or_else(|| no_source(from))?;
            return options.condition.map_or(Ok(()), |condition| condition.check(Some(&entry))).map(|()| entry);
        }
        let (names, keys) = (self.store.names.clone(), (from.clone(), to.clone()));
        let job: Job<(Changed, Vec<Cid>)> = Box::new(move |view| {
            let (names, (from, to), options) = (names.clone(), keys.clone(), options.clone());
            async move {
                let source = source(&*view, &names, &from).await?;
                if let Some(condition) = &options.condition
                    && let Err(e) = condition.check(current(&*view, &names, &to).await?.as_ref())
                {
                    return Ok((Err(e.with_key(&to)), Vec::new()));
                }
                let value = Value { part: read::part(&source)?, pinned: None, metadata: source.metadata.clone() };
                let put = Change { key: to.clone(), condition: None, value: Some(value) };
                let delete = Change { key: from, condition: None, value: None };
                let (changed, queued) = apply(&*view, &names, &[put, delete], false).await?;
                Ok((one(changed), queued))
            }
            .boxed()
        });
        self.moved(to, Keys::from(vec![from.clone(), to.clone()]), job).await
    }

    async fn moved(&self, to: &Key, keys: Keys, job: Job<(Changed, Vec<Cid>)>) -> Result<Entry> {
        let (changed, queued) = self.change(keys, job).await?.map_err(|_| overtaken())?;
        self.note(queued);
        let entry = changed?.ok_or_else(record::damaged)?;
        debug_assert_eq!(&entry.key, to);
        Ok(entry)
    }

    /// Makes these changes, of different keys, in one transaction of the index.
    async fn apply(&self, changes: Vec<Change>, atomic: bool) -> Result<Outcome<Vec<Changed>>> {
        let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
        let (names, changes) = (self.store.names.clone(), Arc::new(changes));
        let job: Job<Applied> = Box::new(move |view| {
            let (names, changes) = (names.clone(), changes.clone());
            async move { apply(&*view, &names, &changes, atomic).await }.boxed()
        });
        Ok(self.change(Keys::from(keys), job).await?.map(|(changed, queued)| {
            self.note(queued);
            changed
        }))
    }

    /// After content was named. Within a transaction it may lose its name yet.
    fn keep(&self, content: Content) {
        if let Some(open) = &self.open {
            open.wrote(Added { cid: content.part.cid, pin: content.pin() });
        }
        content.named();
    }

    /// Tells the sweep of content that has lost its last key.
    fn note(&self, queued: Vec<Cid>) {
        match &self.open {
            Some(open) => open.note(queued),
            None => self.store.sweeper.queued(queued),
        }
    }
}

fn overtaken() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "write conflict: the content was unpinned again and again before it had a name; try again",
    )
}
