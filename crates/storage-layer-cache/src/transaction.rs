//! Transactions, which go past what is kept: they see their own moment, and what they wrote is seen when they are committed.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, GetOptions, Key, ListOptions,
    ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query, RenameOptions, Result, StatOptions,
    StorageBackend, Transaction, async_trait,
};

use crate::{
    storage::{is_doubtful, refuse_writes},
    table::{Scope, Table},
};

/// A transaction of the backend below that notes what it touches.
pub(crate) struct Bypass {
    info: BackendInfo,
    table: Arc<Table>,
    /// The keys that were written; `None` when it can be any.
    touched: Mutex<Option<BTreeSet<Key>>>,
    inner: Arc<dyn Transaction>,
}

impl Bypass {
    pub(crate) fn new(info: BackendInfo, table: Arc<Table>, inner: Arc<dyn Transaction>) -> Self {
        Self { info, table, touched: Mutex::new(Some(BTreeSet::new())), inner }
    }

    /// Noted before the write, which may take effect even if it fails or is dropped.
    fn touch<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(touched) = &mut *touched {
            touched.extend(keys.into_iter().cloned());
        }
    }

    fn touch_all(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many keys are noted; `None` when it can be any. The notes only grow, so that two counts tell whether they did.
    fn noted(&self) -> Option<usize> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(BTreeSet::len)
    }

    fn scope(&self) -> Scope {
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.as_ref().map_or(Scope::All, |keys| Scope::Keys(keys.iter().cloned().collect()))
    }
}

impl fmt::Debug for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bypass").field("over", &self.info.id).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for Bypass {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.inner.get(key, options).await
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.touch([key]);
        self.inner.put(key, body, options).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.touch([key]);
        self.inner.delete(key, options).await
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.inner.stat(key, options).await
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.inner.list(options).await
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        self.inner.get_batch(items).await
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        self.touch(items.iter().map(|(key, ..)| key));
        self.inner.put_batch(items, options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        self.touch(items.iter().map(|(key, _)| key));
        self.inner.delete_batch(items, options).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        self.inner.query(query).await
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        self.touch_all();
        self.inner.clear(prefix).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        self.touch([to]);
        self.inner.copy(from, to, options).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        self.touch([from, to]);
        self.inner.rename(from, to, options).await
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        self.inner.versions(key).await
    }

    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        refuse_writes(&options)?;
        self.inner.presign(key, options).await
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        // What the one within writes goes past this one, so it can be anything.
        self.touch_all();
        self.inner.begin().await
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn disconnect(&self) -> Result<()> {
        self.inner.disconnect().await
    }
}

#[async_trait]
impl Transaction for Bypass {
    async fn commit(&self) -> Result<()> {
        // Counted before the scope is taken, so that no key is missed by both.
        let late = Late { bypass: self, noted: self.noted(), is_over: false };
        let guard = self.table.begin(self.scope());
        let result = self.inner.commit().await;
        guard.end(|_| is_doubtful(&result));
        late.end(is_doubtful(&result));
        result
    }

    async fn rollback(&self) -> Result<()> {
        self.inner.rollback().await
    }
}

/// Forgets what another handle of the transaction wrote while its commit was under way: the commit may have taken it along.
struct Late<'t> {
    bypass: &'t Bypass,
    /// What was noted before the commit.
    noted: Option<usize>,
    is_over: bool,
}

impl Late<'_> {
    fn end(mut self, doubtful: bool) {
        self.is_over = true;
        self.forget(doubtful);
    }

    fn forget(&self, doubtful: bool) {
        if self.bypass.noted() != self.noted {
            self.bypass.table.begin(self.bypass.scope()).end(|_| doubtful);
        }
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.forget(true);
        }
    }
}
