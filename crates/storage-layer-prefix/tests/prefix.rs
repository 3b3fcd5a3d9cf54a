//! Nothing outside the namespace is reached, whatever is called, and nothing of the prefix is seen inside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures_util::TryStreamExt;
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    BackendInfo, Body, Condition, CopyOptions, DeleteOptions, Entry, ErrorKind, GetOptions, Key, ListItem, ListOptions,
    ListStream, Object, OrderBy, PutOptions, Query, Result, StatOptions, Storage, StorageBackend, async_trait,
};
use storage_layer_prefix::{PrefixLayer, Prefixed};
use storage_memory::Memory;

/// Keys of others, all around `user1/`.
const OTHERS: [&str; 9] = ["a", "user", "user0/a", "user1", "user1 /a", "user1.", "user10/a", "user2/a", "z"];

fn within<B: StorageBackend>(backend: B, prefix: &str) -> Storage {
    Storage::new(Prefixed::new(Arc::new(backend), PrefixLayer::new(prefix).unwrap()).unwrap())
}

async fn all(storage: &Storage) -> Vec<Entry> {
    storage
        .list_with(ListOptions::new().metadata(true))
        .await
        .unwrap()
        .try_filter_map(|item| std::future::ready(Ok(item.into_entry())))
        .try_collect()
        .await
        .unwrap()
}

async fn keys(storage: &Storage) -> Vec<String> {
    all(storage).await.iter().map(|entry| entry.key.to_string()).collect()
}

async fn with_others(memory: &Memory, prefix_itself: bool) -> Vec<Entry> {
    let below = Storage::new(memory.clone());
    for key in OTHERS.into_iter().chain(prefix_itself.then_some("user1/")) {
        below.put(key, "not yours").await.unwrap();
    }
    all(&below).await
}

#[tokio::test]
async fn every_method_is_made_below_the_prefix_and_touches_nothing_outside() -> Result<()> {
    for prefix_itself in [false, true] {
        for method in METHODS.iter().filter(|method| **method != "disconnect") {
            let memory = Memory::new();
            let before = with_others(&memory, prefix_itself).await;
            let recorder = Recorder::new(memory.clone());
            let log = recorder.log();
            let storage = within(recorder, "user1");
            storage.put("a", "v").await?;
            let _ = log.take();
            call(&**storage.backend(), method).await?;
            assert_eq!(log.take()[0], *method);
            storage.clear().await?;
            assert_eq!(all(&Storage::new(memory)).await, before, "{method}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_store_among_others_answers_like_one_alone() -> Result<()> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (alone, shared) = (Storage::new(Memory::new()), Memory::new());
    let before = with_others(&shared, true).await;
    let among = within(shared.clone(), "user1/");
    let names = ["/", "a", "a/", "a/b", "a/b/c", "aa", "b", "user1/a", "user1/", "😀/x", "z"];
    let text = |rng: &mut fastrand::Rng| names[rng.usize(..names.len())];
    for _ in 0..3000 {
        let (a, b) = (text(&mut rng), text(&mut rng));
        match rng.u8(..8) {
            0..3 => {
                let value = a.repeat(rng.usize(..5));
                alone.put(a, value.clone()).await?;
                among.put(a, value).await?;
            }
            3 => {
                alone.delete(a).await?;
                among.delete(a).await?;
            }
            4 => {
                let (x, y) = (alone.copy(a, b).await, among.copy(a, b).await);
                assert_eq!(x.map(|e| e.size).map_err(|e| e.to_string()), y.map(|e| e.size).map_err(|e| e.to_string()));
            }
            5 => {
                let (x, y) = (alone.rename(a, b).await, among.rename(a, b).await);
                assert_eq!(x.map(|e| e.size).map_err(|e| e.to_string()), y.map(|e| e.size).map_err(|e| e.to_string()));
            }
            6 if rng.u8(..20) == 0 => {
                let prefix = [a, ""][rng.usize(..2)];
                alone.clear_prefix(prefix).await?;
                among.clear_prefix(prefix).await?;
            }
            _ => {
                let mut options = ListOptions::new().prefix(["", a][rng.usize(..2)]).delimited(rng.bool());
                options.start_after = rng.bool().then(|| b.to_owned());
                options.limit = rng.bool().then(|| rng.usize(..4));
                let x: Vec<ListItem> = alone.list_with(options.clone()).await?.try_collect().await?;
                let y: Vec<ListItem> = among.list_with(options.clone()).await?.try_collect().await?;
                let positions = |items: &[ListItem]| items.iter().map(|i| i.position().to_owned()).collect::<Vec<_>>();
                assert_eq!(positions(&x), positions(&y), "{options:?}");
                let mut query = Query::new().prefix(["", a][rng.usize(..2)]).limit(rng.usize(1..4));
                query = if rng.bool() { query.descending(OrderBy::Size) } else { query.descending(OrderBy::Key) };
                loop {
                    let (x, y) = (alone.query_page(query.clone()).await?, among.query_page(query.clone()).await?);
                    let keys = |entries: &[Entry]| entries.iter().map(|e| e.key.to_string()).collect::<Vec<_>>();
                    assert_eq!(keys(&x.entries), keys(&y.entries), "{query:?}");
                    assert_eq!(x.next, y.next);
                    let Some(next) = y.next else { break };
                    query = query.continuation(next);
                }
            }
        }
    }
    among.clear().await?;
    assert_eq!(all(&Storage::new(shared)).await, before);
    Ok(())
}

#[tokio::test]
async fn a_namespace_ends_at_its_separator() -> Result<()> {
    let memory = Memory::new();
    let (one, same, ten) =
        (within(memory.clone(), "user1"), within(memory.clone(), "user1/"), within(memory.clone(), "user10"));
    one.put("a", "1").await?;
    ten.put("a", "10").await?;
    assert_eq!(same.get("a").await?.as_deref(), Some(&b"1"[..]));
    assert_eq!((keys(&one).await, keys(&ten).await), (vec!["a".to_owned()], vec!["a".to_owned()]));
    one.clear().await?;
    assert_eq!(ten.get("a").await?.as_deref(), Some(&b"10"[..]));
    // A namespace within a namespace, and dots that are names like others.
    let inner = within(within(memory.clone(), "user1").backend().clone(), "b");
    inner.put("../../secret", "v").await?;
    assert_eq!(keys(&Storage::new(memory)).await, ["user1/b/../../secret", "user10/a"]);
    Ok(())
}

#[tokio::test]
async fn a_transaction_stays_inside_too() -> Result<()> {
    let memory = Memory::new();
    let before = with_others(&memory, true).await;
    let storage = within(memory.clone(), "user1");
    let tx = storage.begin().await?;
    tx.put("a", "v").await?;
    tx.put("b", "v").await?;
    tx.clear_prefix("a").await?;
    let listed: Vec<Entry> = tx.list("").await?.try_collect().await?;
    assert_eq!(listed.len(), 1);
    tx.clear().await?;
    tx.put("c", "v").await?;
    tx.commit().await?;
    assert_eq!(keys(&storage).await, ["c"]);
    storage.delete("c").await?;
    assert_eq!(all(&Storage::new(memory)).await, before);
    Ok(())
}

#[tokio::test]
async fn versions_are_those_of_the_own_key() -> Result<()> {
    let storage = within(Memory::new(), "user1");
    let old = storage.put("a", "1").await?;
    storage.put("a", "2").await?;
    let versions: Vec<Entry> = storage.versions("a").await?.try_collect().await?;
    assert_eq!(versions.len(), 2);
    assert!(versions.iter().all(|entry| entry.key.as_str() == "a"));
    let options = GetOptions::new().version(old.version.clone().unwrap());
    assert_eq!(storage.get_with("a", options).await?.as_deref(), Some(&b"1"[..]));
    storage.copy_with("a", "b", CopyOptions::new().version(old.version.unwrap())).await?;
    assert_eq!(storage.get("b").await?.as_deref(), Some(&b"1"[..]));
    Ok(())
}

/// Names the key in its errors, as a backend does that knows better than its caller which one it was.
#[derive(Debug)]
struct Naming(Faults<Memory>);

#[async_trait]
impl StorageBackend for Naming {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.0.get(key, options).await.map_err(|e| e.with_key(key))
    }
    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.0.put(key, body, options).await.map_err(|e| e.with_key(key))
    }
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.0.delete(key, options).await.map_err(|e| e.with_key(key))
    }
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.0.stat(key, options).await.map_err(|e| e.with_key(key))
    }
    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let key = Key::parse("user1/listed")?;
        self.0.list(options).await.map_err(|e| e.with_key(&key))
    }
}

#[tokio::test]
async fn errors_name_the_callers_key() -> Result<()> {
    let storage = within(Naming(Faults::new(Memory::new(), 1).before(1.0)), "user1");
    let errors = [
        storage.get("a").await.unwrap_err(),
        storage.put("a", "v").await.unwrap_err(),
        storage.delete("a").await.unwrap_err(),
        storage.stat("a").await.unwrap_err(),
        storage.copy("a", "b").await.unwrap_err(),
        storage.rename("a", "b").await.unwrap_err(),
        storage.get_batch(["a"]).await.unwrap_err(),
        storage.put_batch([("a", "v")]).await.unwrap_err(),
        storage.delete_batch(["a"]).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.key().map(Key::as_str), Some("a"), "{error:?}");
        assert!(!format!("{error:?}").contains("user1"), "{error:?}");
    }
    let Err(error) = storage.list("").await else { panic!("the listing fails") };
    assert_eq!(error.key().map(Key::as_str), Some("listed"));

    let storage = within(Memory::new(), "user1");
    storage.put("b", "v").await?;
    let once = CopyOptions::new().condition(Condition::IfAbsent);
    let error = storage.copy_with("b", "b", once).await.unwrap_err();
    assert_eq!((error.kind(), error.key().map(Key::as_str)), (ErrorKind::AlreadyExists, Some("b")));
    let error = storage.rename("a", "b").await.unwrap_err();
    assert_eq!((error.kind(), error.key().map(Key::as_str)), (ErrorKind::NotFound, Some("a")));
    Ok(())
}

#[tokio::test]
async fn keys_may_be_as_long_as_the_limit_says_and_no_longer() -> Result<()> {
    let storage = within(Memory::new(), &"p".repeat(400));
    let limit = storage.info().limits.key;
    assert_eq!(limit, Memory::new().info().limits.key - 401);
    storage.put("k".repeat(limit), "v").await?;
    let error = storage.put("k".repeat(limit + 1), "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    // Also for who goes past the handle.
    let long = Key::parse(&"k".repeat(limit + 1))?;
    let error = storage.backend().stat(&long, StatOptions::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::InvalidKey, Some(&long)));
    Ok(())
}

/// Memory that takes shorter keys.
#[derive(Debug)]
struct Short(Memory, BackendInfo);

#[async_trait]
impl StorageBackend for Short {
    fn info(&self) -> &BackendInfo {
        &self.1
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

#[test]
fn a_prefix_that_makes_no_sense_or_leaves_too_little_is_refused() {
    for (prefix, says) in [
        ("", "must not be empty"),
        ("a\0b", "must not contain a NUL"),
        (&*"p".repeat(512), "513 bytes with its `/`, the most is 512"),
    ] {
        let error = PrefixLayer::new(prefix).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
    PrefixLayer::new(&"p".repeat(511)).unwrap();
    let mut info = Memory::new().info().clone();
    info.limits.key = 520;
    let short = Arc::new(Short(Memory::new(), info));
    let error = Prefixed::new(short.clone(), PrefixLayer::new("12345678").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("9 bytes of prefix leave fewer than 512 of the 520 bytes"), "{error}");
    Prefixed::new(short, PrefixLayer::new("1234567").unwrap()).unwrap();
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<PrefixLayer> {
        serde_json::from_str(text)
    }
    let layer = PrefixLayer::new("a/b").unwrap();
    assert_eq!(layer.as_str(), "a/b/");
    assert_eq!(json(r#"{"prefix": "a/b/"}"#).unwrap(), layer);
    assert_eq!(toml::from_str::<PrefixLayer>("prefix = \"a/b\"").unwrap(), layer);
    assert!(json(r#"{"prefix": ""}"#).unwrap_err().to_string().contains("must not be empty"));
    assert!(json("{}").unwrap_err().to_string().contains("missing field `prefix`"));
    for nonsense in [r#"{"prefix": "a", "prefixes": "b"}"#, r#"{"prefix": 5}"#, "7"] {
        assert!(json(nonsense).is_err(), "{nonsense}");
    }
}
