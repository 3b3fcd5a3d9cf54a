//! Batches: a few hops at once, each with a share of the items.

use std::sync::Arc;

use futures_util::future::join_all;
use storage_core::{
    Error, ErrorKind, Key, Result,
    pending::{Commit, Writes},
};

use crate::{
    blocking,
    changes::{Changes, unsettled},
    name::stripe,
    store::Store,
};

/// How many hops a batch takes at most. Syncs that run at the same time share the disk's work.
const HOPS: usize = 8;

/// How many values of a batch may be streamed from files that are open from the start.
pub(crate) const OPEN_VALUES: usize = 8;

/// Does `work` for every item, and settles the changes of each hop together. Items with the same key are in the same hop, in
/// their order. Results are in the order of the input.
pub(crate) async fn run<I, T>(
    store: &Arc<Store>,
    writes: &Writes,
    items: Vec<(Key, I)>,
    work: fn(&Arc<Store>, &Key, I, &mut Changes, &Commit) -> Result<T>,
) -> Vec<Result<T>>
where
    I: Send + 'static,
    T: Send + 'static,
{
    let count = items.len();
    let mut shares: [Vec<(usize, Key, I)>; HOPS] = Default::default();
    for (index, (key, item)) in items.into_iter().enumerate() {
        let share = usize::from(stripe(key.as_str())) % HOPS;
        shares[share].push((index, key, item));
    }
    let hops = shares.into_iter().filter(|share| !share.is_empty());
    let hops = hops.map(|share| {
        let store = store.clone();
        let indices: Vec<usize> = share.iter().map(|(index, ..)| *index).collect();
        let keys: Vec<Key> = share.iter().map(|(_, key, _)| key.clone()).collect();
        async move {
            let done = blocking::write(writes, keys, move |commit| {
                let mut changes = Changes::default();
                let item = |(_, key, item): (usize, Key, I)| {
                    commit.check()?;
                    work(&store, &key, item, &mut changes, commit)
                };
                let results = share.into_iter().map(item).collect::<Vec<_>>();
                Ok(match changes.settle(&store.tree) {
                    Ok(()) => results,
                    Err(e) => results.into_iter().map(|result| Err(unsettled(result.err(), &e))).collect(),
                })
            });
            let results = done.await.unwrap_or_else(|e| {
                let failed = |_| Err(e.clone().ambiguous());
                indices.iter().map(failed).collect()
            });
            indices.into_iter().zip(results).collect::<Vec<_>>()
        }
    });
    let mut ordered: Vec<Option<Result<T>>> = (0..count).map(|_| None).collect();
    for (index, result) in join_all(hops).await.into_iter().flatten() {
        ordered[index] = Some(result);
    }
    let lost = || Err(Error::new(ErrorKind::Other, "the batch lost an item"));
    ordered.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
}
