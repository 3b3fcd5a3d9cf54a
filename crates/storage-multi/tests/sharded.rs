//! What the stores of a set hold, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::sync::Arc;

use futures_util::TryStreamExt;
use storage_core::{ErrorKind, ListOptions, PutOptions, Result, Storage, StorageBackend};
use storage_memory::Memory;
use storage_multi::{MultiFactory, Sharded, Store};
use storage_registry::{Registry, StorageConfig};

fn stores(of: &[(&str, &Memory)]) -> Vec<Store> {
    of.iter().map(|(name, memory)| Store::new(name, Arc::new((*memory).clone())).unwrap()).collect()
}

async fn open(of: &[(&str, &Memory)]) -> Result<Storage> {
    Ok(Storage::from_arc(Arc::new(Sharded::open(stores(of)).await?) as Arc<dyn StorageBackend>))
}

fn refused(opened: Result<Storage>, why: &str) {
    let e = opened.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    assert!(e.message().contains(why), "{e}");
}

async fn count(memory: &Memory) -> usize {
    let storage = Storage::new(memory.clone());
    storage.list("").await.unwrap().try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test]
async fn values_lie_as_they_are_in_one_store_each() {
    let (a, b, c) = (Memory::new(), Memory::new(), Memory::new());
    let storage = open(&[("a", &a), ("b", &b), ("c", &c)]).await.unwrap();
    for n in 0..300 {
        storage.put(format!("k/{n}"), format!("value {n}")).await.unwrap();
    }
    let mut total = 0;
    for (name, memory) in [("a", &a), ("b", &b), ("c", &c)] {
        // One is the marker.
        let held = count(memory).await - 1;
        assert!((50..150).contains(&held), "{name} holds {held} of 300");
        total += held;
    }
    assert_eq!(total, 300);
    let entry = storage.stat("k/7").await.unwrap().unwrap();
    let of = [("a", &a), ("b", &b), ("c", &c)];
    let (_, memory) = of.iter().find(|(name, _)| entry.attributes.get("source") == Some(name)).unwrap();
    assert_eq!(Storage::new((*memory).clone()).get("k/7").await.unwrap().unwrap(), "value 7");
}

/// The order in which stores are named means nothing; a store more or less, another weight and another name are refused.
#[tokio::test]
async fn a_set_is_opened_as_it_was_made() {
    let (a, b, c) = (Memory::new(), Memory::new(), Memory::new());
    open(&[("a", &a), ("b", &b)]).await.unwrap().put("k", "v").await.unwrap();
    assert_eq!(open(&[("b", &b), ("a", &a)]).await.unwrap().get("k").await.unwrap().unwrap(), "v");
    refused(open(&[("a", &a), ("b", &b), ("c", &c)]).await, "laid out over");
    refused(open(&[("a", &a)]).await, "laid out over");
    refused(open(&[("a", &b), ("b", &a)]).await, "changed their names");
    let heavy = vec![
        Store::new("a", Arc::new(a.clone())).unwrap().with_weight(2).unwrap(),
        Store::new("b", Arc::new(b.clone())).unwrap(),
    ];
    refused(Sharded::open(heavy).await.map(Storage::new), "laid out over");
}

#[tokio::test]
async fn one_store_under_two_names_is_refused_and_free_again() {
    let (a, b) = (Memory::new(), Memory::new());
    refused(open(&[("a", &a), ("b", &a)]).await, "one and the same");
    open(&[("a", &a), ("b", &b)]).await.unwrap();
    refused(open(&[("a", &a), ("b", &a)]).await, "one and the same");
}

#[tokio::test]
async fn a_store_that_was_emptied_or_exchanged_is_refused() {
    let (a, b, empty) = (Memory::new(), Memory::new(), Memory::new());
    open(&[("a", &a), ("b", &b)]).await.unwrap();
    refused(open(&[("a", &a), ("b", &empty)]).await, "`b` has no marker any more");
    assert_eq!(count(&empty).await, 0, "it was written to");
    let (x, y) = (Memory::new(), Memory::new());
    open(&[("a", &x), ("b", &y)]).await.unwrap();
    refused(open(&[("a", &a), ("b", &y)]).await, "another set");
}

#[tokio::test]
async fn a_store_that_holds_values_is_refused() {
    let (a, b) = (Memory::new(), Memory::new());
    Storage::new(b.clone()).put("k", "v").await.unwrap();
    refused(open(&[("a", &a), ("b", &b)]).await, "`b` holds values already");
    assert_eq!((count(&a).await, count(&b).await), (0, 1));
}

/// The first connection may be killed between any two of its steps.
#[tokio::test]
async fn what_a_killed_first_connection_left_is_gone_on_with() {
    let key = ".storage-multi/marker";
    for (left, complete) in [(1, false), (2, false), (2, true)] {
        let (a, b) = (Memory::new(), Memory::new());
        open(&[("a", &a), ("b", &b)]).await.unwrap();
        let (first, second) = (Storage::new(a.clone()), Storage::new(b.clone()));
        let marker = first.get(key).await.unwrap().unwrap();
        let marker = String::from_utf8(marker.to_vec()).unwrap();
        assert!(marker.contains("\"complete\":true"));
        first.put(key, marker.replace("\"complete\":true", &format!("\"complete\":{complete}"))).await.unwrap();
        if left == 1 {
            second.delete(key).await.unwrap();
        }
        let storage = open(&[("a", &a), ("b", &b)]).await.unwrap();
        storage.put("k", "v").await.unwrap();
        assert_eq!(open(&[("a", &a), ("b", &b)]).await.unwrap().get("k").await.unwrap().unwrap(), "v");
    }
}

/// An etag of one store is none of another, though both count alike.
#[tokio::test]
async fn etags_are_of_their_store() {
    let (a, b) = (Memory::new(), Memory::new());
    let storage = open(&[("a", &a), ("b", &b)]).await.unwrap();
    let mut etags = Vec::new();
    for n in 0..20 {
        etags.push((n, storage.put(format!("{n}"), "v").await.unwrap().etag.unwrap()));
    }
    let (first, etag) = &etags[0];
    for (other, _) in &etags {
        let written = storage.put_with(format!("{other}"), "v", PutOptions::new().if_match(etag)).await;
        assert_eq!(written.is_ok(), first == other, "{other}: {written:?}");
    }
}

#[tokio::test]
async fn a_dead_store_is_named_and_the_others_go_on() {
    let (a, b) = (Memory::new(), Memory::new());
    let storage = open(&[("a", &a), ("b", &b)]).await.unwrap();
    for n in 0..20 {
        storage.put(format!("{n}"), "v").await.unwrap();
    }
    let mut alive = 0;
    b.disconnect().await.unwrap();
    for n in 0..20 {
        match storage.get(format!("{n}")).await {
            Ok(value) => {
                assert_eq!(value.unwrap(), "v");
                alive += 1;
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Closed),
        }
    }
    assert!((1..20).contains(&alive));
    assert!(storage.list("").await.is_err() && storage.health().await.is_err());
}

#[tokio::test]
async fn it_is_opened_by_uri_and_by_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().display();
    let uri = format!("multi:a=sqlite:{dir}/a.db%3Ftable=t,b=sqlite:{dir}/b%2Cc.db?strategy=sharded");
    storage_registry::open(&uri).await.unwrap().put("k", "v").await.unwrap();
    assert_eq!(storage_registry::open(&uri).await.unwrap().get("k").await.unwrap().unwrap(), "v");
    let table = format!(
        r#"
        backend = "multi"
        [options]
        strategy = "sharded"
        [[options.stores]]
        name = "b"
        store = "sqlite:{dir}/b%2Cc.db"
        [[options.stores]]
        name = "a"
        store = {{ backend = "sqlite", connection = "{dir}/a.db", options = {{ table = "t" }} }}
        "#
    );
    let config = StorageConfig::from_toml(&table).unwrap();
    let storage = storage_registry::build(&config).await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
    let listed: Vec<_> = storage.list_with(ListOptions::new()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn mistakes_are_told_and_nothing_is_repeated() {
    let registry = Registry::new().register(MultiFactory::new());
    for (uri, why) in [
        ("multi:a=memory:", "`strategy` must name"),
        ("multi:a=memory:?strategy=s3cret", "known are `redundant`, `sharded`"),
        ("multi:?strategy=sharded", "no stores are given"),
        ("multi:s3cret?strategy=sharded", "a URI names stores as in"),
        ("multi:a=memory:,a=memory:?strategy=sharded", "the same name"),
        ("multi:a=s3cret?strategy=sharded", "scheme"),
        ("multi:a=memory:?strategy=sharded&s3cret=1", "unknown option"),
    ] {
        let e = registry.open(uri).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{uri}: {e}");
        assert!(e.message().contains(why), "{uri}: {e}");
        assert!(!format!("{e:?}").contains("s3cret"), "{e:?}");
    }
    assert!(Store::new("a/b", Arc::new(Memory::new())).is_err());
    assert!(Store::new("a", Arc::new(Memory::new())).unwrap().with_weight(101).is_err());
}
