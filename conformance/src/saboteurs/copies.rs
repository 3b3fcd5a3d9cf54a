//! Copies, renames and clears that do too much or too little.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use storage_core::{
    Body, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions, Metadata, Object,
    PutOptions, RenameOptions, Result, StatOptions, StorageBackend, async_trait,
};
use tokio::runtime::{Handle, Id};

use super::{
    table,
    wrap::{Fault, Sides, listed, pause},
};
use crate::support::locked;

table! {
    copy_loses_metadata = Copies(|options, _, _| { options.metadata.get_or_insert_with(|| Arc::new(Metadata::new())); Ok(()) }) => [
        "copy/keeps_metadata",
        "copy/onto_itself_with_metadata",
        "damaged/reads_are_corrupt",
        "entries/every_write_returns_its_entry",
        "versioning/copy_restores",
    ];
    copy_keeps_the_target = CopyKeepsTheTarget => ["copy/does_not_alias", "copy/replaces_the_target", "damaged/can_be_replaced_and_removed", "damaged/no_condition_holds", "entries/an_equal_write_is_a_write", "entries/every_write_returns_its_entry", "readonly/writes_are_denied", "sizes/of_values", "versioning/every_way_to_write_makes_one"];
    copy_is_a_link = CopyIsALink::default() => [
        "copy/does_not_alias",
        "damaged/can_be_replaced_and_removed",
        "entries/every_write_returns_its_entry",
        "faults/fail_after",
        "faults/fail_before",
        "versioning/every_way_to_write_makes_one",
    ];
    copy_onto_itself_empties = CopyOntoItselfEmpties => ["copy/missing_source", "copy/onto_itself", "copy/onto_itself_with_metadata"];
    copy_onto_itself_keeps_metadata = Copies(|options, from, to| {
        if from == to {
            options.metadata = None;
        }
        Ok(())
    }) => ["copy/onto_itself_with_metadata"];
    copy_of_nothing_is_other = CopyOfNothing => ["copy/missing_source", "errors/taxonomy", "versioning/missing_is_none"];
    copy_ignores_conditions = Copies(|options, _, _| { options.condition = None; Ok(()) }) => ["copy/conditional", "damaged/no_condition_holds"];
    rename_keeps_the_source = RenameKeepsTheSource => [
        "faults/fail_after",
        "faults/fail_before",
        "names/a_key_is_one_key",
        "rename/conditional",
        "rename/moves",
        "versioning/rename_keeps_both",
    ];
    rename_loses_metadata = RenameLosesMetadata => ["entries/every_write_returns_its_entry", "model/random_calls", "rename/keeps_metadata"];
    rename_onto_itself_deletes = RenameOntoItselfDeletes => ["rename/onto_itself"];
    rename_of_nothing_is_other = RenameOfNothing => ["errors/taxonomy", "rename/missing_source"];
    rename_ignores_conditions = RenameIgnoresConditions => ["rename/conditional"];
    rename_deletes_first = RenameDeletesFirst => ["cancellation/dropped_copy_and_rename", "faults/fail_after", "faults/fail_before"];
    clear_stops_at_a_thousand = ClearStops => ["clear/many", "counts/of_entries"];
    clear_is_by_segment = ClearBySegment => ["clear/exactly_the_prefix", "keys/every_length", "names/a_prefix_reaches_to_its_end"];
    clear_reaches_neighbours = ClearReachesNeighbours => ["clear/own_namespace_only"];
}

#[derive(Debug)]
struct Copies(fn(&mut CopyOptions, &Key, &Key) -> Result<()>);

#[async_trait]
impl Fault for Copies {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, mut options: CopyOptions) -> Result<Entry> {
        (self.0)(&mut options, from, to)?;
        s.inner.copy(from, to, options).await
    }
}

#[derive(Debug)]
struct CopyKeepsTheTarget;

#[async_trait]
impl Fault for CopyKeepsTheTarget {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let (from_there, there) =
            (s.inner.stat(from, StatOptions::new()).await?, s.inner.stat(to, StatOptions::new()).await?);
        match there.filter(|_| from_there.is_some() && options == CopyOptions::new()) {
            Some(entry) => Ok(entry),
            None => s.inner.copy(from, to, options).await,
        }
    }
}

/// The copy shows whatever its source has now, until one of the two is written over.
#[derive(Debug, Default)]
struct CopyIsALink {
    links: Mutex<HashMap<Key, Key>>,
}

#[async_trait]
impl Fault for CopyIsALink {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let linked = from != to && options == CopyOptions::new();
        let entry = s.inner.copy(from, to, options).await?;
        if linked {
            locked(&self.links).insert(to.clone(), from.clone());
        }
        Ok(entry)
    }

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let source = locked(&self.links).get(key).cloned();
        s.inner.get(&source.unwrap_or_else(|| key.clone()), options).await
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        locked(&self.links).remove(key);
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct CopyOntoItselfEmpties;

#[async_trait]
impl Fault for CopyOntoItselfEmpties {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        if from == to && options == CopyOptions::new() {
            return s.inner.put(to, "".into(), PutOptions::new()).await;
        }
        s.inner.copy(from, to, options).await
    }
}

#[derive(Debug)]
struct CopyOfNothing;

#[async_trait]
impl Fault for CopyOfNothing {
    async fn copy(&self, s: Sides<'_>, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        s.inner.copy(from, to, options).await.map_err(other)
    }
}

fn other(e: Error) -> Error {
    if e.kind() == ErrorKind::NotFound { Error::new(ErrorKind::Other, "the server answered 404") } else { e }
}

#[derive(Debug)]
struct RenameKeepsTheSource;

#[async_trait]
impl Fault for RenameKeepsTheSource {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let mut copy = CopyOptions::new();
        copy.condition = options.condition;
        s.inner.copy(from, to, copy).await
    }
}

#[derive(Debug)]
struct RenameLosesMetadata;

#[async_trait]
impl Fault for RenameLosesMetadata {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let entry = s.inner.rename(from, to, options).await?;
        if from == to || entry.metadata.as_ref().is_none_or(|metadata| metadata.is_empty()) {
            return Ok(entry);
        }
        s.inner.copy(to, to, CopyOptions::new().metadata(Metadata::new())).await
    }
}

#[derive(Debug)]
struct RenameOntoItselfDeletes;

#[async_trait]
impl Fault for RenameOntoItselfDeletes {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let entry = s.inner.rename(from, to, options).await?;
        if from == to {
            s.inner.delete(from, DeleteOptions::new()).await?;
        }
        Ok(entry)
    }
}

#[derive(Debug)]
struct RenameOfNothing;

#[async_trait]
impl Fault for RenameOfNothing {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        s.inner.rename(from, to, options).await.map_err(other)
    }
}

#[derive(Debug)]
struct RenameIgnoresConditions;

#[async_trait]
impl Fault for RenameIgnoresConditions {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, mut options: RenameOptions) -> Result<Entry> {
        options.condition = None;
        s.inner.rename(from, to, options).await
    }
}

/// For a moment the value is nowhere.
#[derive(Debug)]
struct RenameDeletesFirst;

#[async_trait]
impl Fault for RenameDeletesFirst {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let conditional = options.condition.is_some();
        let source = s.inner.get(from, GetOptions::new()).await?;
        let Some(source) = source.filter(|_| from != to && !conditional) else {
            return s.inner.rename(from, to, options).await;
        };
        s.inner.delete(from, DeleteOptions::new()).await?;
        pause().await;
        let mut write = PutOptions::new();
        write.metadata = source.entry.metadata;
        s.inner.put(to, source.body, write).await
    }
}

#[derive(Debug)]
struct ClearStops;

#[async_trait]
impl Fault for ClearStops {
    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        for item in listed(s, ListOptions::new().prefix(prefix).limit(1000)).await? {
            if let Some(entry) = item.into_entry() {
                s.inner.delete(&entry.key, DeleteOptions::new()).await?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct ClearBySegment;

#[async_trait]
impl Fault for ClearBySegment {
    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        if prefix.is_empty() {
            return s.inner.clear(prefix).await;
        }
        s.inner.clear(&format!("{}/", prefix.trim_end_matches('/'))).await
    }
}

/// Clears every store that the same program, here: the same check, has opened.
#[derive(Debug)]
struct ClearReachesNeighbours;

static OPENED: Mutex<Vec<(Id, Arc<dyn StorageBackend>)>> = Mutex::new(Vec::new());

#[async_trait]
impl Fault for ClearReachesNeighbours {
    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        let this = Handle::current().id();
        let neighbours: Vec<_> = {
            let opened = locked(&OPENED);
            opened.iter().filter(|(id, _)| *id == this).map(|(_, store)| store.clone()).collect()
        };
        for neighbour in neighbours {
            neighbour.clear(prefix).await?;
        }
        s.inner.clear(prefix).await
    }

    async fn put_batch(
        &self,
        s: Sides<'_>,
        items: Vec<(Key, Body, PutOptions)>,
        options: storage_core::BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        locked(&OPENED).push((Handle::current().id(), s.inner.clone()));
        s.inner.put_batch(items, options).await
    }
}
