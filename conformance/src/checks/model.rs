//! A store beside an ordered map: after each of many calls both hold the same.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::TryStreamExt;
use storage_core::{
    ByteRange, Bytes, Condition, CopyOptions, DeleteOptions, Error, ErrorKind, Etag, GetOptions, ListItem, ListOptions,
    Metadata, PutOptions, RenameOptions, Result, Storage,
};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_bytes, expect_eq},
    model::{Model, Value},
    support::noise,
};

/// Some are prefixes of others, and all collide often.
const KEYS: [&str; 9] = ["a", "a/b", "a/b/c", "a/c", "a0", "b", "b/", "é", "Z"];
const CALLS: usize = 250;

/// A random sequence of calls (writes with and without conditions, copies, renames, batches, clears, reads of ranges, listings) is answered
/// as by an ordered map, and leaves the same keys, values and metadata.
/// Profile: full
pub async fn random_calls(c: Context) -> Outcome {
    let mut both = Both { store: &c.storage, model: Model::default(), stale: BTreeMap::new(), context: &c };
    let mut rng = c.rng();
    for call in 0..CALLS {
        both.call(&mut rng).await?;
        if call % 10 == 9 {
            both.compare().await?;
        }
    }
    both.compare().await
}

struct Both<'a> {
    store: &'a Storage,
    model: Model,
    /// An etag of each key that it has no more.
    stale: BTreeMap<String, Etag>,
    context: &'a Context,
}

impl Both<'_> {
    async fn call(&mut self, rng: &mut fastrand::Rng) -> Outcome {
        let (key, other) = (KEYS[rng.usize(..KEYS.len())], KEYS[rng.usize(..KEYS.len())]);
        let capabilities = self.context.info().capabilities;
        match rng.u8(0..12) {
            0..4 => {
                let condition = self.condition(key, rng).filter(|_| capabilities.conditional);
                let (bytes, metadata) = (noise(rng.usize(0..600), rng.u64(..)), random_metadata(rng));
                let mut options = PutOptions::new().metadata(metadata.clone());
                options.condition = condition.clone();
                let done = self.store.put_with(key, bytes.clone(), options).await;
                let etag = done.as_ref().ok().and_then(|entry| entry.etag.clone());
                let value = Value { bytes, metadata: Arc::new(metadata), etag };
                self.note(key);
                let expected = self.model.put(key, value, condition.as_ref());
                same_outcome("the put", done, expected)
            }
            4 => {
                let condition = self.condition(key, rng).filter(|_| capabilities.conditional_delete);
                // What is to be deleted cannot be asked to be absent.
                let condition = condition.filter(|condition| *condition != Condition::IfAbsent);
                let mut options = DeleteOptions::new();
                options.condition = condition.clone();
                let done = self.store.delete_with(key, options).await;
                self.note(key);
                same_outcome("the delete", done, self.model.delete(key, condition.as_ref()))
            }
            5 if key != other => {
                let metadata = rng.bool().then(|| random_metadata(rng));
                let mut options = CopyOptions::new();
                options.metadata = metadata.clone().map(Arc::new);
                let done = self.store.copy_with(key, other, options).await;
                let etag = done.as_ref().ok().and_then(|entry| entry.etag.clone());
                self.note(other);
                same_outcome("the copy", done, self.model.copy(key, other, metadata.map(Arc::new), etag))
            }
            6 if key != other => {
                let done = self.store.rename_with(key, other, RenameOptions::new()).await;
                let etag = done.as_ref().ok().and_then(|entry| entry.etag.clone());
                self.note(key);
                self.note(other);
                same_outcome("the rename", done, self.model.rename(key, other, etag))
            }
            7 => {
                let items: Vec<_> = (0..rng.usize(1..5)).map(|_| KEYS[rng.usize(..KEYS.len())]).collect();
                let values: Vec<Bytes> = items.iter().map(|_| noise(rng.usize(0..300), rng.u64(..))).collect();
                let pairs: Vec<_> = items.iter().copied().zip(values.clone()).collect();
                self.store.put_batch(pairs).await?;
                for (key, bytes) in items.into_iter().zip(values) {
                    self.note(key);
                    let etag = self.store.stat(key).await?.and_then(|entry| entry.etag);
                    let value = Value { bytes, metadata: Arc::default(), etag };
                    same_outcome("the batch", Ok(()), self.model.put(key, value, None))?;
                }
                Ok(())
            }
            8 => {
                self.store.delete_batch([key, other]).await?;
                for key in [key, other] {
                    self.note(key);
                    same_outcome("the batch", Ok(()), self.model.delete(key, None))?;
                }
                Ok(())
            }
            9 if rng.u8(0..4) == 0 => {
                let prefix = ["a/", "b", "a/b/", "é"][rng.usize(0..4)];
                for key in KEYS.into_iter().filter(|key| key.starts_with(prefix)) {
                    self.note(key);
                }
                self.store.clear_prefix(prefix).await?;
                self.model.clear(prefix);
                Ok(())
            }
            10 => self.read(key, rng).await,
            _ => self.list(rng).await,
        }
    }

    /// Notes that the key may lose its etag.
    fn note(&mut self, key: &str) {
        if let Some(etag) = self.model.0.get(key).and_then(|value| value.etag.clone()) {
            self.stale.insert(key.to_owned(), etag);
        }
    }

    /// One that may hold, or not.
    fn condition(&self, key: &str, rng: &mut fastrand::Rng) -> Option<Condition> {
        let current = self.model.0.get(key).and_then(|value| value.etag.clone());
        // Equal bytes may have had the same etag before.
        match rng.u8(0..6) {
            0 => Some(Condition::IfAbsent),
            1 => current.map(Condition::IfMatch),
            2 => self.stale.get(key).cloned().filter(|stale| Some(stale) != current.as_ref()).map(Condition::IfMatch),
            _ => None,
        }
    }

    async fn read(&self, key: &str, rng: &mut fastrand::Rng) -> Outcome {
        let (from, to) = (rng.u64(0..300), rng.u64(300..700));
        let seen = self.store.get_with(key, GetOptions::new().range(ByteRange::Bounded(from, to))).await;
        match self.model.0.get(key) {
            None => expect_eq("a range of nothing", seen?, None::<Bytes>),
            Some(value) if from > value.bytes.len() as u64 => {
                let refused = matches!(&seen, Err(e) if e.kind() == ErrorKind::RangeNotSatisfiable);
                expect(refused, || format!("expected a range behind the end to be refused, saw {seen:?}"))
            }
            Some(value) => {
                let to = value.bytes.len().min(to as usize);
                let seen = seen?.ok_or_else(|| Failure::Failed(format!("expected a range of {key:?}, saw nothing")))?;
                expect_bytes("the range", &seen, &value.bytes[from as usize..to])
            }
        }
    }

    async fn list(&self, rng: &mut fastrand::Rng) -> Outcome {
        let prefix = ["", "", "a", "a/", "b/", "é", "x"][rng.usize(0..7)];
        let after = rng.bool().then(|| KEYS[rng.usize(..KEYS.len())]);
        let (delimited, limit) = (rng.bool(), rng.usize(1..8));
        let mut options = ListOptions::new().prefix(prefix).delimited(delimited).limit(limit);
        options.start_after = after.map(str::to_owned);
        let seen: Vec<ListItem> = self.store.list_with(options.clone()).await?.try_collect().await?;
        let seen: Vec<&str> = seen.iter().map(ListItem::position).collect();
        expect_eq(&format!("the listing {options:?}"), seen, self.model.list(prefix, after, delimited, limit))
    }

    /// Looks at everything.
    async fn compare(&self) -> Outcome {
        let options = ListOptions::new().metadata(true);
        let listed: Vec<ListItem> = self.store.list_with(options).await?.try_collect().await?;
        let listed: Vec<_> = listed.into_iter().filter_map(ListItem::into_entry).collect();
        let seen: Vec<_> = listed.iter().map(|entry| entry.key.as_str()).collect();
        expect_eq("the keys", seen, self.model.0.keys().map(String::as_str).collect::<Vec<_>>())?;
        for (entry, (key, value)) in listed.iter().zip(&self.model.0) {
            expect_eq(&format!("the size of {key:?}"), entry.size, value.bytes.len() as u64)?;
            expect_eq(&format!("the metadata of {key:?}"), entry.metadata.as_ref(), Some(&value.metadata))?;
            let bytes = self.store.get(key.as_str()).await?.unwrap_or_default();
            expect_bytes(&format!("the value of {key:?}"), &bytes, &value.bytes)?;
        }
        Ok(())
    }
}

fn random_metadata(rng: &mut fastrand::Rng) -> Metadata {
    let metadata = Metadata::new().field("n", rng.i64(-3..3));
    if rng.bool() { metadata.tag("t").content_type("text/plain") } else { metadata }
}

fn same_outcome<T>(what: &str, seen: Result<T>, expected: std::result::Result<(), ErrorKind>) -> Outcome {
    match (seen, expected) {
        (Ok(_), Ok(())) => Ok(()),
        (Err(e), Err(kind)) if e.kind() == kind => Ok(()),
        (seen, expected) => {
            let seen = seen.map(drop).map_err(|e: Error| e.to_string());
            Err(Failure::Failed(format!("{what}\nexpected: {expected:?}\nsaw: {seen:?}")))
        }
    }
}
