//! Large values, in the layout of GridFS: a document in `<collection>.files`, chunks of 255 KiB in `<collection>.chunks`. Here are the
//! leases on them, and the sweep.
//!
//! Each write has a file of its own. While no key's document names it, a lease does; the sweep deletes only files that expired
//! leases of ours name and no document does. Whether a lease has expired is judged by the server's clock.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use storage_core::{Error, ErrorKind, Key, Result};

use crate::session::Store;

/// Changes a lease, and says whether there was one that matched.
async fn change(store: &Store, filter: Document, set: Document, upsert: bool) -> Result<bool> {
    let update = doc! { "$set": set, "$currentDate": { "renewed": true } };
    let command = doc! {
        "update": store.name("leases"),
        "updates": [{ "q": filter, "u": update, "upsert": upsert }],
        "writeConcern": { "w": "majority", "j": true },
    };
    let answer = store.command(command).await?;
    match crate::error::write_errors(&answer).first() {
        Some((_, code)) => Err(crate::error::from_code(*code)),
        None => Ok(answer.get_i32("n").unwrap_or(0) > 0),
    }
}

/// Names a file that no key's document may name: one that is being written, or one that is about to be replaced.
pub(crate) async fn lease(store: &Store, file: ObjectId, key: &Key, state: &str) -> Result<()> {
    change(store, doc! { "_id": file }, doc! { "key": key.as_str(), "state": state }, true).await.map(drop)
}

pub(crate) async fn renew(store: &Store, file: ObjectId) -> Result<()> {
    match change(store, doc! { "_id": file, "state": "open" }, doc! { "state": "open" }, false).await? {
        true => Ok(()),
        false => Err(swept()),
    }
}

/// Takes the file out of the sweep's reach for long enough that a key's document can name it.
pub(crate) async fn commit_lease(store: &Store, file: ObjectId) -> Result<()> {
    match change(store, doc! { "_id": file, "state": "open" }, doc! { "state": "committing" }, false).await? {
        true => Ok(()),
        false => Err(swept()),
    }
}

fn swept() -> Error {
    let message =
        "the write took so long that another instance removed what it had stored; write again, or raise `sweep_after`";
    Error::new(ErrorKind::Unavailable, message)
}

/// How long a writer may take from [`commit_lease`] to its last command.
pub(crate) fn grace(store: &Store) -> Duration {
    store.timeout
}

/// Forgets a lease. If that fails, the sweep does it.
pub(crate) async fn end_lease(store: &Store, file: ObjectId) {
    let deletes = doc! { "q": { "_id": file }, "limit": 1 };
    let _ = store.command(doc! { "delete": store.name("leases"), "deletes": [deletes] }).await;
}

/// Deletes a file that a lease names, and then the lease. What fails is left to the sweep.
pub(crate) async fn discard(store: &Store, file: ObjectId) {
    for (of, field, limit) in [("files", "_id", 1), ("chunks", "files_id", 0)] {
        let mut filter = doc! { field: file };
        if of == "files" {
            filter.insert("metadata.storage", 1);
        }
        let deletes = doc! { "q": filter, "limit": limit };
        if store.command(doc! { "delete": store.name(of), "deletes": [deletes] }).await.is_err() {
            return;
        }
    }
    end_lease(store, file).await;
}

pub(crate) async fn discard_all(store: &Store, files: &[ObjectId]) {
    for file in files {
        discard(store, *file).await;
    }
}

/// Deletes what expired leases name and no key does.
pub(crate) async fn sweep(store: &Store, now: DateTime) -> Result<()> {
    let before = |age: Duration| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        DateTime::from_millis(now.timestamp_millis().saturating_sub(age))
    };
    // A writer that has marked its lease as committing has so long for its last command.
    let settled = store.sweep_after.max(grace(store) * 4);
    let expired = doc! { "$or": [
        { "state": { "$ne": "committing" }, "renewed": { "$lt": before(store.sweep_after) } },
        { "state": "committing", "renewed": { "$lt": before(settled) } },
    ] };
    let find = doc! { "find": store.name("leases"), "filter": expired, "limit": 1000, "singleBatch": true };
    let answer = store.command(find).await?;
    let leases = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    for lease in leases.into_iter().flatten().filter_map(|lease| lease.as_document()) {
        let (Ok(file), Ok(key), Ok(state), Ok(renewed)) =
            (lease.get_object_id("_id"), lease.get_str("key"), lease.get_str("state"), lease.get_datetime("renewed"))
        else {
            continue;
        };
        let unchanged = doc! { "_id": file, "state": state, "renewed": *renewed };
        if !change(store, unchanged, doc! { "state": "taken" }, false).await? {
            continue;
        }
        let Ok(key) = Key::parse(key) else { continue };
        match is_named(store, file, &key).await? {
            false => discard(store, file).await,
            true => end_lease(store, file).await,
        }
    }
    Ok(())
}

/// Whether a key's document or an older version names the file. `key` is the one that had it when it was leased.
///
/// A rename gives a file to another key, and the file that key's name, in one transaction. One that comes between the two looks here has
/// changed the name, and another cannot come before the sweep is through, for it does not move a file whose lease is taken.
pub(crate) async fn is_named(store: &Store, file: ObjectId, key: &Key) -> Result<bool> {
    let mut owner = owner(store, file).await?.unwrap_or_else(|| key.as_str().to_owned());
    loop {
        if exists(store, store.collection.clone(), doc! { "_id": &owner, "file": file }).await? {
            return Ok(true);
        }
        match self::owner(store, file).await? {
            Some(now) if now != owner => owner = now,
            _ => break,
        }
    }
    exists(store, store.name("versions"), doc! { "file": file }).await
}

/// The key by which other clients of GridFS know the file.
async fn owner(store: &Store, file: ObjectId) -> Result<Option<String>> {
    let filter = doc! { "_id": file, "metadata.storage": 1 };
    let found = one(store, store.name("files"), filter, doc! { "filename": 1 }).await?;
    Ok(found.and_then(|file| file.get_str("filename").ok().map(str::to_owned)))
}

async fn exists(store: &Store, collection: String, filter: Document) -> Result<bool> {
    Ok(one(store, collection, filter, doc! { "_id": 1 }).await?.is_some())
}

async fn one(store: &Store, collection: String, filter: Document, projection: Document) -> Result<Option<Document>> {
    let find = doc! { "find": collection, "filter": filter, "projection": projection, "limit": 1, "singleBatch": true };
    let answer = store.command(find).await?;
    let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|_| crate::error::unreadable())?;
    Ok(batch.first().and_then(|document| document.as_document()).cloned())
}

/// Deletes a file that a lease names, unless a version does, too. What fails is left to the sweep.
pub(crate) async fn discard_unnamed(store: &Store, file: ObjectId, key: &Key) {
    match is_named(store, file, key).await {
        Ok(false) => discard(store, file).await,
        Ok(true) => end_lease(store, file).await,
        Err(_) => {}
    }
}
