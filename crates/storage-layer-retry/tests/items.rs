//! Batches over a store that has no batches of its own, so that each item fails for itself.

use storage_conformance::Faults;
use storage_core::{
    BackendInfo, BatchOptions, Body, Condition, DeleteOptions, Entry, ErrorKind, GetOptions, Key, ListOptions,
    ListStream, Object, PutOptions, Result, StatOptions, Storage, StorageBackend, async_trait,
};
use storage_layer_retry::RetryLayer;
use storage_memory::Memory;

/// The six methods that a backend must have.
#[derive(Debug)]
struct Single(Faults<Memory>);

#[async_trait]
impl StorageBackend for Single {
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

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// A store in which calls fail before and after they are done, and what is below it.
fn stack(seed: u64, often: f64, retries: u32) -> (Storage<impl StorageBackend>, Storage<Memory>) {
    let memory = Memory::new();
    let faults = Faults::new(memory.clone(), seed).before(often).after(often).only(["put", "delete"]);
    let layer = RetryLayer::new().retries(retries).seed(seed);
    (Storage::typed(Single(faults)).layer(layer), Storage::typed(memory))
}

#[tokio::test(start_paused = true)]
async fn a_conditional_item_never_meets_its_own_first_try() -> Result<()> {
    let mut lost = 0;
    for seed in 0..200 {
        let (storage, below) = stack(seed, 0.3, 9);
        let once = || PutOptions::new().condition(Condition::IfAbsent);
        let items = KEYS.map(|key| (key, key, once()));
        let results = storage.put_batch_with(items, BatchOptions::new()).await?;
        for (key, result) in KEYS.into_iter().zip(results) {
            let stored = below.has(key).await?;
            match result {
                Ok(_) => assert!(stored, "seed {seed}, {key}"),
                // There is nobody else who could have been first.
                Err(e) => {
                    lost += 1;
                    assert!(e.is_ambiguous() && e.kind() != ErrorKind::AlreadyExists, "seed {seed}, {key}: {e:?}");
                }
            }
        }
    }
    assert!(lost > 50, "{lost} answers were lost");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_definite_failure_of_an_item_says_that_no_try_has_been_done() -> Result<()> {
    let (mut definite, mut ambiguous) = (0, 0);
    for seed in 0..200 {
        let (storage, below) = stack(seed, 0.5, 2);
        let items = KEYS.map(|key| (key, key, PutOptions::new()));
        let results = storage.put_batch_with(items, BatchOptions::new()).await?;
        for (key, result) in KEYS.into_iter().zip(results) {
            match result {
                Ok(_) => assert!(below.has(key).await?, "seed {seed}, {key}"),
                Err(e) if e.is_ambiguous() => ambiguous += 1,
                Err(e) => {
                    definite += 1;
                    assert!(!below.has(key).await?, "seed {seed}, {key}: {e:?}");
                }
            }
        }
    }
    assert!(definite > 20 && ambiguous > 20, "{definite} definite, {ambiguous} ambiguous");
    Ok(())
}
