//! Values that were replaced or deleted, as far as they are kept: documents in `<collection>.versions`, made before the write that
//! replaces the value.
//!
//! A document there is that of the key with an id of its own; `n` counts the writes of the key. A writer that another was faster than
//! takes back what it has kept. One that ended before it could leaves a version twice, or that of the value which is still the newest:
//! both are passed over, for their `rev` is known.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use mongodb::bson::{Document, doc, oid::ObjectId};
use storage_core::{Entry, EntryStream, Error, Key, Result, VersionId, pending::Keys};

use crate::{
    document::{self, Found},
    error, files, read, replace,
    session::{Db, Session, Touches},
};

impl Session {
    pub(crate) async fn versions(&self, key: &Key) -> Result<EntryStream> {
        self.keeps_versions()?;
        let sought = key.clone();
        let job = |mut db: Db| async move {
            let now = read::one(&mut db, &sought, false).await?;
            let older = older(&mut db, &sought, doc! { "data": 0 }).await?;
            let mut entries: Vec<Entry> = now.into_iter().map(|found| found.entry).collect();
            for document in older {
                entries.extend(read_one(&db, &sought, document, false).map(|found| found.entry));
            }
            let mut known = HashSet::new();
            entries.retain(|entry| known.insert(entry.etag.clone()));
            Ok(entries)
        };
        let entries = self.run(Keys::from(key), Touches::Keys(std::slice::from_ref(key)), job).await?;
        Ok(stream::iter(entries.into_iter().map(Ok)).boxed())
    }

    pub(crate) fn keeps_versions(&self) -> Result<()> {
        match self.store.versions {
            Some(_) => Ok(()),
            None => Err(Error::unsupported("versions")),
        }
    }

    pub(crate) async fn delete_version(&self, key: &Key, version: &VersionId) -> Result<()> {
        self.keeps_versions()?;
        let (key, rev) = (key.clone(), version.to_string());
        let keys = [key.clone()];
        let job = |mut db: Db| async move { delete(&mut db, &key, &rev).await };
        self.run(Keys::from(&keys[0]), Touches::Keys(&keys), job).await
    }
}

/// Deletes a version for good, be it the newest.
pub(crate) async fn delete(db: &mut Db, key: &Key, rev: &str) -> Result<()> {
    replace::delete_revision(db, key, rev).await?;
    let all = older(db, key, doc! { "rev": 1, "file": 1 }).await?;
    let of_rev = |old: &Document| old.get_str("rev").is_ok_and(|other| other == rev);
    forget(db, key, all.into_iter().filter(of_rev).collect()).await
}

/// The value that was written as this version.
pub(crate) async fn find(db: &mut Db, key: &Key, version: &VersionId, with_data: bool) -> Result<Option<Found>> {
    let now = read::one(db, key, with_data).await?;
    let is_it = |found: &Found| found.entry.version.as_ref() == Some(version);
    if let Some(now) = now.filter(is_it) {
        return Ok(Some(now));
    }
    let mut find = doc! {
        "find": db.store.name("versions"),
        "filter": { "key": key.as_str(), "rev": version.as_str() },
        "limit": 1,
        "singleBatch": true,
    };
    if !with_data {
        find.insert("projection", doc! { "data": 0 });
    }
    let (mut documents, _) = db.documents(find).await?;
    Ok(documents.pop().and_then(|document| read_one(db, key, document, with_data)))
}

/// The number of the write that replaces this document, or creates the key.
pub(crate) async fn next(db: &mut Db, key: &Key, there: Option<&Document>) -> Result<i64> {
    let newest = match there {
        Some(there) => count(there),
        None => older(db, key, doc! { "n": 1 }).await?.first().map_or(0, count),
    };
    Ok(newest + 1)
}

/// The number of the write that made this document.
pub(crate) fn count(document: &Document) -> i64 {
    document.get_i64("n").unwrap_or(0)
}

/// Keeps a document, whole as it was read, before it is replaced. Returns what to take back if it is not.
pub(crate) async fn keep(db: &mut Db, key: &Key, there: &Document) -> Result<Option<ObjectId>> {
    if keeps_one(db) {
        return Ok(None);
    }
    let id = ObjectId::new();
    let mut document = doc! { "_id": id, "key": key.as_str() };
    document.extend(there.clone().into_iter().filter(|(name, _)| name != "_id"));
    let answer = db.write(doc! { "insert": db.store.name("versions"), "documents": [document] }).await?;
    match error::write_errors(&answer).first() {
        Some((_, code)) => Err(error::from_code(*code)),
        None => Ok(Some(id)),
    }
}

pub(crate) async fn take_back(db: &Db, kept: Option<ObjectId>) {
    if let Some(id) = kept {
        // What cannot be taken back is passed over when versions are read.
        let deletes = doc! { "q": { "_id": id }, "limit": 1 };
        let _ = db.store.command(doc! { "delete": db.store.name("versions"), "deletes": [deletes] }).await;
    }
}

/// Forgets the oldest versions of a key which has a value now, or has none. `n` counts its writes: as long as it is small, there cannot
/// be too many.
pub(crate) async fn prune(db: &mut Db, key: &Key, has_value: bool, n: i64) -> Result<()> {
    let Some(most) = db.store.versions.filter(|most| n > i64::try_from(*most).unwrap_or(i64::MAX)) else {
        return Ok(());
    };
    let most = match (has_value, most) {
        (true, most) => most - 1,
        (false, 1) => 0,
        (false, most) => most,
    };
    let (mut known, mut left) = (HashSet::new(), Vec::new());
    for old in older(db, key, doc! { "rev": 1, "file": 1 }).await? {
        let rev = old.get_str("rev").unwrap_or_default().to_owned();
        if !known.contains(&rev) && known.len() as u64 == most {
            left.push(old);
        } else {
            known.insert(rev);
        }
    }
    forget(db, key, left).await
}

/// Whether there are no older versions, so that a deleted key keeps none.
fn keeps_one(db: &Db) -> bool {
    db.store.versions == Some(1)
}

/// The documents of a key's older values, the newest first.
async fn older(db: &mut Db, key: &Key, projection: Document) -> Result<Vec<Document>> {
    let mut all = Vec::new();
    loop {
        let find = doc! {
            "find": db.store.name("versions"),
            "filter": { "key": key.as_str() },
            "sort": { "n": -1, "_id": -1 },
            "projection": &projection,
            "skip": all.len() as i64,
            "batchSize": 1000,
        };
        let (documents, more) = db.documents(find).await?;
        all.extend(documents);
        if !more {
            return Ok(all);
        }
    }
}

fn read_one(db: &Db, key: &Key, mut document: Document, with_data: bool) -> Option<Found> {
    document.insert("_id", key.as_str());
    document::found(document, with_data, true).map(|found| db.store.versioned(found))
}

/// Deletes versions for good, with their files.
async fn forget(db: &mut Db, key: &Key, versions: Vec<Document>) -> Result<()> {
    if versions.is_empty() {
        return Ok(());
    }
    let files: Vec<ObjectId> = versions.iter().filter_map(|old| old.get_object_id("file").ok()).collect();
    if !db.in_transaction() {
        for file in &files {
            files::lease(&db.store, *file, key, "replaced").await?;
        }
    }
    let ids: Vec<_> = versions.iter().filter_map(|old| old.get("_id")).collect();
    let deletes = doc! { "q": { "_id": { "$in": ids } }, "limit": 0 };
    let answer = db.write(doc! { "delete": db.store.name("versions"), "deletes": [deletes] }).await?;
    if let Some((_, code)) = error::write_errors(&answer).first() {
        return Err(error::from_code(*code));
    }
    match &mut db.open {
        Some(open) => open.replaced.extend(files.into_iter().map(|file| (file, key.clone()))),
        // One that another version or the value names as well is kept.
        None => {
            for file in files {
                files::discard_unnamed(&db.store, file, key).await;
            }
        }
    }
    Ok(())
}
