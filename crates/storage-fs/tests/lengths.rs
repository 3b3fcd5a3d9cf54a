//! Keys of every length from 1 byte to the longest, beside keys below them, in both trees.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use storage_core::{ListItem, ListOptions, PutOptions, Result, Storage};
use storage_fs::{Config, Durability, Fs};

/// How many items of a listing are compared.
const SOME: usize = 3;

async fn every_length(segment: &str) {
    // In memory where there is such a place: nothing here is about a disk.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut config = Config::default();
    config.root = root.path().to_owned();
    config.durability = Durability::Relaxed;
    let storage = Storage::new(Fs::connect(config).await.unwrap());
    let limit = storage.info().limits.key;
    let text = &segment.repeat(limit)[..limit];
    let mut model: BTreeSet<String> = (1..limit - 1).map(|len| format!("{}/m", &text[..len])).collect();
    // Those below first, so that directories take the names of the others.
    put(&storage, model.iter().cloned()).await;
    put(&storage, (1..=limit).map(|len| text[..len].to_owned())).await;
    model.extend((1..=limit).map(|len| text[..len].to_owned()));
    for len in (1..=limit).rev() {
        let key = &text[..len];
        for (prefix, delimited) in [(key, false), (key, true), (&key[..len - 1], false)] {
            assert_eq!(listed(&storage, prefix, delimited).await, expected(&model, prefix, delimited), "{prefix:?}");
        }
        assert!(storage.stat(key).await.unwrap().is_some(), "{key:?}");
        storage.clear_prefix(key).await.unwrap();
        model.retain(|other| !other.starts_with(key));
        assert_eq!(storage.stat(key).await.unwrap(), None, "{key:?}");
    }
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}

async fn put(storage: &Storage, keys: impl Iterator<Item = String>) {
    let items = keys.map(|key| (key.clone(), key, PutOptions::new()));
    let written = storage.put_batch_with(items, Default::default()).await.unwrap();
    written.into_iter().collect::<Result<Vec<_>>>().unwrap();
}

async fn listed(storage: &Storage, prefix: &str, delimited: bool) -> Vec<String> {
    let options = ListOptions::new().prefix(prefix).delimited(delimited).limit(SOME);
    let items: Vec<ListItem> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
    items.iter().map(|item| item.position().to_owned()).collect()
}

fn expected(model: &BTreeSet<String>, prefix: &str, delimited: bool) -> Vec<String> {
    let below = model.range(prefix.to_owned()..).take_while(|key| key.starts_with(prefix));
    let mut positions: Vec<String> = below
        .map(|key| match key[prefix.len()..].find('/').filter(|_| delimited) {
            Some(slash) => key[..=prefix.len() + slash].to_owned(),
            None => key.clone(),
        })
        .collect();
    positions.dedup();
    positions.truncate(SOME);
    positions
}

#[tokio::test]
async fn in_one_segment() {
    every_length("k").await;
}

#[tokio::test]
async fn in_many_segments() {
    every_length("segment/of/several.lengths/").await;
}
