//! Stores that promise as little as they may.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, future::ready};
use storage_core::{
    BackendInfo, Body, Capabilities, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, KeyShape, ListItem,
    ListOptions, ListStream, Metadata, Object, PutOptions, Result, StatOptions, Transaction, async_trait,
};
use tokio::sync::Mutex as Lock;

use crate::{
    Namespace,
    saboteurs::{Fault, Sides, within},
    support::locked,
};

/// The least limits.
#[derive(Debug)]
pub(super) struct Small;

/// The most bytes of a value.
const VALUE: u64 = 1000;

#[async_trait]
impl Fault for Small {
    const DERIVED: bool = true;

    fn declare(&self, info: &mut BackendInfo) {
        info.limits.value = VALUE;
        info.limits.key = Key::MIN_LIMIT;
        info.limits.metadata = Metadata::MIN_LIMIT;
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        s.inner.put(key, body.bytes(VALUE).await?.into(), options).await
    }

    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        Ok(within(s.inner.begin().await?, Self))
    }
}

/// No capability at all. A put writes the bytes first and the metadata then; who reads in between sees both, as a store may that is
/// not `atomic`.
#[derive(Debug)]
pub(super) struct Plain {
    /// Held from the first step of a write to its last, though its caller goes away.
    writing: Arc<Lock<()>>,
    /// Whether the caller of the write under way has gone away: then who comes later waits for its end.
    orphaned: AtomicBool,
    /// Whether it keeps no metadata either, and refuses every shape of keys that it may.
    bytes_alone: bool,
}

impl Plain {
    pub(super) fn new(namespace: &Namespace, bytes_alone: bool) -> Self {
        static STORES: LazyLock<Mutex<HashMap<String, Weak<Lock<()>>>>> = LazyLock::new(Mutex::default);
        let mut stores = locked(&STORES);
        let place = stores.entry(namespace.name().to_owned()).or_default();
        let writing = place.upgrade().unwrap_or_default();
        *place = Arc::downgrade(&writing);
        Self { writing, orphaned: AtomicBool::new(false), bytes_alone }
    }

    /// Waits for a write whose caller has gone away.
    async fn settled(&self) {
        if self.orphaned.load(Ordering::SeqCst) {
            let _writing = self.writing.lock().await;
            self.orphaned.store(false, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Fault for Plain {
    const DERIVED: bool = true;

    fn declare(&self, info: &mut BackendInfo) {
        info.capabilities = Capabilities::new();
        if self.bytes_alone {
            info.limits.metadata = 0;
            info.refused_keys = KeyShape::ALL.to_vec();
        }
    }

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.settled().await;
        let asked = options.range.map_or_else(GetOptions::new, |range| GetOptions::new().range(range));
        let mut object = s.inner.get(key, asked).await?;
        if let Some(object) = &mut object {
            bare(&mut object.entry);
        }
        options.check_current(object.as_ref().map(|object| &object.entry))?;
        Ok(object)
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let value = body.bytes(s.outer.info().limits.value).await?;
        let writing = self.writing.clone().lock_owned().await;
        let (inner, key) = (s.inner.clone(), key.clone());
        let steps = tokio::spawn(async move {
            let _writing = writing;
            let before = inner.stat(&key, StatOptions::new()).await?;
            let mut first = PutOptions::new();
            first.metadata = before.and_then(|entry| entry.metadata);
            inner.put(&key, value.clone().into(), first).await?;
            tokio::task::yield_now().await;
            let mut entry = inner.put(&key, value.into(), options).await.map_err(Error::ambiguous)?;
            bare(&mut entry);
            Ok(entry)
        });
        let mut caller = Caller { orphaned: &self.orphaned, waits: true };
        let result = steps.await;
        caller.waits = false;
        result.map_err(|e| Error::new(ErrorKind::Other, "a write ended early").with_source(e))?
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        let _writing = self.writing.lock().await;
        s.inner.delete(key, options).await
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.settled().await;
        let mut entry = s.inner.stat(key, options).await?;
        entry.iter_mut().for_each(bare);
        Ok(entry)
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        self.settled().await;
        let bare_item = |mut item: ListItem| {
            if let ListItem::Entry(entry) = &mut item {
                bare(entry);
            }
            ready(Ok(item))
        };
        Ok(s.inner.list(options).await?.and_then(bare_item).boxed())
    }
}

/// Who waits for a write.
struct Caller<'a> {
    orphaned: &'a AtomicBool,
    waits: bool,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.orphaned.store(true, Ordering::SeqCst);
        }
    }
}

/// Leaves key, size and metadata.
fn bare(entry: &mut Entry) {
    let mut left = Entry::new(entry.key.clone(), entry.size);
    left.metadata = entry.metadata.take();
    *entry = left;
}
