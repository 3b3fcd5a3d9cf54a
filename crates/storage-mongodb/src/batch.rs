//! Several keys at once: one command for many of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream};
use mongodb::bson::{Document, doc};
use storage_core::{
    Body, Condition, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, Object, PutOptions, Result, Transaction,
    pending::Keys,
};

use crate::{
    backend::Mongo,
    condition,
    document::{self, Content, Found},
    error,
    session::{Db, Session, Touches},
    transaction::MongoTransaction,
    versions,
    write::{self, Item},
};

/// How many items one command takes, and how many bytes of values.
const ITEMS: usize = 1000;
const BYTES: usize = 8 << 20;
/// How often a delete that met other writers is made again.
const ATTEMPTS: usize = 100;
/// How many single writes are under way at once.
const CONCURRENCY: usize = 8;

impl Session {
    pub(crate) async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let mut results = Vec::with_capacity(items.len());
        for some in items.chunks(ITEMS) {
            let newest = some.iter().filter(|(_, options)| options.version.is_none());
            let keys: Vec<Key> = newest.map(|(key, _)| key.clone()).collect();
            let sought = keys.clone();
            let job = |mut db: Db| async move { find_all(&mut db, sought).await };
            let found = self.run(Keys::from(Vec::new()), Touches::Keys(&keys), job).await?;
            for (key, options) in some {
                let result = match &options.version {
                    Some(_) => self.get(key, options.clone()).await,
                    None => match self.object(found.get(key).cloned(), options).await {
                        // Overwritten meanwhile: the single read tries again.
                        Err(e) if e.kind() == ErrorKind::Conflict => self.get(key, options.clone()).await,
                        result => result,
                    },
                };
                results.push(result.map_err(|e| e.with_key(key)));
            }
        }
        Ok(results)
    }

    pub(crate) async fn put_batch(&self, items: Vec<(Key, Body, PutOptions)>) -> Result<Vec<Result<Entry>>> {
        let mut results: Vec<Option<Result<Entry>>> = items.iter().map(|_| None).collect();
        let distinct = items.iter().map(|(key, ..)| key).collect::<HashSet<_>>().len() == items.len();
        let (mut together, mut single, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (i, (key, body, options)) in items.into_iter().enumerate() {
            let small = body.is_in_memory() && body.len().is_some_and(|len| len <= self.store.inline_limit as u64);
            let inserts = matches!(options.condition, None | Some(Condition::IfAbsent));
            if !(distinct && small && inserts && self.store.versions.is_none()) {
                single.push((i, key, body, options));
                continue;
            }
            let value = body.bytes(self.store.inline_limit as u64).await?;
            let size = value.len() + options.metadata.as_ref().map_or(0, |metadata| metadata.size() * 2);
            if together.len() == ITEMS || (bytes + size > BYTES && !together.is_empty()) {
                self.write_all(std::mem::take(&mut together), &mut results).await?;
                bytes = 0;
            }
            bytes += size;
            together.push((i, Item::new(&key, Content::Inline(value), &options)));
        }
        if !together.is_empty() {
            self.write_all(together, &mut results).await?;
        }
        let at_once = if distinct { CONCURRENCY } else { 1 };
        let writes = single.into_iter().map(|(i, key, body, options)| async move {
            (i, self.put(&key, body, options).await.map_err(|e| e.with_key(&key)))
        });
        let written: Vec<_> = stream::iter(writes).buffered(at_once).collect().await;
        for (i, result) in written {
            results[i] = Some(settle(result, self.in_transaction())?);
        }
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(document::unreadable()))).collect())
    }

    /// Writes small values of different keys by one command, and those singly that have a file now.
    async fn write_all(&self, items: Vec<(usize, Item)>, results: &mut [Option<Result<Entry>>]) -> Result<()> {
        let keys: Vec<Key> = items.iter().map(|(_, item)| item.key.clone()).collect();
        let places: Vec<usize> = items.iter().map(|(i, _)| *i).collect();
        let job = |mut db: Db| async move {
            if db.in_transaction() {
                return write_within(&mut db, &items).await;
            }
            let statement = |(_, item): &(usize, Item)| {
                let filter = match item.condition {
                    None => doc! { "_id": item.key.as_str(), "file": { "$exists": false } },
                    Some(_) => doc! { "_id": item.key.as_str(), "rev": write::NO_REVISION },
                };
                item.statement(&db, filter, true)
            };
            let statements: Vec<Document> = items.iter().map(statement).collect::<Result<_>>()?;
            let update = doc! { "update": &db.store.collection, "updates": statements, "ordered": false };
            let failed = many(&mut db, update, items.len()).await?;
            let mut results = Vec::with_capacity(items.len());
            for (n, (_, item)) in items.iter().enumerate() {
                results.push(match failed.get(&n) {
                    None => Ok(item.entry(&db.store)),
                    Some(11000) if item.condition.is_some() => Err(condition::exists()),
                    // There is a file, or somebody else creates the key.
                    Some(11000 | 112) => write::write(&mut db, item).await.map(|()| item.entry(&db.store)),
                    Some(code) => Err(error::from_code(*code)),
                });
            }
            Ok(results)
        };
        let written = self.run(Keys::from(keys.clone()), Touches::Keys(&keys), job).await;
        match written {
            Ok(written) => {
                for ((i, key), result) in places.into_iter().zip(&keys).zip(written) {
                    results[i] = Some(result.map_err(|e| e.with_key(key)));
                }
            }
            Err(e) if self.in_transaction() => return Err(e),
            Err(e) => {
                for (i, key) in places.into_iter().zip(&keys) {
                    results[i] = Some(Err(e.clone().with_key(key)));
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>) -> Result<Vec<Result<()>>> {
        let plain = self.store.versions.is_none() && items.iter().all(|(_, options)| *options == DeleteOptions::new());
        let mut results = Vec::with_capacity(items.len());
        for some in items.chunks(ITEMS) {
            let keys: Vec<Key> = some.iter().map(|(key, _)| key.clone()).collect();
            let some = some.to_vec();
            let job = move |mut db: Db| async move {
                if plain {
                    delete_all(&mut db, &some).await?;
                    return Ok(some.iter().map(|_| Ok(())).collect());
                }
                let mut results = Vec::with_capacity(some.len());
                for (key, options) in &some {
                    let deleted = match &options.version {
                        None => write::delete(&mut db, key, options.condition.as_ref()).await,
                        Some(_) if db.store.versions.is_none() => Err(Error::unsupported("versions")),
                        Some(version) => versions::delete(&mut db, key, version.as_str()).await,
                    };
                    results.push(settle(deleted.map_err(|e| e.with_key(key)), db.in_transaction())?);
                }
                Ok(results)
            };
            let deleted: Vec<Result<()>> = self.run(Keys::from(keys.clone()), Touches::Keys(&keys), job).await?;
            results.extend(deleted);
        }
        Ok(results)
    }
}

/// Writes small values of different keys in a transaction: a look at what is there, and one command. What fails beside a condition ends
/// the transaction.
async fn write_within(db: &mut Db, items: &[(usize, Item)]) -> Result<Vec<Result<Entry>>> {
    let keys: Vec<&str> = items.iter().map(|(_, item)| item.key.as_str()).collect();
    let there = look(db, doc! { "$in": keys }, ITEMS).await?;
    let there: HashMap<&str, &Document> =
        there.iter().filter_map(|there| Some((there.get_str("_id").ok()?, there))).collect();
    let (mut results, mut statements) = (Vec::with_capacity(items.len()), Vec::new());
    for (_, item) in items {
        let old = there.get(item.key.as_str()).copied();
        let checked = condition::checked(item, old);
        if checked.is_ok() {
            statements.push(item.statement(db, doc! { "_id": item.key.as_str() }, true)?);
            write::replaced(db, &item.key, old);
        }
        results.push(checked.map(|()| item.entry(&db.store)));
    }
    if !statements.is_empty() {
        db.write(doc! { "update": &db.store.collection, "updates": statements, "ordered": false }).await?;
    }
    Ok(results)
}

/// Runs a write of so many statements, and returns the codes of those that failed, by their index.
async fn many(db: &mut Db, command: Document, statements: usize) -> Result<HashMap<usize, i32>> {
    match db.write(command).await {
        Ok(answer) => Ok(error::write_errors(&answer).into_iter().collect()),
        Err(e) if write::met_another(db, &e) => Ok((0..statements).map(|n| (n, 112)).collect()),
        Err(e) => Err(e),
    }
}

/// Within a transaction, what is not the item's own failure is that of the transaction.
fn settle<T>(result: Result<T>, within: bool) -> Result<Result<T>> {
    let own = |e: &Error| matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed);
    match result {
        Err(e) if within && !own(&e) => Err(e),
        result => Ok(result),
    }
}

/// All or none, in a transaction of their own.
pub(crate) async fn atomic<T, F>(this: &Mongo, batch: impl FnOnce(Arc<MongoTransaction>) -> F) -> Result<Vec<Result<T>>>
where
    F: Future<Output = Result<Vec<Result<T>>>>,
{
    let transaction = Arc::new(MongoTransaction::begin(this.session()).await?);
    match batch(transaction.clone()).await {
        Ok(done) => transaction.commit().await.map(|()| done),
        Err(e) => {
            // The item's own error says more than a failing rollback; dropping the transaction ends it in any case.
            let _ = transaction.rollback().await;
            Err(e)
        }
    }
}

/// Deletes keys, each once: two commands, and more for those that have files or that others write meanwhile.
async fn delete_all(db: &mut Db, items: &[(Key, DeleteOptions)]) -> Result<()> {
    let keys: Vec<&str> = items.iter().map(|(key, _)| key.as_str()).collect();
    let seen = look(db, doc! { "$in": keys }, ITEMS).await?;
    let there: HashSet<String> = seen.iter().filter_map(|seen| seen.get_str("_id").ok().map(str::to_owned)).collect();
    delete_seen(db, seen).await?;
    if db.in_transaction() {
        // Where there is nothing, the transaction has to meet whoever creates the key.
        for (key, _) in items.iter().filter(|(key, _)| !there.contains(key.as_str())) {
            write::delete(db, key, None).await?;
        }
    }
    Ok(())
}

/// What a delete has to know of the documents of these keys, in their order.
pub(crate) async fn look(db: &mut Db, keys: Document, limit: usize) -> Result<Vec<Document>> {
    let find = doc! {
        "find": &db.store.collection,
        "filter": { "_id": keys },
        "projection": { "rev": 1, "born": 1, "file": 1 },
        "sort": { "_id": 1 },
        "limit": limit as i64,
        // Without it the first answer has 101.
        "batchSize": limit as i64,
        "singleBatch": true,
    };
    Ok(db.documents(find).await?.0)
}

/// Deletes the keys of these documents, each at one moment. What was created anew after a key was deleted is left alone: `born` says
/// whether a value has replaced the one that was seen, or was put where nothing was.
pub(crate) async fn delete_seen(db: &mut Db, seen: Vec<Document>) -> Result<()> {
    let single = db.store.versions.is_some();
    let (large, mut small): (Vec<_>, Vec<_>) = seen.into_iter().partition(|seen| single || seen.contains_key("file"));
    for _ in 0..ATTEMPTS {
        if small.is_empty() {
            break;
        }
        let statement = |seen: &Document| doc! { "q": write::same(seen), "limit": 1 };
        let deletes: Vec<Document> = small.iter().map(statement).collect();
        let command = doc! { "delete": &db.store.collection, "deletes": deletes, "ordered": false };
        let deleted = match db.write(command).await {
            Err(e) if write::met_another(db, &e) => 0,
            answer => {
                let answer = answer?;
                if let Some((_, code)) = error::write_errors(&answer).first().filter(|(_, code)| *code != 112) {
                    return Err(error::from_code(*code));
                }
                usize::try_from(answer.get_i32("n").unwrap_or(0)).unwrap_or(0)
            }
        };
        if deleted == small.len() {
            small.clear();
            break;
        }
        let keys: Vec<&str> = small.iter().filter_map(|seen| seen.get_str("_id").ok()).collect();
        let now = look(db, doc! { "$in": keys }, ITEMS).await?;
        let old = |now: &Document| {
            small.iter().any(|old| old.get("_id") == now.get("_id") && old.get("born") == now.get("born"))
        };
        let left: Vec<Document> = now.into_iter().filter(old).collect();
        let (became_large, still): (Vec<_>, Vec<_>) = left.into_iter().partition(|seen| seen.contains_key("file"));
        delete_each(db, became_large).await?;
        small = still;
    }
    if !small.is_empty() {
        return Err(Error::new(
            ErrorKind::Conflict,
            "write conflict: other writers changed the keys first again and again; retry later",
        ));
    }
    delete_each(db, large).await
}

async fn delete_each(db: &mut Db, seen: Vec<Document>) -> Result<()> {
    for key in seen.iter().filter_map(|seen| Key::parse(seen.get_str("_id").ok()?).ok()) {
        write::delete(db, &key, None).await?;
    }
    Ok(())
}

/// The values of these keys that there are.
async fn find_all(db: &mut Db, mut keys: Vec<Key>) -> Result<HashMap<Key, Found>> {
    keys.sort();
    keys.dedup();
    let mut found = HashMap::new();
    let mut rest = keys.as_slice();
    while !rest.is_empty() {
        let find = doc! {
            "find": &db.store.collection,
            "filter": { "_id": { "$in": rest.iter().map(Key::as_str).collect::<Vec<_>>() } },
            "sort": { "_id": 1 },
            "limit": rest.len() as i64,
            "batchSize": rest.len() as i64,
        };
        let (documents, more): (Vec<Document>, bool) = db.documents(find).await?;
        let mut last = None;
        for one in documents.into_iter().filter_map(|document| document::found(document, true, true)) {
            let one = db.store.versioned(one);
            last = Some(one.entry.key.clone());
            found.insert(one.entry.key.clone(), one);
        }
        // The answer was full: the next goes on behind its last.
        rest = match last.filter(|_| more) {
            Some(last) => &rest[rest.partition_point(|key| *key <= last)..],
            None => &[],
        };
    }
    Ok(found)
}
