//! What a write does to the index, within one transaction of it: records and counts together.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use cid::Cid;
use storage_core::{
    BatchOptions, Body, Condition, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, Metadata, PutOptions,
    Result, StatOptions, StorageBackend,
};

use crate::{
    pinned::{Pinned, check_pinned, found},
    read,
    record::{self, Count, Names, State},
    store::Failure,
    unixfs::Part,
};

/// What is to become of a key.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) condition: Option<Condition>,
    /// The new value; without it there is none.
    pub(crate) value: Option<Value>,
}

#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) part: Part,
    pub(crate) pinned: Option<Pinned>,
    pub(crate) metadata: Option<Arc<Metadata>>,
}

/// What a change has done: the entry that it wrote, or the item's own failure.
pub(crate) type Changed = Result<Option<Entry>>;

/// What there is of a key, which may be damaged.
pub(crate) async fn current(view: &dyn StorageBackend, names: &Names, key: &Key) -> Result<Option<Entry>> {
    match view.stat(&names.key(key)?, StatOptions::new()).await {
        Ok(None) => Ok(None),
        Ok(Some(record)) => record::entry(record, names).map(Some),
        Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(Entry::new(key.clone(), 0).into_damaged(e))),
        Err(e) => Err(e),
    }
}

async fn all_current(view: &dyn StorageBackend, names: &Names, changes: &[Change]) -> Result<Vec<Option<Entry>>> {
    if let [change] = changes {
        return Ok(vec![current(view, names, &change.key).await?]);
    }
    let mut keys = Vec::with_capacity(changes.len());
    for change in changes {
        keys.push((names.key(&change.key)?, GetOptions::new()));
    }
    let mut all = Vec::with_capacity(changes.len());
    for (found, change) in view.get_batch(keys).await?.into_iter().zip(changes) {
        all.push(match found {
            Ok(None) => None,
            Ok(Some(object)) => Some(record::entry(object.entry, names)?),
            Err(e) if e.kind() == ErrorKind::Corrupt => Some(Entry::new(change.key.clone(), 0).into_damaged(e)),
            Err(e) => return Err(e),
        });
    }
    Ok(all)
}

pub(crate) async fn source(view: &dyn StorageBackend, names: &Names, from: &Key) -> Result<Entry> {
    current(view, names, from).await?.ok_or_else(|| no_source(from))?.sound().map_err(|e| e.with_key(from))
}

/// Changes records and counts, within a transaction of the index. Also says whether content has lost its last key.
pub(crate) async fn apply(
    view: &dyn StorageBackend,
    names: &Names,
    changes: &[Change],
    atomic: bool,
) -> Result<(Vec<Changed>, bool), Failure> {
    let before = all_current(view, names, changes).await?;
    let mut results: Vec<Changed> = Vec::with_capacity(changes.len());
    let mut moves: BTreeMap<Cid, i64> = BTreeMap::new();
    for (change, before) in changes.iter().zip(&before) {
        if let Some(Err(e)) = change.condition.as_ref().map(|condition| condition.check(before.as_ref())) {
            if atomic {
                return Err(e.with_key(&change.key).into());
            }
            results.push(Err(e));
            continue;
        }
        results.push(Ok(None));
        if let Some(value) = &change.value {
            *moves.entry(value.part.cid).or_default() += 1;
        }
        // What a damaged record named is not known; its content stays.
        if let Some(part) = before.as_ref().and_then(|entry| read::part(entry).ok()) {
            *moves.entry(part.cid).or_default() -= 1;
        }
    }
    let mut counts: BTreeMap<Cid, Option<(Count, Entry)>> = BTreeMap::new();
    for cid in moves.keys() {
        counts.insert(*cid, None);
    }
    read_counts(view, &mut counts).await?;
    for (change, result) in changes.iter().zip(&results) {
        if let (Some(value), Ok(_)) = (&change.value, result) {
            let count = counts.get(&value.part.cid).and_then(Option::as_ref);
            check_pinned(&value.part, value.pinned.as_ref(), count)?;
        }
    }
    let (mut puts, mut deletes, mut places, mut queued) = (Vec::new(), Vec::new(), Vec::new(), false);
    for (at, change) in changes.iter().enumerate().filter(|(at, _)| results[*at].is_ok()) {
        let key = names.key(&change.key)?;
        match &change.value {
            Some(value) => {
                let metadata = record::metadata(&value.part, value.metadata.as_deref());
                puts.push((key, Body::default(), PutOptions::new().metadata(metadata)));
                places.push((at, value));
            }
            None if before[at].is_some() => deletes.push((key, DeleteOptions::new())),
            None => {}
        }
    }
    for (cid, moved) in moves {
        let found = counts.remove(&cid).flatten();
        let pinned_anew = found.as_ref().is_none_or(|(count, _)| !count.is_pinned());
        let count = found.map(|(count, _)| count).unwrap_or_default();
        let keys = count.keys.saturating_add_signed(moved);
        if moved == 0 && !pinned_anew {
            continue;
        }
        if keys == 0 {
            puts.push((record::queue_key(&cid)?, Body::default(), PutOptions::new()));
            queued = true;
        }
        let count = Count { keys, state: State::Kept, foreign: count.foreign };
        puts.push((record::count_key(&cid)?, count.write().into(), PutOptions::new()));
    }
    let mut written = write(view, puts, deletes).await.map_err(Failure::Broken)?.into_iter();
    for (at, value) in places {
        let record = written.next().ok_or_else(record::damaged)?;
        let mut entry = Entry::new(changes[at].key.clone(), value.part.size);
        (entry.etag, entry.modified, entry.created) = (record.etag, record.modified, record.created);
        entry.metadata = Some(value.metadata.clone().unwrap_or_default());
        entry.attributes.insert("cid", value.part.cid.to_string());
        results[at] = Ok(Some(entry));
    }
    Ok((results, queued))
}

async fn write(
    view: &dyn StorageBackend,
    mut puts: Vec<(Key, Body, PutOptions)>,
    deletes: Vec<(Key, DeleteOptions)>,
) -> Result<Vec<Entry>> {
    if !deletes.is_empty() {
        view.delete_batch(deletes, BatchOptions::new()).await?.into_iter().collect::<Result<()>>()?;
    }
    match puts.len() {
        0 => Ok(Vec::new()),
        1 => {
            let (key, body, options) = puts.remove(0);
            Ok(vec![view.put(&key, body, options).await?])
        }
        _ => view.put_batch(puts, BatchOptions::new()).await?.into_iter().collect(),
    }
}

pub(crate) async fn read_counts(
    view: &dyn StorageBackend,
    counts: &mut BTreeMap<Cid, Option<(Count, Entry)>>,
) -> Result<()> {
    if counts.len() == 1 {
        for (cid, count) in counts {
            *count = found(view, cid).await?;
        }
        return Ok(());
    }
    let mut keys = Vec::with_capacity(counts.len());
    for cid in counts.keys() {
        keys.push((record::count_key(cid)?, GetOptions::new()));
    }
    if keys.is_empty() {
        return Ok(());
    }
    for (object, count) in view.get_batch(keys).await?.into_iter().zip(counts.values_mut()) {
        if let Some(object) = object? {
            *count = Some((Count::read(&object.body.bytes(1 << 20).await?)?, object.entry));
        }
    }
    Ok(())
}

/// The result of the first change.
pub(crate) fn one(changed: Vec<Changed>) -> Changed {
    changed.into_iter().next().unwrap_or_else(|| Err(record::damaged()))
}

pub(crate) fn distinct<'k>(keys: impl ExactSizeIterator<Item = &'k Key>) -> bool {
    let len = keys.len();
    keys.collect::<HashSet<_>>().len() == len
}

pub(crate) fn no_source(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "the source does not exist").with_key(key)
}
