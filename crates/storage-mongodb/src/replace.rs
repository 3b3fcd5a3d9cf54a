//! Writing and deleting one key where older versions are kept.

use mongodb::bson::{Document, doc};
use storage_core::{Condition, Error, ErrorKind, Key, Result};

use crate::{
    condition::{checked, matches},
    files, read,
    session::Db,
    versions,
    write::{ATTEMPTS, Item, NO_REVISION, Updated, remove, replaced, same, update},
};

/// [`write::write`] once. `false` if another writer was faster, and nothing was done.
pub(crate) async fn try_replace(db: &mut Db, item: &Item) -> Result<bool> {
    let there = read::current(db, &item.key).await?;
    checked(item, there.as_ref())?;
    let n = versions::next(db, &item.key, there.as_ref()).await?;
    let filter = there.as_ref().map_or_else(|| doc! { "_id": item.key.as_str(), "rev": NO_REVISION }, same);
    let statement = item.nth_statement(db, filter, there.is_none(), Some(n))?;
    let kept = match &there {
        Some(there) => versions::keep(db, &item.key, there).await?,
        None => None,
    };
    let old = there.as_ref().and_then(|there| there.get_object_id("file").ok()).filter(|_| kept.is_none());
    if let Some(old) = old {
        files::lease(&db.store, old, &item.key, "replaced").await?;
    }
    let done = update(db, statement).await;
    match &done {
        Ok(Updated::Yes) => {
            if let Some(old) = old {
                files::discard(&db.store, old).await;
            }
            forgive(versions::prune(db, &item.key, true, n).await);
        }
        // Perhaps it was done: then what was kept is a version.
        Err(e) if e.is_ambiguous() => {}
        _ => {
            versions::take_back(db, kept).await;
            if let Some(old) = old {
                files::end_lease(&db.store, old).await;
            }
        }
    }
    Ok(matches!(done?, Updated::Yes))
}

/// That old versions could not be forgotten undoes no write; the next write of the key does it.
fn forgive(pruned: Result<()>) {
    if let Err(error) = pruned {
        tracing::warn!(%error, "old versions could not be deleted");
    }
}

/// Keeps what the transaction is about to replace, and says whether it does.
pub(crate) async fn keep_within(db: &mut Db, key: &Key, there: Option<&Document>) -> Result<bool> {
    match there {
        Some(there) if db.store.versions.is_some() => Ok(versions::keep(db, key, there).await?.is_some()),
        _ => Ok(false),
    }
}

/// Deletes a key if the condition holds, and keeps its value as a version.
pub(crate) async fn delete_kept(db: &mut Db, key: &Key, condition: Option<&Condition>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let there = read::current(db, key).await?;
        if let Some(Condition::IfMatch(etag)) = condition {
            matches(there.as_ref(), etag)?;
        }
        let Some(there) = there else { return Ok(()) };
        let kept = versions::keep(db, key, &there).await?;
        match remove_all_of(db, key, &there, kept.is_some()).await {
            Ok(true) => {
                forgive(versions::prune(db, key, false, versions::count(&there)).await);
                return Ok(());
            }
            Ok(false) => versions::take_back(db, kept).await,
            Err(e) if e.is_ambiguous() => return Err(e),
            Err(e) => {
                versions::take_back(db, kept).await;
                return Err(e);
            }
        }
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "write conflict: other writers changed the key first again and again; retry later",
    ))
}

/// Deletes the newest value if it is of this revision, and keeps nothing of it.
pub(crate) async fn delete_revision(db: &mut Db, key: &Key, rev: &str) -> Result<()> {
    let there = read::current(db, key).await?.filter(|there| there.get_str("rev").is_ok_and(|other| other == rev));
    let Some(there) = there else { return Ok(()) };
    if db.in_transaction() {
        remove(db, doc! { "_id": key.as_str() }).await?;
        replaced(db, key, Some(&there));
        return Ok(());
    }
    remove_all_of(db, key, &there, false).await.map(drop)
}

/// Removes a document that is still the same, and its file unless a version has it.
async fn remove_all_of(db: &mut Db, key: &Key, there: &Document, kept: bool) -> Result<bool> {
    let old = there.get_object_id("file").ok().filter(|_| !kept);
    if let Some(old) = old {
        files::lease(&db.store, old, key, "replaced").await?;
    }
    let done = remove(db, same(there)).await?;
    match (old, done) {
        (Some(old), true) => files::discard(&db.store, old).await,
        (Some(old), false) => files::end_lease(&db.store, old).await,
        (None, _) => {}
    }
    Ok(done)
}
