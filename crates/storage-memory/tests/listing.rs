//! Listings against a model that is too simple to be wrong, over random keys and options.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{Bytes, ListItem, ListOptions, Result, Storage};
use storage_memory::Memory;

const SEED: u64 = 0x5eed;

/// What a listing must show: filter, fold, skip, cut.
fn expected(keys: &BTreeMap<String, u64>, options: &ListOptions) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for key in keys.keys() {
        let Some(below) = key.strip_prefix(&options.prefix) else {
            continue;
        };
        let position = match below.split_once('/') {
            Some((first, _)) if options.delimited => format!("{}{first}/", options.prefix),
            _ => key.clone(),
        };
        if items.last() != Some(&position) {
            items.push(position);
        }
    }
    items.retain(|position| options.start_after.as_ref().is_none_or(|after| position > after));
    items.truncate(options.limit.unwrap_or(usize::MAX));
    items
}

async fn shown(storage: &Storage, options: ListOptions) -> Result<Vec<String>> {
    let items = storage.list_with(options).await?;
    items.map_ok(|item| item.position().to_owned()).try_collect().await
}

fn text(random: &mut fastrand::Rng, longest: usize) -> String {
    let len = random.usize(0..=longest);
    (0..len).map(|_| *random.choice(&['a', 'b', '/', '.', '0', 'é']).unwrap()).collect()
}

#[tokio::test]
async fn agrees_with_the_model() -> Result<()> {
    println!("seed {SEED:#x}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let (storage, mut model) = (Storage::new(Memory::new()), BTreeMap::new());
    for round in 0..2000 {
        let key = format!("{}{}", random.alphabetic(), text(&mut random, 5)).to_lowercase();
        if random.u8(0..3) == 0 {
            storage.delete(&key).await?;
            model.remove(&key);
        } else {
            storage.put(&key, Bytes::new()).await?;
            model.insert(key, 0);
        }
        let mut options = ListOptions::new().prefix(text(&mut random, 3)).delimited(random.bool());
        if random.bool() {
            options = options.start_after(text(&mut random, 4));
        }
        if random.bool() {
            options = options.limit(random.usize(0..20));
        }
        let seen = shown(&storage, options.clone()).await?;
        assert_eq!(seen, expected(&model, &options), "round {round}: {options:?}");
    }
    Ok(())
}

#[tokio::test]
async fn resumes_behind_every_item() -> Result<()> {
    let storage = Storage::new(Memory::new());
    for key in ["a", "a/b", "a/c", "a0", "b/c/d", "b/d", "c"] {
        storage.put(key, "").await?;
    }
    let all = shown(&storage, ListOptions::new().delimited(true)).await?;
    assert_eq!(all, ["a", "a/", "a0", "b/", "c"]);
    for (at, position) in all.iter().enumerate() {
        let options = ListOptions::new().delimited(true).start_after(position);
        assert_eq!(shown(&storage, options).await?, all[at + 1..]);
    }
    Ok(())
}

#[tokio::test]
async fn many_pages_of_hidden_keys_are_passed_over() -> Result<()> {
    let storage = Storage::new(Memory::new());
    for n in 0..2000 {
        storage.put(format!("k{n:04}"), "").await?;
    }
    storage.clear_prefix("k0").await?;
    storage.clear_prefix("k1").await?;
    assert_eq!(storage.keys().await?.count().await, 0);
    storage.put("k1999", "back").await?;
    let keys: Vec<_> = storage.keys().await?.try_collect().await?;
    assert_eq!(keys.len(), 1);
    Ok(())
}

#[tokio::test]
async fn shows_the_moment_of_the_call() -> Result<()> {
    let storage = Storage::new(Memory::new());
    storage.put("a", "1").await?;
    let mut listing = storage.list_with(ListOptions::new()).await?;
    storage.put("b", "2").await?;
    storage.delete("a").await?;
    storage.disconnect().await?;
    let first = listing.next().await.transpose()?;
    assert_eq!(first.as_ref().map(ListItem::position), Some("a"));
    assert!(listing.next().await.is_none());
    Ok(())
}
