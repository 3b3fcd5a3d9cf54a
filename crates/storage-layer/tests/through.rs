//! Nothing goes around a layer: every method of the trait, inside transactions too, passes its hook.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use storage_conformance::Recorder;
use storage_core::*;
use storage_layer::{Intercept, Intercepted, Operation, OperationName, Payload, Retryability, Transform, Transformed};
use storage_memory::Memory;

/// What a hook saw: operation, declared bytes, whether it may be repeated.
type Seen = Arc<Mutex<Vec<(OperationName, Option<u64>, Retryability)>>>;

/// Notes what a hook sees; every piece of a streamed body as an operation of the same name again.
#[derive(Debug, Default)]
struct Watching(Seen);

impl Intercept for Watching {
    type Guard = ();

    fn health<'a>(&'a self, ask: BoxFuture<'a, Result<()>>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { ask.await.and(Err(Error::closed())) })
    }

    async fn call<'a, T, F>(&'a self, operation: Operation<'a>, call: F) -> (Result<T>, ())
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        let name = operation.name;
        self.0.lock().unwrap().push((name, operation.bytes, operation.replay));
        if let Some(bodies) = operation.bodies {
            let seen = self.0.clone();
            bodies.around(move |body| {
                let seen = seen.clone();
                let each = move |piece: &Result<Bytes>| {
                    let len = piece.as_ref().map_or(0, Bytes::len) as u64;
                    seen.lock().unwrap().push((name, Some(len), Retryability::Never));
                };
                body.inspect(each).boxed()
            });
        }
        (call().await, ())
    }
}

/// Marks every value it stores and takes the mark off again: reading a value that went around fails.
#[derive(Debug)]
struct Marked;

impl Marked {
    fn unmarked(&self, key: &Key, marked: Bytes) -> Result<Bytes> {
        let whole = marked.strip_prefix(b"mark:").map(|rest| marked.slice_ref(rest));
        whole.ok_or_else(|| Error::new(ErrorKind::Corrupt, "this value went around the layer").with_key(key))
    }
}

/// The entry of the plain value.
fn plain_entry(mut stored: Entry) -> Entry {
    stored.size -= 5;
    stored
}

impl Transform for Marked {
    fn info(&self, inner: &BackendInfo) -> BackendInfo {
        inner.clone()
    }

    async fn encode(&self, _: &Key, body: Body, options: PutOptions) -> Result<(Body, PutOptions)> {
        let marked = [b"mark:", &*body.bytes(u64::MAX).await?].concat();
        Ok((marked.into(), options))
    }

    async fn decode(&self, key: &Key, stored: Object) -> Result<Object> {
        let plain = self.unmarked(key, stored.body.bytes(u64::MAX).await?)?;
        Ok(Object::new(plain_entry(stored.entry), plain))
    }

    async fn read_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: GetOptions,
    ) -> Result<Option<Object>> {
        let Some(stored) = inner.get(key, options).await? else { return Ok(None) };
        let mut plain = self.decode(key, stored).await?;
        let range = range.resolve(plain.entry.size)?;
        let whole = plain.body.bytes(u64::MAX).await?;
        plain.body = whole.slice(range.start as usize..range.end as usize).into();
        Ok(Some(plain))
    }

    async fn entry<S: StorageBackend + ?Sized>(&self, _: &S, stored: Entry) -> Result<Option<Entry>> {
        Ok(Some(plain_entry(stored)))
    }
}

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

/// Calls every method once and fails if any gives another answer than a plain backend would.
async fn call_all(backend: &dyn StorageBackend) -> Result<()> {
    let (a, b, c) = (key("a"), key("b"), key("c"));
    let entry = backend.put(&a, "one".into(), PutOptions::new()).await?;
    assert_eq!(entry.size, 3);
    let value = backend.get(&a, GetOptions::new()).await?.unwrap().body.bytes(9).await?;
    assert_eq!(value, "one");
    let part = backend.get(&a, GetOptions::new().range(1..)).await?.unwrap().body.bytes(9).await?;
    assert_eq!(part, "ne");
    assert_eq!(backend.stat(&a, StatOptions::new()).await?.unwrap().size, 3);
    let batch = vec![(b.clone(), "two".into(), PutOptions::new())];
    assert_eq!(backend.put_batch(batch, BatchOptions::new()).await?.remove(0)?.size, 3);
    let mut found = backend.get_batch(vec![(b.clone(), GetOptions::new())]).await?;
    assert_eq!(found.remove(0)?.unwrap().body.bytes(9).await?, "two");
    assert_eq!(backend.copy(&a, &c, CopyOptions::new()).await?.size, 3);
    backend.rename(&c, &key("d"), RenameOptions::new()).await?;
    let renamed = backend.get(&key("d"), GetOptions::new()).await?.unwrap();
    assert_eq!(renamed.body.bytes(9).await?, "one");
    let listed: Vec<ListItem> = backend.list(ListOptions::new()).await?.try_collect().await?;
    assert!(listed.into_iter().all(|item| item.into_entry().unwrap().size == 3));
    let three = Query::new().filter(Filter::MinSize(3)).filter(Filter::MaxSize(3));
    let queried: Vec<Entry> = backend.query(three).await?.try_collect().await?;
    assert_eq!(queried.len(), 3);
    let versions: Vec<Entry> = backend.versions(&a).await?.try_collect().await?;
    assert_eq!(versions[0].size, 3);
    let presigned = backend.presign(&a, PresignOptions::get(Duration::from_secs(1))).await;
    assert_eq!(presigned.unwrap_err().kind(), ErrorKind::Unsupported);
    backend.delete(&a, DeleteOptions::new()).await?;
    backend.delete_batch(vec![(b, DeleteOptions::new())], BatchOptions::new()).await?.remove(0)?;
    backend.clear("").await
}

/// The operations of the trait, as its source names them.
fn methods() -> BTreeSet<String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../storage-core/src/backend.rs");
    let text = std::fs::read_to_string(source).unwrap();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("async fn "));
    names.map(|name| name.split('(').next().unwrap().to_owned()).filter(|name| name != "health").collect()
}

#[test]
fn there_is_an_operation_for_every_method() {
    let names: BTreeSet<String> = OperationName::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names, methods());
}

#[tokio::test]
async fn every_method_passes_the_hook_and_reaches_the_backend_once() -> Result<()> {
    let (seen, recorder) = (Seen::default(), Recorder::new(Memory::new()));
    let log = recorder.log();
    let storage = Intercepted::new(Arc::new(recorder), Watching(seen.clone()));
    call_all(&storage).await?;
    let tx = storage.begin().await?;
    tx.put(&key("a"), "one".into(), PutOptions::new()).await?;
    tx.commit().await?;
    let tx = storage.begin().await?;
    tx.get(&key("a"), GetOptions::new()).await?;
    tx.rollback().await?;
    storage.disconnect().await?;
    let above: Vec<String> = seen.lock().unwrap().iter().map(|(name, ..)| name.to_string()).collect();
    let below: Vec<String> = log.take().into_iter().map(|name| name.replace("transaction.", "")).collect();
    assert_eq!(above, below);
    assert_eq!(above.into_iter().collect::<BTreeSet<_>>(), methods());
    Ok(())
}

#[tokio::test]
async fn every_method_passes_a_transformation() -> Result<()> {
    let storage = Transformed::new(Arc::new(Memory::new()), Marked);
    call_all(&storage).await?;
    let tx = storage.begin().await?;
    tx.put(&key("left"), "over".into(), PutOptions::new()).await?;
    let seen = tx.get(&key("left"), GetOptions::new()).await?.unwrap();
    assert_eq!(seen.body.bytes(9).await?, "over");
    tx.commit().await?;
    let left = storage.get(&key("left"), GetOptions::new()).await?.unwrap();
    assert_eq!(left.body.bytes(9).await?, "over");
    Ok(())
}

#[tokio::test]
async fn the_hook_sees_the_pieces_of_a_body_and_the_question_for_the_connection() -> Result<()> {
    let seen = Seen::default();
    let storage = Storage::new(Intercepted::new(Arc::new(Memory::new()), Watching(seen.clone())));
    let pieces = ["ab", "c"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
    storage.put("a", Body::stream(futures_util::stream::iter(pieces))).await?;
    let sizes: Vec<Option<u64>> = seen.lock().unwrap().iter().map(|(_, bytes, _)| *bytes).collect();
    assert_eq!(sizes, [None, Some(2), Some(1)]);
    assert_eq!(storage.get("a").await?.as_deref(), Some(&b"abc"[..]));
    assert!(!storage.is_connected().await, "the hook turns the answer around");
    Ok(())
}

#[tokio::test]
async fn the_hook_knows_how_much_goes_in_and_what_may_be_repeated() -> Result<()> {
    let seen = Seen::default();
    let storage = Storage::new(Intercepted::new(Arc::new(Memory::new()), Watching(seen.clone())));
    let last = || *seen.lock().unwrap().last().unwrap();
    let entry = storage.put("a", "four").await?;
    assert_eq!(last(), (OperationName::Put, Some(4), Retryability::Always));
    let update = PutOptions::new().condition(Condition::IfMatch(entry.etag.unwrap()));
    storage.put_with("a", "seven b", update).await?;
    assert_eq!(last(), (OperationName::Put, Some(7), Retryability::IfDefinite));
    let pieces = futures_util::stream::iter([Ok(Bytes::from_static(b"xyz"))]);
    storage.put("a", Body::with_len(3, pieces)).await?;
    assert_eq!(seen.lock().unwrap().iter().rev().nth(1), Some(&(OperationName::Put, Some(3), Retryability::Never)));
    storage.put_batch([("a", "12"), ("b", "345")]).await?;
    assert_eq!(last(), (OperationName::PutBatch, Some(5), Retryability::Always));
    storage.rename("a", "c").await?;
    assert_eq!(last(), (OperationName::Rename, None, Retryability::IfDefinite));
    let tx = storage.begin().await?;
    tx.put("a", "1").await?;
    assert_eq!(last(), (OperationName::Put, Some(1), Retryability::Never));
    tx.commit().await?;
    assert_eq!(last(), (OperationName::Commit, None, Retryability::Never));
    Ok(())
}
