//! A write under way: what it may change is not answered from memory until its end.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use storage_core::{Error, Key, Result};

use crate::{held::Held, shared::Shared};

/// What a write may change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) keys: BTreeSet<Key>,
    pub(crate) prefixes: BTreeSet<String>,
}

impl Written {
    pub(crate) fn keys<'k>(keys: impl IntoIterator<Item = &'k Key>) -> Self {
        Self { keys: keys.into_iter().cloned().collect(), prefixes: BTreeSet::new() }
    }

    pub(crate) fn prefix(prefix: &str) -> Self {
        Self { keys: BTreeSet::new(), prefixes: BTreeSet::from([prefix.to_owned()]) }
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.keys.extend(more.keys);
        self.prefixes.extend(more.prefixes);
    }
}

/// Dropping it is the end of the write, however it ended.
pub(crate) struct Write {
    shared: Arc<Shared>,
    written: Written,
    /// Whether it is known what has happened. Until the backend has answered, it is not: a write that is cancelled may
    /// still happen.
    settled: bool,
    /// What was written, if it may be kept.
    fresh: Option<Arc<Held>>,
}

impl Write {
    pub(crate) fn begin(shared: &Arc<Shared>, written: Written) -> Self {
        let mut under_way = shared.lock();
        shared.writes.fetch_add(1, Ordering::SeqCst);
        if !written.prefixes.is_empty() {
            under_way.prefixes += 1;
            for state in under_way.keys.values_mut() {
                state.contended = true;
                state.load = None;
            }
        }
        let all = under_way.prefixes > 0;
        for key in &written.keys {
            let state = under_way.keys.entry(key.clone()).or_default();
            state.contended = state.writers > 0 || all;
            state.writers += 1;
            state.load = None;
        }
        drop(under_way);
        Self { shared: shared.clone(), written, settled: false, fresh: None }
    }

    /// The backend has answered.
    pub(crate) fn settle<T>(&mut self, result: &Result<T>) {
        self.settled = !result.as_ref().is_err_and(Error::is_ambiguous);
    }

    /// The backend has answered for each item.
    pub(crate) fn settle_all<T>(&mut self, result: &Result<Vec<Result<T>>>) {
        self.settle(result);
        let items = result.iter().flatten();
        self.settled &= !items.filter_map(|item| item.as_ref().err()).any(Error::is_ambiguous);
    }

    /// What the only key holds now, if nobody else wrote it meanwhile.
    pub(crate) fn keep(&mut self, held: Option<Held>) {
        self.fresh = held.map(Arc::new);
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let shared = &self.shared;
        let mut under_way = shared.lock();
        for key in &self.written.keys {
            if !self.settled {
                shared.uncertain.insert(key.clone(), ());
            }
            let Some(state) = under_way.keys.get_mut(key) else {
                continue;
            };
            state.writers -= 1;
            let (left, contended) = (state.writers, state.contended);
            if left == 0 && state.load.is_none() {
                under_way.keys.remove(key);
            }
            match self.fresh.take() {
                Some(fresh) if !contended && !shared.is_barred(&under_way, key) => {
                    shared.values.insert(key.clone(), fresh);
                }
                _ => shared.values.invalidate(key),
            }
        }
        if !self.written.prefixes.is_empty() {
            let now = Instant::now();
            under_way.uncertain.retain(|(_, until)| now < *until);
            for prefix in &self.written.prefixes {
                if !self.settled {
                    under_way.uncertain.push((prefix.clone(), now + shared.settings.uncertain));
                }
                // Nothing was kept since the write began, so what is to be forgotten is all there.
                for (key, _) in &shared.values {
                    if key.as_str().starts_with(prefix) {
                        shared.values.invalidate(&*key);
                    }
                }
            }
            under_way.prefixes -= 1;
        }
        shared.writes.fetch_sub(1, Ordering::SeqCst);
    }
}
