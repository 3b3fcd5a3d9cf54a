//! Serializable transactions: a private copy of the store, checked and merged at commit.
//!
//! A transaction remembers every key it read or wrote and every prefix it listed. At commit it meets a conflict if anybody
//! else changed one of them since it began; otherwise it might as well have run at that very moment, as a whole.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions, Key,
    ListOptions, ListStream, Object, PutOptions, RenameOptions, Result, StatOptions, StorageBackend, Transaction,
    async_trait,
};

use crate::{Memory, store::Store};

pub(crate) struct MemoryTransaction {
    parent: Memory,
    /// The store as it was at the beginning.
    base: Store,
    /// The same with this transaction's writes; closed once the transaction has ended.
    local: Memory,
    footprint: Mutex<Footprint>,
}

/// What a transaction has read or written.
#[derive(Default)]
struct Footprint {
    keys: BTreeSet<Key>,
    prefixes: BTreeSet<String>,
}

impl Footprint {
    fn covers(&self, key: &Key) -> bool {
        let below = |prefix: &String| key.as_str().starts_with(prefix.as_str());
        self.keys.contains(key) || self.prefixes.iter().any(below)
    }
}

impl MemoryTransaction {
    pub(crate) fn new(parent: Memory, base: Store) -> Self {
        Self { local: parent.fork(base.for_transaction()), parent, base, footprint: Mutex::default() }
    }

    /// The private copy, after noting that these keys are read or written.
    fn at<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Result<&Memory> {
        let local = self.open()?;
        self.footprint().keys.extend(keys.into_iter().cloned());
        Ok(local)
    }

    /// The private copy, after noting that everything with this prefix is read or written.
    fn below(&self, prefix: &str) -> Result<&Memory> {
        let local = self.open()?;
        self.footprint().prefixes.insert(prefix.to_owned());
        Ok(local)
    }

    fn open(&self) -> Result<&Memory> {
        self.parent.read(|_| ())?;
        self.local.read(|_| ()).map_err(|_| ended())?;
        Ok(&self.local)
    }

    fn footprint(&self) -> MutexGuard<'_, Footprint> {
        // An insertion is whole or did not happen, so a poisoned lock guards good data.
        self.footprint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransaction").finish_non_exhaustive()
    }
}

#[async_trait]
impl StorageBackend for MemoryTransaction {
    fn info(&self) -> &BackendInfo {
        self.local.info()
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.at([key])?.get(key, options).await
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.at([key])?.put(key, body, options).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.at([key])?.delete(key, options).await
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.at([key])?.stat(key, options).await
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.below(&options.prefix)?.list(options).await
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let keys = items.iter().map(|(key, _)| key);
        self.at(keys)?.get_batch(items).await
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let keys = items.iter().map(|(key, ..)| key);
        self.at(keys)?.put_batch(items, options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let keys = items.iter().map(|(key, _)| key);
        self.at(keys)?.delete_batch(items, options).await
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        self.below(prefix)?.clear(prefix).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        self.at([from, to])?.copy(from, to, options).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        self.at([from, to])?.rename(from, to, options).await
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        self.at([key])?.versions(key).await
    }

    async fn health(&self) -> Result<()> {
        self.open().map(drop)
    }
}

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn commit(&self) -> Result<()> {
        self.open()?;
        // Closing first: whatever still gets into the private copy has left its footprint before.
        let mine = self.local.close().ok_or_else(ended)?;
        let footprint = self.footprint();
        self.parent.write(|store| store.merge(&self.base, &mine, |key| footprint.covers(key)))
    }

    async fn rollback(&self) -> Result<()> {
        self.open()?;
        self.local.close();
        Ok(())
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the transaction has ended; begin another one")
}
