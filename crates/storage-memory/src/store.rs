//! The data and its rules, without locks and without waiting: versions of values under ordered keys.
//!
//! A clone is a snapshot: it takes constant time and shares everything with the original until one of the two changes.

mod chain;
mod stamp;

use std::{num::NonZeroUsize, ops::Bound, sync::Arc};

use bytes::Bytes;
use imbl::{OrdMap, ordmap::DiffItem};
use storage_core::{
    Clock, Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions, Key, Object, PutOptions,
    RenameOptions, Result, VersionId,
};

pub(crate) use chain::{Chain, Version};
use stamp::{Ticker, unique_token};

/// All chains, in the order of their keys.
pub(crate) type Chains = OrdMap<Key, Chain>;

#[derive(Clone)]
pub(crate) struct Store {
    chains: Chains,
    max_versions: NonZeroUsize,
    ticker: Arc<Ticker>,
}

impl Store {
    pub(crate) fn new(max_versions: NonZeroUsize, clock: Arc<dyn Clock>) -> Self {
        Self { chains: Chains::new(), max_versions, ticker: Arc::new(Ticker::new(clock)) }
    }

    pub(crate) fn chains(&self) -> &Chains {
        &self.chains
    }

    /// The version named, or the current value.
    pub(crate) fn find(&self, key: &Key, version: Option<&VersionId>) -> Option<&Version> {
        let chain = self.chains.get(key)?;
        match version {
            None => chain.current(),
            Some(version) => chain.newest_first().find(|v| v.is(version)),
        }
    }

    pub(crate) fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Object>> {
        let found = self.find(key, options.version.as_ref());
        options.check_current(found.map(|version| &version.entry))?;
        let Some(Version { entry, value }) = found else {
            return Ok(None);
        };
        let value = match options.range {
            None => value.clone(),
            Some(range) => {
                let range = range.resolve(entry.size)?;
                value.slice(range.start as usize..range.end as usize)
            }
        };
        Ok(Some(Object::new(entry.clone(), value)))
    }

    pub(crate) fn put(&mut self, key: &Key, value: Bytes, options: PutOptions) -> Result<Entry> {
        let current = self.find(key, None);
        require(options.condition, current)?;
        let now = self.ticker.now();
        let token = unique_token();
        let mut entry = Entry::new(key.clone(), value.len() as u64);
        entry.modified = Some(now);
        entry.created = current.map_or(Some(now), |version| version.entry.created);
        entry.etag = Some(Etag::new(token.clone()));
        entry.version = Some(VersionId::new(token));
        entry.metadata = Some(options.metadata.unwrap_or_default());
        let version = Arc::new(Version { entry: entry.clone(), value });
        match self.chains.get_mut(key) {
            Some(chain) => chain.push(version, self.max_versions),
            None => {
                self.chains.insert(key.clone(), Chain::new(version));
            }
        }
        Ok(entry)
    }

    pub(crate) fn delete(&mut self, key: &Key, options: DeleteOptions) -> Result<()> {
        let current = self.find(key, None);
        require(options.condition, current)?;
        match options.version {
            None if current.is_some() => self.hide(key),
            Some(version) if self.find(key, Some(&version)).is_some() => {
                self.forget(key, &version);
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self, prefix: &str) {
        let keys: Vec<Key> = self
            .chains
            .range::<_, str>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter(|(_, chain)| chain.current().is_some())
            .map(|(key, _)| key.clone())
            .collect();
        for key in &keys {
            self.hide(key);
        }
    }

    pub(crate) fn copy(&mut self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let nothing_to_do = from == to && options == CopyOptions::new();
        let source = self.find(from, options.version.as_ref());
        let Version { entry, value } = source.ok_or_else(|| no_source(from))?.clone();
        if nothing_to_do {
            return Ok(entry);
        }
        let mut write = PutOptions::new();
        write.metadata = options.metadata.or(entry.metadata);
        write.condition = options.condition;
        self.put(to, value, write)
    }

    pub(crate) fn rename(&mut self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        if from == to {
            let source = self.find(from, None).ok_or_else(|| no_source(from))?;
            require(options.condition, Some(source))?;
            return Ok(source.entry.clone());
        }
        let mut copy = CopyOptions::new();
        copy.condition = options.condition;
        let entry = self.copy(from, to, copy)?;
        self.hide(from);
        Ok(entry)
    }

    /// Applies something to every item; with `atomic` to all or none.
    pub(crate) fn batch<I, T>(
        &mut self,
        items: Vec<(Key, I)>,
        atomic: bool,
        apply: impl Fn(&mut Self, &Key, I) -> Result<T>,
    ) -> Result<Vec<Result<T>>> {
        if !atomic {
            let done = items.into_iter().map(|(key, item)| apply(self, &key, item));
            return Ok(done.collect());
        }
        let mut next = self.clone();
        let mut done = Vec::with_capacity(items.len());
        for (key, item) in items {
            let result = apply(&mut next, &key, item).map_err(|e| e.with_key(&key))?;
            done.push(Ok(result));
        }
        *self = next;
        Ok(done)
    }

    /// Takes over what `mine` changed since `base`, unless others changed something `touched` since then.
    ///
    /// Whoever changed nothing has seen one moment of the store and meets no conflict.
    pub(crate) fn merge(&mut self, base: &Self, mine: &Self, touched: impl Fn(&Key) -> bool) -> Result<()> {
        let mut ours = changes(&base.chains, &mine.chains).peekable();
        if ours.peek().is_none() {
            return Ok(());
        }
        if let Some(key) = changes(&base.chains, &self.chains).find(|key| touched(key)) {
            return Err(
                Error::new(ErrorKind::Conflict, "another writer was faster; run the transaction again").with_key(key)
            );
        }
        for key in ours {
            match mine.chains.get(key) {
                Some(chain) => self.chains.insert(key.clone(), chain.clone()),
                None => self.chains.remove(key),
            };
        }
        Ok(())
    }

    fn hide(&mut self, key: &Key) {
        if let Some(chain) = self.chains.get_mut(key) {
            chain.hide();
        }
    }

    fn forget(&mut self, key: &Key, version: &VersionId) {
        if let Some(chain) = self.chains.get_mut(key) {
            chain.forget(version);
            if chain.is_empty() {
                self.chains.remove(key);
            }
        }
    }
}

/// The keys whose chains differ.
fn changes<'a>(before: &'a Chains, after: &'a Chains) -> impl Iterator<Item = &'a Key> {
    before.diff(after).map(|item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    })
}

fn require(condition: Option<Condition>, current: Option<&Version>) -> Result<()> {
    condition.map_or(Ok(()), |condition| condition.check(current.map(|version| &version.entry)))
}

fn no_source(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "the source does not exist").with_key(key)
}
