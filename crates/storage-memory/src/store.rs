//! The data and its rules, without locks and without waiting: versions of values under ordered keys.
//!
//! A clone is a snapshot: it takes constant time and shares everything with the original until one of the two changes.

mod chain;
mod stamp;

use std::{num::NonZeroUsize, ops::Bound, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};
use storage_config::Clock;
use storage_core::{
    Buffer, Condition, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions, Key, Object, PutOptions,
    RenameOptions, Result, VersionId,
};

pub(crate) use chain::{Chain, Version};
use stamp::{Ticker, unique_token};

/// All chains, in the order of their keys.
pub(crate) type Chains = OrdMap<Key, Chain>;

#[derive(Clone)]
pub(crate) struct Store {
    chains: Chains,
    /// The hidden keys, in the order of their deletions.
    deleted: OrdMap<u64, Key>,
    deletions: u64,
    max_versions: NonZeroUsize,
    max_deleted: usize,
    ticker: Arc<Ticker>,
}

impl Store {
    pub(crate) fn new(max_versions: NonZeroUsize, max_deleted: usize, clock: Arc<dyn Clock>) -> Self {
        let (chains, deleted, ticker) = (Chains::new(), OrdMap::new(), Arc::new(Ticker::new(clock)));
        Self { chains, deleted, deletions: 0, max_versions, max_deleted, ticker }
    }

    /// A copy for a transaction. It forgets no deleted keys: they are none that the transaction has touched, and others may have
    /// written them by the time that it is merged.
    pub(crate) fn for_transaction(&self) -> Self {
        Self { max_deleted: usize::MAX, ..self.clone() }
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
                value.slice(range)
            }
        };
        Ok(Some(Object::new(entry.clone(), value)))
    }

    pub(crate) fn put(&mut self, key: &Key, value: Buffer, options: PutOptions) -> Result<Entry> {
        let mut chain = self.chains.get_mut(key);
        let current = chain.as_ref().and_then(|chain| chain.current());
        require(options.condition, current)?;
        let now = self.ticker.now();
        let token = unique_token();
        let mut entry = Entry::new(key.clone(), value.len());
        entry.modified = Some(now);
        entry.created = current.map_or(Some(now), |version| version.entry.created);
        entry.etag = Some(Etag::new(token.clone()));
        entry.version = Some(VersionId::new(token));
        entry.metadata = Some(options.metadata.unwrap_or_default());
        let version = Arc::new(Version { entry: entry.clone(), value });
        match &mut chain {
            Some(chain) => {
                if let Some(deletion) = chain.hidden() {
                    self.deleted.remove(&deletion);
                }
                chain.push(version, self.max_versions);
            }
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
            return Err(Error::new(
                ErrorKind::Conflict,
                "write conflict: another transaction committed first; retry the transaction",
            )
            .with_key(key));
        }
        for key in ours {
            self.remove(key);
            if let Some(chain) = mine.chains.get(key) {
                let is_hidden = chain.hidden().is_some();
                self.chains.insert(key.clone(), chain.clone());
                if is_hidden {
                    // Deletions are counted anew, for others have deleted keys since.
                    self.hide(key);
                }
            }
        }
        Ok(())
    }

    /// Leaves a key without a value. Its versions stay, if the store keeps more than one and not too many such keys.
    fn hide(&mut self, key: &Key) {
        if self.max_versions.get() == 1 {
            self.remove(key);
            return;
        }
        let Some(chain) = self.chains.get_mut(key) else { return };
        chain.hide(self.deletions);
        self.deleted.insert(self.deletions, key.clone());
        self.deletions += 1;
        while self.deleted.len() > self.max_deleted {
            let Some((_, oldest)) = self.deleted.get_min().cloned() else { break };
            self.remove(&oldest);
        }
    }

    fn forget(&mut self, key: &Key, version: &VersionId) {
        let is_value = self.find(key, None).is_some_and(|current| current.is(version));
        let Some(chain) = self.chains.get_mut(key) else { return };
        chain.forget(version);
        if chain.is_empty() {
            self.remove(key);
        } else if is_value {
            // No older value comes back by itself.
            self.hide(key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(deletion) = self.chains.remove(key).and_then(|chain| chain.hidden()) {
            self.deleted.remove(&deletion);
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

#[cfg(test)]
mod tests {
    use storage_config::SystemClock;

    use super::*;

    fn store(max_versions: usize, max_deleted: usize) -> Store {
        Store::new(NonZeroUsize::new(max_versions).unwrap(), max_deleted, Arc::new(SystemClock))
    }

    fn key(i: usize) -> Key {
        Key::parse(&format!("{i:06}")).unwrap()
    }

    fn put(store: &mut Store, i: usize) {
        store.put(&key(i), Buffer::default(), PutOptions::new()).unwrap();
    }

    /// Chains, and of these the hidden ones.
    fn counted(store: &Store) -> (usize, usize) {
        (store.chains.len(), store.deleted.len())
    }

    #[test]
    fn a_store_of_one_version_keeps_nothing_of_a_deleted_key() {
        let mut store = store(1, 10);
        for i in 0..1000 {
            put(&mut store, i);
            match i % 3 {
                0 => store.delete(&key(i), DeleteOptions::new()).unwrap(),
                1 => store.clear(key(i).as_str()),
                _ => drop(store.rename(&key(i), &key(0), RenameOptions::new()).unwrap()),
            }
        }
        assert_eq!(counted(&store), (1, 0));
    }

    #[test]
    fn of_many_deleted_keys_the_first_are_forgotten() {
        let mut store = store(3, 10);
        for i in 0..100 {
            put(&mut store, i);
            store.delete(&key(i), DeleteOptions::new()).unwrap();
        }
        assert_eq!(counted(&store), (10, 10));
        assert!(store.chains.contains_key(&key(90)) && !store.chains.contains_key(&key(89)));
        // One that is there again is none of them, and one deleted again is the latest.
        put(&mut store, 90);
        assert_eq!(counted(&store), (10, 9));
        store.delete(&key(90), DeleteOptions::new()).unwrap();
        for i in 200..300 {
            put(&mut store, i);
        }
        store.clear("0002");
        assert_eq!(counted(&store), (10, 10));
        let version = store.chains[&key(299)].newest_first().next().unwrap().entry.version.clone().unwrap();
        let mut options = DeleteOptions::new();
        options.version = Some(version);
        store.delete(&key(299), options).unwrap();
        assert_eq!(counted(&store), (9, 9), "its only version was deleted");
    }

    #[test]
    fn a_transaction_forgets_nothing_that_others_wrote_meanwhile() {
        let mut store = store(3, 2);
        for i in 0..2 {
            put(&mut store, i);
            store.delete(&key(i), DeleteOptions::new()).unwrap();
        }
        let base = store.clone();
        let mut mine = base.for_transaction();
        for i in 10..20 {
            put(&mut mine, i);
            mine.delete(&key(i), DeleteOptions::new()).unwrap();
        }
        put(&mut store, 0);
        store.merge(&base, &mine, |key| key.as_str() >= "000010").unwrap();
        assert!(store.find(&key(0), None).is_some(), "it was written while the transaction ran");
        assert_eq!(counted(&store), (3, 2));
    }
}
