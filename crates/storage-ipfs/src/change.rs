//! What a write does to the index, within one transaction of it: records and counts together.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use cid::Cid;
use storage_core::{
    BatchOptions, Body, Condition, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions, Key, Metadata, Object,
    PutOptions, Result, StatOptions, StorageBackend,
};

use crate::{
    pinned::{Pinned, check_pinned},
    read,
    record::{self, Count, Names, State},
    store::{self, Failure, Found, etag_of},
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
    /// What was pinned for it, if that was done for this write.
    pub(crate) pinned: Option<(Cid, Pinned)>,
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

/// What there is of a key, by its record that was read.
pub(crate) fn current_of(key: &Key, names: &Names, read: Result<Option<Object>>) -> Result<Option<Entry>> {
    match read {
        Ok(None) => Ok(None),
        Ok(Some(object)) => record::entry(object.entry, names).map(Some),
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
        all.push(current_of(&change.key, names, found)?);
    }
    Ok(all)
}

pub(crate) async fn source(view: &dyn StorageBackend, names: &Names, from: &Key) -> Result<Entry> {
    current(view, names, from).await?.ok_or_else(|| no_source(from))?.sound().map_err(|e| e.with_key(from))
}

/// What there was before some changes: of their keys, and of the content that comes and goes.
#[derive(Clone, Default)]
pub(crate) struct Before {
    pub(crate) entries: Vec<Option<Entry>>,
    pub(crate) counts: BTreeMap<Cid, Found>,
}

/// What changes write to the index.
pub(crate) struct Plan {
    pub(crate) puts: Vec<(Key, Body, PutOptions)>,
    deletes: Vec<(Key, DeleteOptions)>,
    /// Of each change its failure, or `None` so far.
    results: Vec<Changed>,
    /// The changes that the first of the puts are the records of.
    places: Vec<usize>,
    /// Content that has lost its last key.
    queued: Vec<Cid>,
}

/// The outcome of each change, and content that has lost its last key.
pub(crate) type Applied = (Vec<Changed>, Vec<Cid>);

/// Changes records and counts, within a transaction of the index.
pub(crate) async fn apply(
    view: &dyn StorageBackend,
    names: &Names,
    changes: &[Change],
    atomic: bool,
) -> Result<Applied, Failure> {
    let mut before = Before { entries: all_current(view, names, changes).await?, ..Before::default() };
    for (change, entry) in changes.iter().zip(&before.entries) {
        before.counts.extend(touched(change, entry.as_ref()).map(|cid| (cid, None)));
    }
    read_counts(view, &mut before.counts).await?;
    let mut plan = plan(names, changes, before, atomic, false)?;
    let (puts, deletes) = (std::mem::take(&mut plan.puts), std::mem::take(&mut plan.deletes));
    let written = write(view, puts, deletes).await.map_err(Failure::Broken)?;
    Ok(plan.done(changes, written)?)
}

/// The content that a change of this entry gives a key, or takes one from.
pub(crate) fn touched(change: &Change, before: Option<&Entry>) -> impl Iterator<Item = Cid> + use<> {
    // What a damaged record named is not known; its content stays.
    let before = before.and_then(|entry| read::part(entry).ok());
    [change.value.as_ref().map(|value| value.part.cid), before.map(|part| part.cid)].into_iter().flatten()
}

/// What is to be written where it was so `before`, of changes of different keys. If `conditional`, each write has the condition that it still
/// is so.
pub(crate) fn plan(
    names: &Names,
    changes: &[Change],
    before: Before,
    atomic: bool,
    conditional: bool,
) -> Result<Plan, Failure> {
    let Before { entries, mut counts } = before;
    let mut results: Vec<Changed> = Vec::with_capacity(changes.len());
    let mut moves: BTreeMap<Cid, i64> = BTreeMap::new();
    for (change, before) in changes.iter().zip(&entries) {
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
        if let Some(part) = before.as_ref().and_then(|entry| read::part(entry).ok()) {
            *moves.entry(part.cid).or_default() -= 1;
        }
    }
    let mut pins: BTreeMap<Cid, Cid> = BTreeMap::new();
    for (change, result) in changes.iter().zip(&results) {
        if let (Some(value), Ok(_)) = (&change.value, result) {
            let count = counts.get(&value.part.cid).and_then(Option::as_ref);
            check_pinned(&value.part, value.pinned.as_ref().map(|(_, pinned)| pinned), count)?;
            pins.extend(value.pinned.as_ref().map(|(pin, _)| (value.part.cid, *pin)));
        }
    }
    let mut plan = Plan { puts: Vec::new(), deletes: Vec::new(), results, places: Vec::new(), queued: Vec::new() };
    let options = |etag: Option<Etag>| {
        let mut options = PutOptions::new();
        options.condition = conditional.then(|| etag.map_or(Condition::IfAbsent, Condition::IfMatch));
        options
    };
    for (at, change) in changes.iter().enumerate().filter(|(at, _)| plan.results[*at].is_ok()) {
        let key = names.key(&change.key)?;
        match &change.value {
            Some(value) => {
                let metadata = record::metadata(&value.part, value.metadata.as_deref());
                let etag = entries[at].as_ref().and_then(|entry| entry.etag.clone());
                plan.puts.push((key, Body::default(), options(etag).metadata(metadata)));
                plan.places.push(at);
            }
            None if entries[at].is_some() => plan.deletes.push((key, DeleteOptions::new())),
            None => {}
        }
    }
    for (cid, moved) in moves {
        let found = counts.remove(&cid).flatten();
        let pinned_anew = found.as_ref().is_none_or(|(count, _)| !count.is_pinned());
        let etag = etag_of(found.as_ref());
        let count = found.map(|(count, _)| count).unwrap_or_default();
        let keys = count.keys.saturating_add_signed(moved);
        if moved == 0 && !pinned_anew {
            continue;
        }
        if keys == 0 {
            plan.puts.push((record::queue_key(&cid)?, Body::default(), PutOptions::new()));
            plan.queued.push(cid);
        }
        let count = match pins.get(&cid).filter(|_| pinned_anew) {
            Some(pin) => Count { keys, pin: Some(*pin), ..Count::default() },
            None => Count { keys, state: State::Kept, ..count },
        };
        plan.puts.push((record::count_key(&cid)?, count.write().into(), options(etag)));
    }
    Ok(plan)
}

impl Plan {
    /// Whether one batch of puts does it all.
    pub(crate) fn is_puts(&self) -> bool {
        self.deletes.is_empty()
    }

    /// What is done when the puts have written these records.
    pub(crate) fn done(mut self, changes: &[Change], written: Vec<Entry>) -> Result<Applied> {
        let mut written = written.into_iter();
        for at in self.places {
            let record = written.next().ok_or_else(record::damaged)?;
            let value = changes[at].value.as_ref().ok_or_else(record::damaged)?;
            let mut entry = Entry::new(changes[at].key.clone(), value.part.size);
            (entry.etag, entry.modified, entry.created) = (record.etag, record.modified, record.created);
            entry.metadata = Some(value.metadata.clone().unwrap_or_default());
            entry.attributes.insert("cid", value.part.cid.to_string());
            self.results[at] = Ok(Some(entry));
        }
        Ok((self.results, self.queued))
    }
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

pub(crate) async fn read_counts(view: &dyn StorageBackend, counts: &mut BTreeMap<Cid, Found>) -> Result<()> {
    if counts.len() == 1 {
        for (cid, count) in counts {
            *count = store::count(view, cid).await?;
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
        *count = store::counted(object?).await?;
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
