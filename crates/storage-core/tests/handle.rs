//! What the handle refuses before a backend is asked, and what it adds to what a backend says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::{TryStreamExt, stream};
use storage_core::{
    BackendInfo, BatchOptions, Body, Bytes, Capabilities, Condition, CopyOptions, DeleteOptions, Entry, Error,
    ErrorKind, Etag, GetOptions, Key, ListItem, ListOptions, ListStream, Metadata, Object, Order, OrderBy,
    PresignOptions, PutOptions, Query, RenameOptions, Result, StatOptions, Storage, StorageBackend, VersionId,
    async_trait,
};
use storage_memory::{Config, Memory};

/// A backend that must not be asked.
#[derive(Debug)]
struct Untouchable(BackendInfo);

#[async_trait]
impl StorageBackend for Untouchable {
    fn info(&self) -> &BackendInfo {
        &self.0
    }
    async fn get(&self, _: &Key, _: GetOptions) -> Result<Option<Object>> {
        panic!("get reached the backend")
    }
    async fn put(&self, _: &Key, _: Body, _: PutOptions) -> Result<Entry> {
        panic!("put reached the backend")
    }
    async fn delete(&self, _: &Key, _: DeleteOptions) -> Result<()> {
        panic!("delete reached the backend")
    }
    async fn stat(&self, _: &Key, _: StatOptions) -> Result<Option<Entry>> {
        panic!("stat reached the backend")
    }
    async fn list(&self, _: ListOptions) -> Result<ListStream> {
        panic!("list reached the backend")
    }
}

/// A handle to a backend that must not be asked, all capabilities but these declared.
fn untouchable(info: impl FnOnce(&mut BackendInfo)) -> Storage {
    let mut all = BackendInfo::new("never", Capabilities::new());
    info(&mut all);
    Storage::new(Untouchable(all))
}

fn refused<T: Debug>(kind: ErrorKind, operation: &str, result: Result<T>) -> Error {
    let error = result.expect_err(operation);
    assert_eq!(error.kind(), kind, "{operation}: {error}");
    assert_eq!(error.operation(), Some(operation), "{error}");
    assert!(!error.is_ambiguous(), "{error}");
    error
}

/// Every operation that takes a key, with this one, and its failure.
async fn with_key<B: StorageBackend + ?Sized>(storage: &Storage<B>, key: &str) -> Vec<(&'static str, Result<()>)> {
    vec![
        ("get", storage.get(key).await.map(drop)),
        ("get", storage.get_with(key, GetOptions::new()).await.map(drop)),
        ("get", storage.open(key, GetOptions::new()).await.map(drop)),
        ("put", storage.put(key, "").await.map(drop)),
        ("put", storage.set(key, "").await.map(drop)),
        ("delete", storage.delete(key).await),
        ("stat", storage.stat(key).await.map(drop)),
        ("stat", storage.exists(key).await.map(drop)),
        ("stat", storage.has(key).await.map(drop)),
        ("get_batch", storage.get_batch(["k", key]).await.map(drop)),
        ("put_batch", storage.put_batch([("k", ""), (key, "")]).await.map(drop)),
        ("delete_batch", storage.delete_batch(["k", key]).await),
        ("copy", storage.copy("k", key).await.map(drop)),
        ("copy", storage.copy(key, "k").await.map(drop)),
        ("rename", storage.rename("k", key).await.map(drop)),
        ("rename", storage.rename(key, "k").await.map(drop)),
        ("versions", storage.versions(key).await.map(drop)),
        ("presign", storage.presign(key, PresignOptions::get(Duration::from_secs(1))).await.map(drop)),
    ]
}

/// Every operation, and its failure.
async fn all<B: StorageBackend + ?Sized>(storage: &Storage<B>) -> Vec<(&'static str, Result<()>)> {
    let mut all = with_key(storage, "k").await;
    all.extend([
        ("list", storage.list("").await.map(drop)),
        ("list", storage.list_with(ListOptions::new()).await.map(drop)),
        ("list", storage.list_sorted(ListOptions::new(), Order::default()).await.map(drop)),
        ("list", storage.keys().await.map(drop)),
        ("query", storage.query(Query::new()).await.map(drop)),
        ("query", storage.query_page(Query::new()).await.map(drop)),
        ("clear", storage.clear().await),
        ("clear", storage.clear_prefix("a").await),
        ("begin", storage.begin().await.map(drop)),
        ("begin", storage.transaction(|_| async { Ok(()) }).await),
    ]);
    all
}

#[tokio::test]
async fn everything_is_closed_after_disconnect() {
    // Memory closes itself; the other has nothing to close, so the handle does.
    for storage in [Storage::new(Memory::new()), untouchable(|_| {})] {
        let clone = storage.clone();
        assert!(clone.is_connected().await);
        storage.disconnect().await.unwrap();
        for handle in [&storage, &clone] {
            for (operation, result) in all(handle).await {
                refused(ErrorKind::Closed, operation, result);
            }
            assert!(!handle.is_connected().await);
            handle.disconnect().await.unwrap();
        }
    }
}

#[tokio::test]
async fn transactions_are_closed_with_their_handle() {
    let storage = Storage::new(Memory::new());
    let (one, two) = (storage.begin().await.unwrap(), storage.begin().await.unwrap());
    one.put("k", "1").await.unwrap();
    storage.disconnect().await.unwrap();
    for (operation, result) in all(&one).await {
        refused(ErrorKind::Closed, operation, result);
    }
    refused(ErrorKind::Closed, "commit", one.commit().await);
    refused(ErrorKind::Closed, "rollback", two.rollback().await);
}

#[tokio::test]
async fn an_ended_transaction_is_closed_and_its_handle_is_not() {
    let storage = Storage::new(Memory::new());
    let tx = storage.begin().await.unwrap();
    tx.clone().commit().await.unwrap();
    refused(ErrorKind::Closed, "put", tx.put("k", "1").await);
    refused(ErrorKind::Closed, "commit", tx.commit().await);
    storage.put("k", "1").await.unwrap();
}

#[tokio::test]
async fn keys_over_the_backends_limit_are_refused() {
    let storage = untouchable(|info| info.limits.key = 600);
    let (long, nul) = ("é".repeat(300) + "k", "k\0");
    for key in [long.as_str(), nul, ""] {
        for (operation, result) in with_key(&storage, key).await {
            refused(ErrorKind::InvalidKey, operation, result);
        }
    }
    let mut info = BackendInfo::new("short", Capabilities::new());
    info.limits.key = 600;
    let legal = Key::parse(&"é".repeat(300)).unwrap();
    legal.check(&info).unwrap();
}

#[tokio::test]
async fn prefixes_that_no_key_can_have_are_refused() {
    let storage = untouchable(|_| {});
    let invalid = ErrorKind::InvalidKey;
    refused(invalid, "list", storage.list("\0").await.map(drop));
    let after = ListOptions::new().start_after("a\0");
    refused(invalid, "list", storage.list_with(after).await.map(drop));
    refused(invalid, "clear", storage.clear_prefix("\0").await);
    let query = Query::new().prefix("\0");
    refused(invalid, "query", storage.query(query).await.map(drop));
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_anything_is_read() {
    let storage = untouchable(|info| {
        info.limits.value = 3;
        info.limits.metadata = 1000;
    });
    let too_large = ErrorKind::TooLarge;
    let unread = || Body::with_len(4, stream::poll_fn(|_| panic!("the body was read")));
    refused(too_large, "put", storage.put("k", "1234").await);
    refused(too_large, "put", storage.put("k", unread()).await);
    let error = refused(too_large, "put_batch", storage.put_batch([("k", unread())]).await);
    assert_eq!(error.key().map(Key::as_str), Some("k"));

    let metadata = Arc::new(Metadata::new().field("f", "x".repeat(1000)));
    let put = PutOptions::new().metadata(metadata.clone());
    refused(too_large, "put", storage.put_with("k", "", put.clone()).await);
    let batch = storage.put_batch_with([("k", "", put)], BatchOptions::new());
    refused(too_large, "put_batch", batch.await);
    let copy = CopyOptions::new().metadata(metadata);
    refused(too_large, "copy", storage.copy_with("k", "l", copy).await);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let storage = untouchable(|info| {
        info.capabilities = Capabilities::new().versioning().conditional_delete();
    });
    let invalid = ErrorKind::InvalidInput;
    let backwards = GetOptions::new().range(storage_core::ByteRange::Bounded(5, 4));
    refused(invalid, "get", storage.get_with("k", backwards).await);
    let nan = PutOptions::new().metadata(Metadata::new().field("f", f64::NAN));
    refused(invalid, "put", storage.put_with("k", "", nan).await);
    let absent = DeleteOptions::new().condition(Condition::IfAbsent);
    refused(invalid, "delete", storage.delete_with("k", absent).await);
    let both = DeleteOptions::new().version(VersionId::new("1")).condition(Condition::IfMatch(Etag::new("1")));
    refused(invalid, "delete", storage.delete_with("k", both).await);
    let query = Query::new().equals("f", f64::NAN);
    refused(invalid, "query", storage.query(query).await.map(drop));
}

#[tokio::test]
async fn undeclared_options_never_reach_the_backend() {
    let storage = untouchable(|_| {});
    let unsupported = ErrorKind::Unsupported;
    let version = || VersionId::new("1");
    let get = GetOptions::new().version(version());
    refused(unsupported, "get", storage.get_with("k", get).await);
    let stat = StatOptions::new().version(version());
    refused(unsupported, "stat", storage.stat_with("k", stat).await);
    let delete = DeleteOptions::new().version(version());
    refused(unsupported, "delete", storage.delete_with("k", delete.clone()).await);
    let batch = storage.delete_batch_with([("k", delete)], BatchOptions::new());
    refused(unsupported, "delete_batch", batch.await);
    let copy = CopyOptions::new().version(version());
    refused(unsupported, "copy", storage.copy_with("k", "l", copy).await);

    for condition in [Condition::IfAbsent, Condition::IfMatch(Etag::new("1"))] {
        let put = PutOptions::new().condition(condition.clone());
        refused(unsupported, "put", storage.put_with("k", "", put.clone()).await);
        let batch = storage.put_batch_with([("k", "", put)], BatchOptions::new());
        refused(unsupported, "put_batch", batch.await);
        let copy = CopyOptions::new().condition(condition.clone());
        refused(unsupported, "copy", storage.copy_with("k", "l", copy).await);
        let rename = RenameOptions::new().condition(condition);
        refused(unsupported, "rename", storage.rename_with("k", "l", rename).await);
    }
    let delete = DeleteOptions::new().condition(Condition::IfMatch(Etag::new("1")));
    refused(unsupported, "delete", storage.delete_with("k", delete).await);

    let atomic = BatchOptions::new().atomic(true);
    let batch = storage.put_batch_with([("k", "", PutOptions::new())], atomic.clone());
    refused(unsupported, "put_batch", batch.await);
    let batch = storage.delete_batch_with([("k", DeleteOptions::new())], atomic);
    refused(unsupported, "delete_batch", batch.await);
    refused(unsupported, "versions", storage.versions("k").await.map(drop));
    let source = || PutOptions::new().source("cid");
    refused(unsupported, "put", storage.put_with("k", "", source()).await.map(drop));
    let batch = storage.put_batch_with([("k", "", source())], BatchOptions::new());
    refused(unsupported, "put_batch", batch.await.map(drop));
    for options in [PresignOptions::get, PresignOptions::put, PresignOptions::head, PresignOptions::delete] {
        let presigned = storage.presign("k", options(Duration::from_secs(60))).await;
        refused(unsupported, "presign", presigned.map(drop));
    }
    refused(unsupported, "begin", storage.begin().await.map(drop));
    let sorted = Order { by: OrderBy::Field("f".into()), descending: false };
    let sorted = storage.list_sorted(ListOptions::new(), sorted).await;
    assert_eq!(sorted.err().unwrap().kind(), unsupported);
}

#[tokio::test]
async fn errors_name_backend_operation_and_key() {
    let mut config = Config::default();
    config.max_value = Some(3);
    let storage = Storage::new(Memory::with_config(config));
    storage.put("k", "old").await.unwrap();
    let once = PutOptions::new().condition(Condition::IfAbsent);
    for (result, line) in [
        (storage.put_with("k", "", once.clone()).await.map(drop), r#"memory: put "k": "#),
        (storage.put("k", "long").await.map(drop), r#"memory: put "k": "#),
        (storage.put("", "").await.map(drop), "memory: put: "),
        (storage.copy("absent", "k").await.map(drop), r#"memory: copy "absent": "#),
        (storage.list("\0").await.map(drop), "memory: list: "),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(line), "{error}");
    }
    let items = [("k", "new", once), ("l", "new", PutOptions::new())];
    let results = storage.put_batch_with(items, BatchOptions::new()).await.unwrap();
    let error = results[0].as_ref().unwrap_err().to_string();
    assert!(error.starts_with(r#"memory: put_batch "k": "#), "{error}");
    assert!(results[1].is_ok());
}

#[tokio::test]
async fn a_transaction_is_run_again_on_conflict() {
    let storage = Storage::new(Memory::new());
    storage.put("n", "0").await.unwrap();
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let run = || runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let work = |tx: storage_core::Tx| {
        let (storage, run) = (storage.clone(), run());
        async move {
            tx.get("n").await?;
            if run < 2 {
                storage.put("n", "other").await?;
            }
            tx.put("n", "mine").await?;
            Ok::<_, Error>(run)
        }
    };
    assert_eq!(storage.transaction(work).await.unwrap(), 2);
    assert_eq!(storage.get("n").await.unwrap().unwrap(), "mine");
}

#[tokio::test]
async fn everyday_calls() {
    let storage = Storage::new(Memory::new());
    storage.set("b/1", vec![1, 2, 3]).await.unwrap();
    storage.put("b/2", "four").await.unwrap();
    storage.put_batch([("a", "1"), ("c", "22")]).await.unwrap();
    assert!(storage.has("a").await.unwrap() && storage.exists("c").await.unwrap());
    let part = storage.get_with("b/1", GetOptions::new().range(1..)).await;
    assert_eq!(part.unwrap().unwrap(), Bytes::from_static(&[2, 3]));

    let found = storage.get_batch(["c", "absent", "a"]).await.unwrap();
    let found: Vec<(&str, &[u8])> = found.iter().map(|(k, v)| (k.as_str(), &v[..])).collect();
    assert_eq!(found, [("a", &b"1"[..]), ("c", b"22")]);
    let keys: Vec<Key> = storage.keys().await.unwrap().try_collect().await.unwrap();
    let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
    assert_eq!(keys, ["a", "b/1", "b/2", "c"]);

    let largest = Order { by: OrderBy::Size, descending: true };
    for (options, expected) in [
        (ListOptions::new(), &["b/2", "b/1", "c", "a"] as &[&str]),
        (ListOptions::new().limit(2), &["b/2", "b/1"]),
        (ListOptions::new().delimited(true), &["b/", "c", "a"]),
    ] {
        let sorted = storage.list_sorted(options, largest.clone()).await.unwrap();
        let sorted: Vec<ListItem> = sorted.try_collect().await.unwrap();
        let sorted: Vec<&str> = sorted.iter().map(ListItem::position).collect();
        assert_eq!(sorted, expected);
    }
    storage.delete_batch(["a", "absent"]).await.unwrap();
    storage.clear_prefix("b/").await.unwrap();
    let left: Vec<Entry> = storage.list("").await.unwrap().try_collect().await.unwrap();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn pages_of_a_query_follow_one_another() {
    let storage = Storage::new(Memory::new());
    for n in 0..6 {
        storage.put(format!("k{n}"), vec![0; n / 2]).await.unwrap();
    }
    let mut query = Query::new().descending(OrderBy::Size).limit(4);
    let page = storage.query_page(query.clone()).await.unwrap();
    assert_eq!(page.entries.len(), 4);
    query = query.continuation(page.next.unwrap());
    let page = storage.query_page(query).await.unwrap();
    let keys: Vec<&str> = page.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["k0", "k1"]);
    assert!(page.next.is_none());
}
