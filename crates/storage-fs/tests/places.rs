//! Where values lie, and that it makes no difference to keys, order and listings.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use futures_util::TryStreamExt;
use storage_core::{BatchOptions, Body, Condition, Key, ListItem, ListOptions, PutOptions, Storage, StorageBackend};
use storage_fs::{Config, Durability, Fs};

/// Where values lie has nothing to do with syncs, which take most of the time.
async fn open(root: &Path) -> Storage {
    let mut config = Config::default();
    config.root = root.to_owned();
    config.durability = Durability::Relaxed;
    Storage::new(Fs::connect(config).await.unwrap())
}

async fn positions(storage: &Storage, options: ListOptions) -> Vec<String> {
    let items: Vec<ListItem> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
    items.iter().map(|item| item.position().to_owned()).collect()
}

fn keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a",
        "a/b",
        "a/b/c",
        "a-b",
        "a.b",
        "a/",
        "a//b",
        "/",
        "//",
        "/a",
        ".",
        "..",
        "a/../b",
        "./a",
        "../../etc/passwd",
        ".storage",
        ".storage/annex/61.v",
        ".storage/locks/00",
        "x/.storage/y",
        "line\nbreak",
        "tab\t",
        "\u{7f}",
        "%2F",
        "a%2Fb",
        "ä",
        "a\u{308}",
        "A",
        "a b",
        r"a\b",
        "日本/語",
        "🦀",
        "61.v",
        "z/z/z/z",
        "CON",
        "nul.",
        "x:y",
        "*?\"<>|",
    ]
    .map(String::from)
    .to_vec();
    for len in [63, 64, 65, 127, 128, 129, 255, 256, 1023, 1024] {
        keys.push("k".repeat(len));
        keys.push("/".repeat(len));
    }
    keys.push("ü/".repeat(341));
    keys.push("s/".repeat(511) + "ss");
    keys
}

#[tokio::test]
async fn every_key_holds_its_own_value_and_lists_in_order() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let mut model = BTreeMap::new();
    // In both directions, so that files meet directories and directories files.
    for (round, keys) in [keys(), keys().into_iter().rev().collect()].into_iter().enumerate() {
        for key in keys {
            let value = format!("{round} {key}");
            storage.put(&key, value.clone()).await.unwrap();
            model.insert(key, value);
        }
        for (key, value) in &model {
            assert_eq!(storage.get(key).await.unwrap().unwrap(), value, "{key:?}");
        }
        let listed = positions(&storage, ListOptions::new()).await;
        assert!(listed.iter().eq(model.keys()), "{listed:#?}");
        if round == 0 {
            // Everything goes, directories included.
            storage.clear().await.unwrap();
            assert_eq!(positions(&storage, ListOptions::new()).await, [""; 0]);
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
            assert_eq!(fs::read_dir(root.path().join(".storage/annex")).unwrap().count(), 0);
        }
    }
}

#[tokio::test]
async fn prefixes_starts_and_levels_agree_with_a_model() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let mut keys = keys();
    keys.sort();
    let puts = keys.iter().map(|key| (key, "v"));
    storage.put_batch(puts).await.unwrap();
    let long = "k".repeat(100);
    let texts = ["", "a", "a/", "a//", "a/b", "/", "//", ".", ".storage/", "k", &long, "ü/ü", "zz", "s/s/", "日"];
    for prefix in texts {
        for after in texts.iter().map(|text| Some(*text)).chain([None]) {
            for delimited in [false, true] {
                let mut expected = Vec::new();
                for key in keys.iter().filter(|key| key.starts_with(prefix)) {
                    let slash = key[prefix.len()..].find('/').filter(|_| delimited);
                    let item = &key[..slash.map_or(key.len(), |slash| prefix.len() + slash + 1)];
                    if after.is_none_or(|after| item > after) && expected.last() != Some(&item) {
                        expected.push(item);
                    }
                }
                let mut options = ListOptions::new().prefix(prefix).delimited(delimited);
                options.start_after = after.map(String::from);
                let listed = positions(&storage, options.clone()).await;
                assert_eq!(listed, expected, "{prefix:?} after {after:?}, one level {delimited}");
                let limited = positions(&storage, options.limit(3)).await;
                assert_eq!(limited, expected[..expected.len().min(3)]);
            }
        }
    }
}

#[tokio::test]
async fn a_value_stays_where_it_is_until_it_is_deleted() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let natural = root.path().join("a");
    storage.put("a/b", "below").await.unwrap();
    assert_eq!(fs::read(natural.join("b")).unwrap(), b"below");
    storage.put("a", "beside").await.unwrap();
    assert_eq!(fs::read(root.path().join(".storage/annex/61.v")).unwrap(), b"beside");
    storage.delete("a/b").await.unwrap();
    assert!(!natural.exists());
    storage.put("a", "again").await.unwrap();
    assert!(!natural.exists());
    storage.delete("a").await.unwrap();
    storage.put("a", "anew").await.unwrap();
    assert_eq!(fs::read(&natural).unwrap(), b"anew");
    assert_eq!(positions(&storage, ListOptions::new()).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_and_keys_below_it_come_and_go_at_once() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let tasks = ["a", "a/b", "a/b/c", "a/b/d"].map(|key| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for round in 0..100 {
                let value = format!("{key} {round}");
                storage.put(key, value.clone()).await.unwrap();
                assert_eq!(storage.get(key).await.unwrap().unwrap(), value, "{key}");
                storage.put(key, "over").await.unwrap();
                assert_eq!(storage.get(key).await.unwrap().unwrap(), "over", "{key}");
                storage.delete(key).await.unwrap();
                assert!(!storage.exists(key).await.unwrap(), "{key}");
            }
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(positions(&storage, ListOptions::new()).await, [""; 0]);
}

#[tokio::test]
async fn batches_keep_order_and_tell_each_item_its_own() {
    let root = tempfile::tempdir().unwrap();
    let fs = Fs::open(root.path()).await.unwrap();
    let key = |n: usize| Key::parse(&format!("d{}/k{n}", n % 3)).unwrap();
    let mut items: Vec<(Key, Body, PutOptions)> =
        (0..50).map(|n| (key(n), n.to_string().into(), PutOptions::new())).collect();
    items.push((key(7), "last".into(), PutOptions::new()));
    items.push((key(8), "no".into(), PutOptions::new().condition(Condition::IfAbsent)));
    let results = fs.put_batch(items, BatchOptions::new()).await.unwrap();
    assert_eq!(results.len(), 52);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    assert_eq!(results[51].as_ref().unwrap_err().code(), "already_exists");
    for (n, result) in results[..50].iter().enumerate() {
        assert_eq!(result.as_ref().unwrap().key, key(n));
    }
    let storage = Storage::new(fs);
    assert_eq!(storage.get(key(7)).await.unwrap().unwrap(), "last");
    storage.delete_batch((0..50).map(key)).await.unwrap();
    assert_eq!(positions(&storage, ListOptions::new()).await, [""; 0]);
}
