//! Stores that are opened to read only, and do not keep to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use storage_core::{
    BackendInfo, BatchOptions, Body, Bytes, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key,
    ListItem, ListOptions, ListStream, Object, PutOptions, RenameOptions, Result, Transaction, async_trait,
};

use super::wrap::{Fault, Sides, listed, streamed, whole, wrap};
use crate::{Namespace, support::locked};

super::table! {
    Memory, |inner, namespace, fault: Breach| wrap(inner, Careless { breach: fault, namespace, read: Mutex::default() });
    deletes_in_vain = Breach::DeletesInVain => ["readonly/writes_are_denied"];
    says_that_writing_is_unsupported = Breach::Unsupported => ["readonly/writes_are_denied"];
    does_not_know_whether_it_has_written = Breach::Ambiguous => ["readonly/writes_are_denied"];
    clears_all_the_same = Breach::Clears => ["readonly/writes_are_denied"];
    reads_no_metadata = Breach::ReadsLess => ["readonly/reads_are_as_ever"];
    reads_what_was_there_at_first = Breach::ReadsOld => ["readonly/reads_are_as_ever"];
}

/// The sound one: it can only be read.
#[derive(Debug)]
pub(super) struct ReadOnly;

/// How its description begins.
const OPENED: &str = "opened to read only: ";

fn denied<T>() -> Result<T> {
    Err(Error::new(ErrorKind::PermissionDenied, "the store was opened to read only; open it for writing"))
}

#[async_trait]
impl Fault for ReadOnly {
    fn declare(&self, info: &mut BackendInfo) {
        info.description.insert_str(0, OPENED);
    }

    async fn put(&self, _: Sides<'_>, _: &Key, _: Body, _: PutOptions) -> Result<Entry> {
        denied()
    }

    async fn delete(&self, _: Sides<'_>, _: &Key, _: DeleteOptions) -> Result<()> {
        denied()
    }

    async fn put_batch(
        &self,
        _: Sides<'_>,
        items: Vec<(Key, Body, PutOptions)>,
        _: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        Ok(items.iter().map(|_| denied()).collect())
    }

    async fn delete_batch(
        &self,
        _: Sides<'_>,
        _: Vec<(Key, DeleteOptions)>,
        _: BatchOptions,
    ) -> Result<Vec<Result<()>>> {
        denied()
    }

    async fn clear(&self, _: Sides<'_>, _: &str) -> Result<()> {
        denied()
    }

    async fn copy(&self, _: Sides<'_>, _: &Key, _: &Key, _: CopyOptions) -> Result<Entry> {
        denied()
    }

    async fn rename(&self, _: Sides<'_>, _: &Key, _: &Key, _: RenameOptions) -> Result<Entry> {
        denied()
    }

    async fn begin(&self, _: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        denied()
    }
}

/// What is wrong where the store below can only be read; elsewhere nothing is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Breach {
    DeletesInVain,
    Unsupported,
    Ambiguous,
    Clears,
    ReadsLess,
    ReadsOld,
}

#[derive(Debug)]
struct Careless {
    breach: Breach,
    namespace: Namespace,
    /// What was read first.
    read: Mutex<BTreeMap<Key, (Entry, Bytes)>>,
}

impl Careless {
    fn commits(&self, breach: Breach, s: Sides<'_>) -> bool {
        self.breach == breach && s.inner.info().description.starts_with(OPENED)
    }
}

#[async_trait]
impl Fault for Careless {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let done = s.inner.put(key, body, options).await;
        match done {
            Err(_) if self.commits(Breach::Unsupported, s) => Err(Error::unsupported("writing")),
            Err(e) if self.commits(Breach::Ambiguous, s) => Err(e.ambiguous()),
            done => done,
        }
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        let done = s.inner.delete(key, options).await;
        if self.commits(Breach::DeletesInVain, s) { Ok(()) } else { done }
    }

    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        if self.commits(Breach::Clears, s) {
            self.namespace.stored_below()?.clear_prefix(prefix).await?;
        }
        s.inner.clear(prefix).await
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        if !self.commits(Breach::ReadsLess, s) {
            return s.inner.list(options).await;
        }
        let mut items = listed(s, options).await?;
        for item in &mut items {
            if let ListItem::Entry(entry) = item {
                entry.metadata = None;
            }
        }
        Ok(streamed(items))
    }

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if !self.commits(Breach::ReadsOld, s) || options.range.is_some() {
            return s.inner.get(key, options).await;
        }
        if let Some((entry, bytes)) = locked(&self.read).get(key).cloned() {
            return Ok(Some(Object::new(entry, bytes)));
        }
        let Some(object) = s.inner.get(key, options).await? else { return Ok(None) };
        let (entry, bytes) = (object.entry, whole(object.body).await?);
        locked(&self.read).insert(key.clone(), (entry.clone(), bytes.clone()));
        Ok(Some(Object::new(entry, bytes)))
    }
}
