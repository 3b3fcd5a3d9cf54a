//! The provided methods on a backend of six methods.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use futures_util::{TryStreamExt, stream};
use storage_core::{
    BackendInfo, BatchOptions, Body, Bytes, Comparison, Condition, CopyOptions, DeleteOptions, Entry, ErrorKind, Etag,
    GetOptions, Key, ListOptions, ListStream, Metadata, Object, OrderBy, PutOptions, Query, RenameOptions, Result,
    StatOptions, Storage, StorageBackend, Transaction, async_trait, defaults,
};
use storage_memory::Memory;

/// The six required methods over memory (or a transaction of it), and a log of the writes.
#[derive(Clone, Debug)]
struct Plain {
    info: BackendInfo,
    inner: Arc<dyn StorageBackend>,
    transaction: Option<Arc<dyn Transaction>>,
    /// A key that somebody else writes after every other write.
    meanwhile: Option<Key>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Plain {
    fn new() -> Self {
        let memory = Memory::new();
        Self {
            info: memory.info().clone(),
            inner: Arc::new(memory),
            transaction: None,
            meanwhile: None,
            log: Arc::default(),
        }
    }

    fn note(&self, line: impl Into<String>) {
        self.log.lock().unwrap().push(line.into());
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

#[async_trait]
impl StorageBackend for Plain {
    fn info(&self) -> &BackendInfo {
        &self.info
    }
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.inner.get(key, options).await
    }
    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.note(format!("put {key}"));
        let entry = self.inner.put(key, body, options).await?;
        if let Some(other) = self.meanwhile.as_ref().filter(|other| *other != key) {
            self.inner.put(other, "meanwhile".into(), PutOptions::new()).await?;
        }
        Ok(entry)
    }
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let conditional = options.condition.is_some();
        self.note(format!("delete {key}{}", if conditional { " if unchanged" } else { "" }));
        self.inner.delete(key, options).await
    }
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.inner.stat(key, options).await
    }
    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.inner.list(options).await
    }
    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        self.note("begin");
        let transaction = self.inner.begin().await?;
        Ok(Arc::new(Self { inner: transaction.clone(), transaction: Some(transaction), ..self.clone() }))
    }
}

#[async_trait]
impl Transaction for Plain {
    async fn commit(&self) -> Result<()> {
        self.note("commit");
        self.transaction.as_ref().unwrap().commit().await
    }
    async fn rollback(&self) -> Result<()> {
        self.note("rollback");
        self.transaction.as_ref().unwrap().rollback().await
    }
}

fn key(text: impl AsRef<str>) -> Key {
    Key::parse(text.as_ref()).unwrap()
}

/// A body that lets others overtake it.
fn slow(text: &'static str) -> Body {
    Body::stream(stream::once(async move {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        Ok(Bytes::from(text))
    }))
}

async fn value(backend: &Plain, text: &str) -> Option<Bytes> {
    let object = backend.get(&key(text), GetOptions::new()).await.unwrap()?;
    Some(object.body.bytes(u64::MAX).await.unwrap())
}

async fn put(backend: &Plain, text: &str, body: &'static str) -> Entry {
    let metadata = PutOptions::new().metadata(Metadata::new().tag(text));
    let entry = backend.put(&key(text), body.into(), metadata).await.unwrap();
    backend.log();
    entry
}

#[tokio::test]
async fn batches_answer_in_the_order_of_the_input() {
    let plain = Plain::new();
    let texts: Vec<String> = (0..50).rev().map(|n| format!("k{n}")).collect();
    let items = texts.iter().map(|text| {
        let body = if text.len() == 2 { slow("slow") } else { "fast".into() };
        (key(text), body, PutOptions::new())
    });
    let entries = plain.put_batch(items.collect(), BatchOptions::new()).await.unwrap();
    let written = entries.iter().map(|entry| entry.as_ref().unwrap().key.as_str());
    assert!(written.eq(texts.iter().map(String::as_str)));

    let asked = ["k3", "absent", "k49", "k3"];
    let items = asked.map(|text| (key(text), GetOptions::new())).into();
    let found = plain.get_batch(items).await.unwrap();
    let found: Vec<_> =
        found.into_iter().map(|object| object.unwrap().map(|object| object.entry.key.to_string())).collect();
    let expected = asked.map(|text| (text != "absent").then(|| text.to_owned()));
    assert_eq!(found, expected);

    let stale = DeleteOptions::new().condition(Condition::IfMatch(Etag::new("stale")));
    let items = vec![(key("k3"), stale), (key("k4"), DeleteOptions::new())];
    let deleted = plain.delete_batch(items, BatchOptions::new()).await.unwrap();
    assert!(deleted[0].is_err() && deleted[1].is_ok());
    assert_eq!(value(&plain, "k4").await, None);
}

#[tokio::test]
async fn of_duplicates_the_last_wins_and_each_has_its_result() {
    let plain = Plain::new();
    let items = vec![
        (key("a"), slow("first"), PutOptions::new()),
        (key("b"), "b".into(), PutOptions::new()),
        (key("a"), "last".into(), PutOptions::new()),
    ];
    let entries = plain.put_batch(items, BatchOptions::new()).await.unwrap();
    let sizes = entries.iter().map(|entry| entry.as_ref().unwrap().size);
    assert!(sizes.eq([5, 1, 4]));
    assert_eq!(value(&plain, "a").await.unwrap(), "last");
    assert!(plain.put_batch(vec![], BatchOptions::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_atomic_batch_is_a_transaction() {
    let plain = Plain::new();
    let atomic = || BatchOptions::new().atomic(true);
    let items = vec![(key("a"), "1".into(), PutOptions::new()), (key("a"), "2".into(), PutOptions::new())];
    assert_eq!(plain.put_batch(items, atomic()).await.unwrap().len(), 2);
    assert_eq!(plain.log(), ["begin", "put a", "put a", "commit"]);
    assert_eq!(value(&plain, "a").await.unwrap(), "2");

    let once = PutOptions::new().condition(Condition::IfAbsent);
    let items = vec![
        (key("b"), "1".into(), PutOptions::new()),
        (key("a"), "1".into(), once),
        (key("c"), "1".into(), PutOptions::new()),
    ];
    let error = plain.put_batch(items, atomic()).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::AlreadyExists, Some(&key("a"))));
    assert_eq!(plain.log(), ["begin", "put b", "put a", "rollback"]);
    assert_eq!(value(&plain, "b").await, None);

    let stale = DeleteOptions::new().condition(Condition::IfMatch(Etag::new("stale")));
    let items = vec![(key("a"), DeleteOptions::new()), (key("b"), stale)];
    let error = plain.delete_batch(items, atomic()).await.unwrap_err();
    assert_eq!(error.key(), Some(&key("b")));
    assert_eq!(plain.log().last().unwrap(), "rollback");
    assert!(value(&plain, "a").await.is_some());

    let items = vec![(key("a"), DeleteOptions::new()), (key("b"), DeleteOptions::new())];
    plain.delete_batch(items, atomic()).await.unwrap();
    assert_eq!(plain.log(), ["begin", "delete a", "delete b", "commit"]);
}

#[tokio::test]
async fn clear_takes_a_literal_prefix() {
    let plain = Plain::new();
    for text in ["a%/1", "a%/2", "a/1", "b"] {
        put(&plain, text, "").await;
    }
    plain.clear("a%").await.unwrap();
    let listing = plain.list(ListOptions::new()).await.unwrap();
    let left: Vec<Entry> = defaults::entries(listing).try_collect().await.unwrap();
    let left: Vec<&str> = left.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(left, ["a/1", "b"]);
    plain.clear("").await.unwrap();
    assert_eq!(value(&plain, "b").await, None);
}

#[tokio::test]
async fn a_copy_keeps_metadata_unless_others_are_given() {
    let plain = Plain::new();
    let (a, b) = (key("a"), key("b"));
    let source = put(&plain, "a", "value").await;
    let copied = plain.copy(&a, &b, CopyOptions::new()).await.unwrap();
    assert_eq!((copied.key, copied.metadata), (key("b"), source.metadata.clone()));
    assert_eq!(value(&plain, "b").await.unwrap(), "value");

    let other = Arc::new(Metadata::new().tag("other"));
    let options = CopyOptions::new().metadata(other.clone());
    let copied = plain.copy(&a, &b, options.clone()).await.unwrap();
    assert_eq!(copied.metadata, Some(other.clone()));

    let once = CopyOptions::new().condition(Condition::IfAbsent);
    for to in [&a, &b] {
        let error = plain.copy(&a, to, once.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    let error = plain.copy(&key("absent"), &b, CopyOptions::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::NotFound, Some(&key("absent"))));

    // Onto itself: nothing to do, unless there is new metadata or an older version.
    plain.log();
    assert_eq!(plain.copy(&a, &a, CopyOptions::new()).await.unwrap(), source);
    assert!(plain.log().is_empty());
    let copied = plain.copy(&a, &a, options).await.unwrap();
    assert_eq!(copied.metadata, Some(other));
    put(&plain, "a", "newer").await;
    let older = CopyOptions::new().version(source.version.unwrap());
    plain.copy(&a, &a, older).await.unwrap();
    assert_eq!(value(&plain, "a").await.unwrap(), "value");
}

#[tokio::test]
async fn a_rename_moves() {
    let plain = Plain::new();
    let (a, b) = (key("a"), key("b"));
    let source = put(&plain, "a", "value").await;
    let moved = plain.rename(&a, &b, RenameOptions::new()).await.unwrap();
    assert_eq!((&moved.key, moved.metadata), (&b, source.metadata));
    assert_eq!(plain.log(), ["put b", "delete a if unchanged"]);
    assert_eq!(value(&plain, "a").await, None);

    let error = plain.rename(&a, &b, RenameOptions::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::NotFound, Some(&a)));
    put(&plain, "a", "other").await;
    let once = RenameOptions::new().condition(Condition::IfAbsent);
    let error = plain.rename(&a, &b, once).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(plain.log(), ["put b"]);
    assert_eq!(value(&plain, "b").await.unwrap(), "value");
}

#[tokio::test]
async fn a_rename_onto_itself_changes_nothing() {
    let plain = Plain::new();
    let a = key("a");
    let entry = put(&plain, "a", "value").await;
    let kind = |condition| {
        let options = RenameOptions::new().condition(condition);
        let (plain, a) = (&plain, &a);
        async move { plain.rename(a, a, options).await.map_err(|e| e.kind()) }
    };
    let same = plain.rename(&a, &a, RenameOptions::new()).await.unwrap();
    assert_eq!(same, entry);
    assert_eq!(kind(Condition::IfAbsent).await, Err(ErrorKind::AlreadyExists));
    let stale = Condition::IfMatch(Etag::new("stale"));
    assert_eq!(kind(stale).await, Err(ErrorKind::PreconditionFailed));
    let current = Condition::IfMatch(entry.etag.clone().unwrap());
    assert_eq!(kind(current).await, Ok(entry));
    assert!(plain.log().is_empty());
    let b = key("b");
    let error = plain.rename(&b, &b, RenameOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_rename_spares_a_source_written_meanwhile() {
    let mut plain = Plain::new();
    put(&plain, "a", "value").await;
    plain.meanwhile = Some(key("a"));
    let (a, b) = (key("a"), key("b"));
    let rename = plain.rename(&a, &b, RenameOptions::new());
    let error = rename.await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Conflict, Some(&key("a"))));
    assert!(error.is_ambiguous());
    assert_eq!(value(&plain, "a").await.unwrap(), "meanwhile");
    assert_eq!(value(&plain, "b").await.unwrap(), "value");

    // Without conditional deletes the etag is looked at before the delete.
    plain.info.capabilities.conditional_delete = false;
    plain.log();
    let error = plain.rename(&key("a"), &key("c"), RenameOptions::new()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.is_ambiguous());
    assert_eq!(plain.log(), ["put c"]);
    plain.meanwhile = None;
    plain.rename(&key("a"), &key("c"), RenameOptions::new()).await.unwrap();
    assert_eq!(plain.log(), ["put c", "delete a"]);
}

#[tokio::test]
async fn a_conflict_of_a_rename_within_a_transaction_is_definite() {
    let mut plain = Plain::new();
    put(&plain, "a", "value").await;
    put(&plain, "free", "value").await;
    plain.meanwhile = Some(key("a"));
    let storage = Storage::new(plain.clone());
    let tx = storage.begin().await.unwrap();
    let error = tx.rename("a", "b").await.unwrap_err();
    assert_eq!((error.kind(), error.is_ambiguous()), (ErrorKind::Conflict, false), "{error:?}");
    tx.rollback().await.unwrap();

    plain.log();
    let sources = Mutex::new(vec!["free", "a"]);
    let renamed = storage.transaction(|tx| {
        let source = sources.lock().unwrap().pop().unwrap();
        async move { tx.rename(source, "b").await }
    });
    renamed.await.unwrap();
    let log = plain.log();
    assert_eq!(log.iter().filter(|line| *line == "begin").count(), 2, "{log:?}");
    assert_eq!(log.last().unwrap(), "commit");
}

#[tokio::test]
async fn a_query_is_a_scan() {
    let plain = Plain::new();
    for (n, text) in ["a/1", "a/2", "a/3", "b/4"].into_iter().enumerate() {
        let metadata = Metadata::new().field("n", n as i64);
        let options = PutOptions::new().metadata(metadata);
        plain.put(&key(text), "".into(), options).await.unwrap();
    }
    let query =
        Query::new().prefix("a/").field("n", Comparison::GreaterOrEqual, 1).descending(OrderBy::Field("n".into()));
    let found: Vec<Entry> = plain.query(query).await.unwrap().try_collect().await.unwrap();
    let found: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(found, ["a/3", "a/2"]);
    let wrong = plain.query(Query::new().equals("f", f64::NAN)).await;
    assert_eq!(wrong.err().unwrap().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_has_no_default_is_unsupported() {
    /// Only the required methods: no transactions.
    #[derive(Debug)]
    struct Six(Plain);

    #[async_trait]
    impl StorageBackend for Six {
        fn info(&self) -> &BackendInfo {
            self.0.info()
        }
        async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
            self.0.get(key, options).await
        }
        async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
            self.0.put(key, body, options).await
        }
        async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
            self.0.delete(key, options).await
        }
        async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
            self.0.stat(key, options).await
        }
        async fn list(&self, options: ListOptions) -> Result<ListStream> {
            self.0.list(options).await
        }
    }
    let six = Six(Plain::new());
    let unsupported = |kind| assert_eq!(kind, ErrorKind::Unsupported);
    unsupported(six.versions(&key("a")).await.err().unwrap().kind());
    unsupported(six.begin().await.err().unwrap().kind());
    let items = vec![(key("a"), "".into(), PutOptions::new())];
    let atomic = BatchOptions::new().atomic(true);
    unsupported(six.put_batch(items, atomic).await.unwrap_err().kind());
    six.health().await.unwrap();
    six.disconnect().await.unwrap();
    assert!(!Storage::new(six).has("a").await.unwrap());
}
