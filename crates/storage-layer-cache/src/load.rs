//! One read of the backend for all who ask for the same key at the same time.
//!
//! Whoever asks polls it, so it goes on while anybody is left, and ends with the last.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{
    FutureExt,
    future::{Shared as SharedFuture, WeakShared},
};
use storage_core::{BoxFuture, Error, GetOptions, Key, Object, Result, StorageBackend};

use crate::{
    held::Held,
    shared::{KeyState, Shared},
};

type Loading = SharedFuture<BoxFuture<'static, Loaded>>;

/// A load under way. The table holds it weakly, so that it ends with its last reader.
pub(crate) struct Load {
    id: u64,
    loading: WeakShared<BoxFuture<'static, Loaded>>,
}

/// What a load has found.
#[derive(Clone)]
enum Loaded {
    Absent,
    Held(Arc<Held>),
    /// Too large to be kept: the first reader takes what was opened, the others open their own.
    Large(Arc<Mutex<Option<Object>>>),
    Failed(Arc<Error>),
}

/// Reads a whole value and keeps it, together with all who ask at the same time.
pub(crate) async fn load<S: StorageBackend + ?Sized>(
    shared: &Arc<Shared>,
    inner: &Arc<S>,
    key: &Key,
    options: GetOptions,
) -> Result<Option<Object>> {
    let Some(loading) = join(shared, inner, key) else {
        return inner.get(key, options).await;
    };
    match loading.await {
        Loaded::Absent => Ok(None),
        Loaded::Held(held) => held.answer(&options).map(Some),
        Loaded::Failed(e) => Err(again(e)),
        Loaded::Large(opened) => {
            let opened = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
            match opened {
                Some(object) => Ok(Some(object)),
                None => inner.get(key, options).await,
            }
        }
    }
}

/// The load of this key, begun now if there is none; `None` where every reader must read by itself.
fn join<S: StorageBackend + ?Sized>(shared: &Arc<Shared>, inner: &Arc<S>, key: &Key) -> Option<Loading> {
    let mut under_way = shared.lock();
    if shared.is_barred(&under_way, key) {
        return None;
    }
    let joined = under_way.keys.get(key).and_then(|state| state.load.as_ref()).and_then(|load| load.loading.upgrade());
    if joined.is_some() {
        return joined;
    }
    under_way.loads += 1;
    let id = under_way.loads;
    let begun = Begun { shared: shared.clone(), key: key.clone(), id };
    let loading = read(begun, inner.clone()).boxed().shared();
    let weak = loading.downgrade();
    under_way.keys.entry(key.clone()).or_default().load = weak.map(|loading| Load { id, loading });
    Some(loading)
}

async fn read<S: StorageBackend + ?Sized>(begun: Begun, inner: Arc<S>) -> Loaded {
    match read_whole(&begun, &*inner).await {
        Ok(loaded) => {
            if let Loaded::Held(held) = &loaded {
                begun.keep(held);
            }
            loaded
        }
        Err(e) => Loaded::Failed(Arc::new(e)),
    }
}

async fn read_whole<S: StorageBackend + ?Sized>(begun: &Begun, inner: &S) -> Result<Loaded> {
    let Some(object) = inner.get(&begun.key, GetOptions::new()).await? else {
        return Ok(Loaded::Absent);
    };
    let large = |object| Ok(Loaded::Large(Arc::new(Mutex::new(Some(object)))));
    let size = object.entry.size;
    if size > begun.shared.settings.max_value_bytes {
        return large(object);
    }
    let bytes = object.body.bytes(size).await?;
    match Held::new(object.entry.clone(), bytes.clone()) {
        Some(held) => Ok(Loaded::Held(Arc::new(held))),
        None => large(Object::new(object.entry, bytes)),
    }
}

/// A load's place in the table, which it leaves at its end, also when nobody is left who wants it.
struct Begun {
    shared: Arc<Shared>,
    key: Key,
    id: u64,
}

impl Begun {
    fn is_mine(&self, state: &KeyState) -> bool {
        state.load.as_ref().is_some_and(|load| load.id == self.id)
    }

    /// Keeps what was read, if no write of the key has begun since.
    fn keep(&self, held: &Arc<Held>) {
        let under_way = self.shared.lock();
        let mine = under_way.keys.get(&self.key).is_some_and(|state| self.is_mine(state));
        if mine && !self.shared.is_barred(&under_way, &self.key) {
            self.shared.values.insert(self.key.clone(), held.clone());
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut under_way = self.shared.lock();
        let Some(state) = under_way.keys.get_mut(&self.key) else {
            return;
        };
        if self.is_mine(state) {
            state.load = None;
        }
        if state.load.is_none() && state.writers == 0 {
            under_way.keys.remove(&self.key);
        }
    }
}

/// An error cannot be cloned, because its source cannot; each reader gets one of its own, with the first as its source.
fn again(e: Arc<Error>) -> Error {
    let mut own = Error::new(e.kind(), e.message());
    if e.is_ambiguous() {
        own = own.ambiguous();
    }
    if let Some(wait) = e.retry_after() {
        own = own.with_retry_after(wait);
    }
    own.with_source(e)
}
