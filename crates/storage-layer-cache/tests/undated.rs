//! Over a store whose answers to writes have no dates, as clouds are.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_conformance::{Log, Recorder};
use storage_core::{
    BackendInfo, Body, Bytes, DeleteOptions, Entry, GetOptions, Key, ListOptions, ListStream, Metadata, Object,
    PutOptions, Result, StatOptions, Storage, StorageBackend, async_trait,
};
use storage_layer_cache::{Cache, CacheLayer};
use storage_memory::Memory;

/// Its puts say key, size, etag and version, and so do its reads where the entry is not wanted.
#[derive(Debug)]
struct Undated(Memory);

fn bare(entry: Entry) -> Entry {
    let mut bare = Entry::new(entry.key, entry.size);
    (bare.etag, bare.version) = (entry.etag, entry.version);
    bare
}

#[async_trait]
impl StorageBackend for Undated {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let wanted = options.entry;
        let found = self.0.get(key, options).await?;
        Ok(found.map(|Object { entry, body, .. }| Object::new(if wanted { entry } else { bare(entry) }, body)))
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.0.put(key, body, options).await.map(bare)
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

fn over(layer: CacheLayer) -> (Storage<Cache<Recorder<Undated>>>, Log, Storage) {
    let memory = Memory::new();
    let recorder = Recorder::new(Undated(memory.clone()));
    let log = recorder.log();
    (Storage::typed(recorder).layer(layer), log, Storage::new(memory))
}

fn described() -> PutOptions {
    PutOptions::new().metadata(Metadata::new().field("n", 1))
}

#[tokio::test]
async fn bytes_are_served_at_once_and_one_stat_completes_the_entry() -> Result<()> {
    let (storage, log, below) = over(CacheLayer::new());
    for value in ["one", "two"] {
        storage.put_with("k", value, described()).await?;
        assert_eq!(storage.get("k").await?, Some(value.into()));
        assert_eq!(storage.get_with("k", GetOptions::new().range(1..2)).await?, Some(value[1..2].into()));
        assert_eq!(storage.get_batch(["k"]).await?.into_values().next(), Some(value.into()));
        assert_eq!(log.take(), ["put"], "no read below");
        let (bytes, entry) = storage.get_with_entry("k", GetOptions::new()).await?.unwrap();
        assert_eq!((bytes, Some(entry)), (value.into(), below.stat("k").await?));
        assert_eq!(storage.stat("k").await?, below.stat("k").await?);
        assert_eq!(
            storage.open("k", GetOptions::new().entry(false)).await?.unwrap().entry,
            below.stat("k").await?.unwrap()
        );
        assert_eq!(log.take(), ["stat"], "one for the whole entry");
    }
    storage.put_with("k", "three", described()).await?;
    for _ in 0..2 {
        assert_eq!(storage.stat("k").await?, below.stat("k").await?);
    }
    assert_eq!(storage.get("k").await?, Some("three".into()));
    assert_eq!(log.take(), ["put", "stat"], "a stat completes it as well");
    storage.get("missing").await?;
    storage.put("read", "value").await?;
    below.put("elsewhere", "value").await?;
    let _ = log.take();
    storage.get("elsewhere").await?;
    assert_eq!(storage.stat("elsewhere").await?, below.stat("elsewhere").await?);
    assert_eq!(log.take(), ["get"], "what a load keeps has its whole entry");
    Ok(())
}

#[tokio::test]
async fn an_entry_that_is_another_by_now_is_never_joined_to_older_bytes() -> Result<()> {
    let (storage, log, below) = over(CacheLayer::new());
    for whole in [false, true] {
        storage.put("k", "ours").await?;
        below.put_with("k", "theirs, longer", described()).await?;
        let _ = log.take();
        if whole {
            let (bytes, entry) = storage.get_with_entry("k", GetOptions::new()).await?.unwrap();
            assert_eq!((bytes, Some(entry)), ("theirs, longer".into(), below.stat("k").await?));
            assert_eq!(log.take(), ["stat", "get"]);
        } else {
            assert_eq!(storage.stat("k").await?, below.stat("k").await?);
            assert_eq!(log.take(), ["stat"]);
        }
        assert_eq!(storage.get("k").await?, Some("theirs, longer".into()), "what was forgotten is not served again");
    }
    storage.put("k", "ours").await?;
    below.delete("k").await?;
    assert_eq!(storage.get_with_entry("k", GetOptions::new()).await?, None);
    assert_eq!(storage.get("k").await?, None);
    Ok(())
}

#[tokio::test]
async fn with_validation_only_what_is_wanted_is_asked_for() -> Result<()> {
    let (storage, log, below) = over(CacheLayer::new().validate(true));
    storage.put("k", "ours").await?;
    assert_eq!(storage.get("k").await?, Some("ours".into()));
    assert_eq!(log.take(), ["put", "get"]);
    let (_, entry) = storage.get_with_entry("k", GetOptions::new()).await?.unwrap();
    assert_eq!(Some(entry), below.stat("k").await?);
    let _ = log.take();
    let bytes = Bytes::from("theirs");
    below.put("k", bytes.clone()).await?;
    assert_eq!(storage.get("k").await?, Some(bytes));
    Ok(())
}
