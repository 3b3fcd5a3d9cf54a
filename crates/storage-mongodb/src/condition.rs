//! Conditions, as they hold of what is there.

use mongodb::bson::{Document, doc};
use storage_core::{Condition, Error, ErrorKind, Etag, Key, Result};

use crate::{document, session::Db, write::Item};

pub(crate) fn checked(item: &Item, there: Option<&Document>) -> Result<()> {
    match &item.condition {
        None => Ok(()),
        Some(Condition::IfAbsent) if there.is_some() => Err(exists()),
        Some(Condition::IfAbsent) => Ok(()),
        Some(Condition::IfMatch(etag)) => matches(there, etag),
        Some(_) => Err(Error::unsupported("this condition")),
    }
}

pub(crate) fn matches(there: Option<&Document>, etag: &Etag) -> Result<()> {
    let entry = there.and_then(|there| {
        let with_content = there.contains_key("file") || there.contains_key("data");
        document::found(there.clone(), with_content, true).map(|found| found.entry)
    });
    Condition::IfMatch(etag.clone()).check(entry.as_ref())
}

/// A value that cannot be read has no etag to match, which a document without its data does not show.
pub(crate) async fn refuse_unreadable(db: &mut Db, key: &Key, condition: Option<&Condition>) -> Result<()> {
    let Some(Condition::IfMatch(etag)) = condition else { return Ok(()) };
    let find = doc! {
        "find": &db.store.collection,
        "filter": { "_id": key.as_str(), "rev": etag.as_str(), "$nor": [document::sound()] },
        "projection": { "_id": 1 },
        "limit": 1,
        "singleBatch": true,
    };
    match db.documents(find).await?.0.is_empty() {
        true => Ok(()),
        false => matches(None, etag),
    }
}

pub(crate) fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "the key already has a value")
}
