//! A rename moves a name, not bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{TryStreamExt, stream};
use storage_core::{
    Body, Bytes, Entry, ErrorKind, GetOptions, ListOptions, Metadata, PutOptions, RenameOptions, Result, Storage,
};
use storage_fs::Fs;

/// 256 MiB, in pieces that no filesystem leaves out.
const PIECES: u64 = 256;

fn large() -> Body {
    let piece = |n: u64| Ok(Bytes::from((0..1 << 20).map(|i| (i as u64 * 31 + n) as u8 | 1).collect::<Vec<_>>()));
    Body::with_len(PIECES << 20, stream::iter((0..PIECES).map(piece)))
}

/// The blocks that all files below a directory take.
fn blocks(root: &Path) -> u64 {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => blocks(&entry.path()),
            false => entry.metadata().unwrap().blocks(),
        })
        .sum()
}

async fn listed(storage: &Storage, options: ListOptions) -> Vec<Entry> {
    let items: Vec<_> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
    items.into_iter().filter_map(storage_core::ListItem::into_entry).collect()
}

#[tokio::test]
async fn a_large_value_keeps_its_file() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let storage = Storage::new(Fs::open(root.path()).await?);
    let metadata = Metadata::new().tag("t").field("n", 1);
    let put = storage.put_with("from", large(), PutOptions::new().metadata(metadata.clone())).await?;
    let before = fs::metadata(root.path().join("from")).unwrap();
    let taken = blocks(root.path());
    assert!(before.blocks() * 512 >= PIECES << 20, "the value takes its place on the disk");
    for (from, to) in [("from", "to"), ("to", "below/a/directory"), ("below/a/directory", "to"), ("to", "from")] {
        let written = storage.rename(from, to).await?;
        let after = fs::metadata(root.path().join(to)).unwrap();
        assert_eq!((after.ino(), after.len()), (before.ino(), PIECES << 20), "{from} to {to}");
        assert!(blocks(root.path()) <= taken + 64, "{from} to {to}: blocks of a copy");
        assert_eq!(storage.stat(from).await?, None);
        let stat = storage.stat(to).await?.unwrap();
        assert_eq!(stat, written);
        assert_eq!(stat.metadata.as_deref(), Some(&metadata));
        assert!(stat.etag != put.etag && stat.modified >= put.modified);
        let [bare] = &listed(&storage, ListOptions::new().etags(false)).await[..] else { panic!("one entry") };
        assert_eq!(bare.modified, stat.modified, "the date without the record");
        assert_eq!(listed(&storage, ListOptions::new().metadata(true)).await, [stat]);
    }
    let mut sum = 0;
    let mut body = storage.open("from", GetOptions::new()).await?.unwrap().body.into_stream();
    while let Some(piece) = body.try_next().await? {
        sum += piece.len() as u64;
    }
    assert_eq!(sum, PIECES << 20);
    Ok(())
}

/// What the filesystem has no second name or no room for is copied, and other programs' files stay what they are.
#[tokio::test]
async fn what_cannot_keep_its_file_is_copied() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let storage = Storage::new(Fs::open(root.path()).await?);
    let path = |name: &str| root.path().join(name);
    fs::write(path("foreign"), "from elsewhere").unwrap();
    storage.put("linked", "value").await?;
    fs::hard_link(path("linked"), path("other")).unwrap();
    storage.put("changed", "value").await?;
    fs::write(path("changed"), "by another program").unwrap();
    for (key, value) in
        [("foreign", "from elsewhere"), ("linked", "value"), ("other", "value"), ("changed", "by another program")]
    {
        let other = storage.stat("other").await?;
        let written = storage.rename(key, format!("{key} renamed")).await?;
        assert_eq!(storage.stat(format!("{key} renamed")).await?, Some(written));
        assert_eq!(storage.get(format!("{key} renamed")).await?, Some(value.into()));
        assert_eq!(storage.stat(key).await?, None);
        if key != "other" && storage.stat("other").await?.is_some() {
            assert_eq!(storage.stat("other").await?.map(|entry| entry.modified), other.map(|entry| entry.modified));
        }
    }
    // No room for a long key beside so much metadata.
    let room = storage.info().limits.metadata - 200;
    let metadata = Metadata::new().field("f", "x".repeat(room));
    let long = "long/".repeat(100) + "key";
    storage.put_with("full", "value", PutOptions::new().metadata(metadata.clone())).await?;
    storage.rename("full", &long).await?;
    assert_eq!(storage.stat(&long).await?.unwrap().metadata.as_deref(), Some(&metadata));
    assert_eq!(storage.get(&long).await?, Some("value".into()));
    Ok(())
}

#[tokio::test]
async fn keys_that_need_each_others_place_change_it() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let storage = Storage::new(Fs::open(root.path()).await?);
    storage.put("a", "value").await?;
    for (from, to) in [("a", "a/b"), ("a/b", "a/b/c"), ("a/b/c", "a"), ("a", ".."), ("..", "A/"), ("A/", "a")] {
        storage.rename(from, to).await?;
        let keys: Vec<_> = storage.keys().await?.try_collect().await?;
        assert_eq!(keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), [to]);
        assert_eq!(storage.get(to).await?, Some("value".into()), "{from} to {to}");
    }
    storage.put("b", "other").await?;
    let absent = storage.rename_with("a", "b", RenameOptions::new().if_absent()).await;
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let created = storage.stat("b").await?.unwrap().created;
    storage.rename("a", "b").await?;
    assert_eq!(storage.stat("b").await?.unwrap().created, created, "the target keeps its date of creation");
    Ok(())
}

/// Two instances move a value to and fro while others read both keys: whoever finds it, finds it whole, with an etag of that key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_an_etag_of_the_other_key() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = storage_fs::Config::default();
        config.root = root.path().to_owned();
        config.durability = storage_config::Durability::Relaxed;
        config
    };
    let storage = Storage::new(Fs::connect(config()).await?);
    let value = Bytes::from(vec![7; 10_000]);
    let first = storage.put("a", value.clone()).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for key in ["a", "b", "a", "b"] {
        let (reader, over) = (Storage::new(Fs::connect(config()).await?), over.clone());
        let value = value.clone();
        readers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                if let Some(entry) = reader.stat(key).await? {
                    seen.push((key, entry.etag.unwrap(), entry.modified));
                }
                if let Some((bytes, entry)) = reader.get_with_entry(key, GetOptions::new()).await? {
                    assert_eq!(bytes, value);
                    seen.push((key, entry.etag.unwrap(), entry.modified));
                }
            }
            Result::Ok(seen)
        }));
    }
    let mut written = vec![("a", first.etag.unwrap(), first.modified)];
    for round in 0..400 {
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let entry = storage.rename(from, to).await?;
        written.push((to, entry.etag.unwrap(), entry.modified));
    }
    over.store(true, Ordering::Relaxed);
    let mut all = 0;
    for reader in readers {
        for seen in reader.await.unwrap()? {
            assert!(written.contains(&seen), "{seen:?} was never written");
            all += 1;
        }
    }
    assert!(all > 0);
    Ok(())
}
