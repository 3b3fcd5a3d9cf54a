//! The whole stack from a configuration: nothing goes around any layer, what it says of itself is true, and damage below is
//! told from data.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt;
use serde::Deserialize;
use storage_config::{BackendFactory, ConnectionConfig, DataKey, LayerFactory, StorageContext};
use storage_conformance::{Log, METHODS, Recorder, call};
use storage_core::{
    Body, Bytes, Consistency, Entry, ErrorKind, Metadata, PutOptions, Result, Storage, StorageBackend, async_trait,
};
use storage_layer_encrypt::StaticKeys;
use storage_memory::{Config, Memory};
use storage_registry::{LayerConfig, Registry, StorageConfig};

const LAYERS: [&str; 8] = ["trace", "metrics", "cache", "retry", "timeout", "limit", "compress", "encrypt"];

/// Gives out a store that was made before.
struct Given(Memory);

#[async_trait]
impl BackendFactory for Given {
    fn schemes(&self) -> &'static [&'static str] {
        &["given"]
    }

    async fn connect(&self, _: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        Ok(Arc::new(self.0.clone()))
    }
}

/// A third party's layer, which writes down what passes.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<(String, Log)>>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchOptions {
    below: String,
}

#[async_trait]
impl LayerFactory for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    async fn layer(
        &self,
        config: &ConnectionConfig,
        _: &StorageContext,
        inner: Arc<dyn StorageBackend>,
    ) -> Result<Arc<dyn StorageBackend>> {
        let recorder = Recorder::new(inner);
        self.0.lock().unwrap().push((config.typed::<WatchOptions>()?.below, recorder.log()));
        Ok(Arc::new(recorder))
    }
}

impl Watch {
    /// What passed below each layer since the last time, from the outermost on.
    fn take(&self) -> Vec<(String, Vec<&'static str>)> {
        self.0.lock().unwrap().iter().rev().map(|(below, log)| (below.clone(), log.take())).collect()
    }
}

/// All layers with somebody watching below each.
async fn stack(memory: &Memory) -> (Storage, Watch) {
    let watch = Watch::default();
    let mut context = StorageContext::default();
    context.keys = Some(Arc::new(StaticKeys::new("test", &DataKey::new([7; 32])).unwrap()));
    let registry = Registry::new().register(Given(memory.clone())).register_layer(watch.clone()).context(context);
    let mut config = StorageConfig::new("given");
    for layer in LAYERS {
        config.layers.extend([LayerConfig::new(layer), LayerConfig::new("watch").option("below", layer)]);
    }
    (registry.build(&config).await.unwrap(), watch)
}

/// Whether a method reaches what is below a layer as itself. Encryption binds a value to its key, so it copies by reading and
/// writing.
fn passes(layer: &str, method: &str) -> bool {
    layer != "encrypt" || !["copy", "rename"].contains(&method)
}

#[tokio::test]
async fn no_method_goes_around_a_layer() -> Result<()> {
    // Some of these layers sign no requests; tests/presign.rs has each by itself.
    for method in METHODS.iter().filter(|method| **method != "presign") {
        let memory = Memory::new();
        stack(&memory).await.0.put("a", "value").await?;
        // Another instance, whose cache is empty.
        let (storage, watch) = stack(&memory).await;
        let _ = call(&**storage.backend(), method).await;
        let seen = watch.take();
        assert_eq!(seen.len(), LAYERS.len());
        for (layer, calls) in seen {
            assert!(!calls.is_empty(), "{method} went nowhere below {layer}");
            assert_eq!(calls.contains(method), passes(&layer, method), "{method} below {layer}: {calls:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_method_of_a_transaction_goes_around_a_layer() -> Result<()> {
    for method in METHODS.iter().filter(|method| !["begin", "disconnect", "health", "presign"].contains(method)) {
        let (storage, watch) = stack(&Memory::new()).await;
        storage.put("a", "value").await?;
        let tx = storage.begin().await?;
        watch.take();
        call(&**tx.backend(), method).await?;
        for (layer, calls) in watch.take() {
            assert!(calls.iter().all(|call| call.starts_with("transaction.")), "{method} below {layer}: {calls:?}");
            let same = calls.contains(&format!("transaction.{method}").as_str());
            assert!(!calls.is_empty() && same == passes(&layer, method), "{method} below {layer}: {calls:?}");
        }
        tx.commit().await?;
        for (layer, calls) in watch.take() {
            assert_eq!(calls, ["transaction.commit"], "{method} below {layer}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn whatever_is_written_lies_encrypted_and_reads_back() -> Result<()> {
    let memory = Memory::new();
    let (storage, _) = stack(&memory).await;
    for method in METHODS.iter().filter(|method| **method != "disconnect") {
        storage.put("a", "value").await?;
        call(&**storage.backend(), method).await?;
        let tx = storage.begin().await?;
        if !["begin", "health"].contains(method) {
            tx.put("a", "value").await?;
            call(&**tx.backend(), method).await?;
        }
        tx.commit().await?;
        let raw = Storage::new(memory.clone());
        let entries: Vec<Entry> = raw.list("").await?.try_collect().await?;
        for entry in entries {
            let stored = raw.get(&entry.key).await?.unwrap();
            assert!(stored.starts_with(b"STE"), "{method} left {} as it is", entry.key);
            assert_eq!(storage.get(&entry.key).await?.as_deref(), Some(&b"value"[..]), "{method} {}", entry.key);
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_it_says_of_itself_is_true() -> Result<()> {
    let mut config = Config::default();
    config.max_value = Some(1 << 20);
    let memory = Memory::with_config(config);
    let (storage, _) = stack(&memory).await;
    let (info, below) = (storage.info(), memory.info());
    let mut expected = below.capabilities.compression().encryption();
    expected.queryable = false;
    assert_eq!((info.capabilities, info.consistency), (expected, Consistency::ProcessLocal));
    assert_eq!((info.limits.key, &info.id, info.isolation), (below.limits.key, &below.id, below.isolation));
    assert!((Metadata::MIN_LIMIT..below.limits.metadata).contains(&info.limits.metadata));

    // Noise, which no compression makes smaller.
    let largest = info.limits.value as usize;
    assert!(largest < 1 << 20 && largest > 1_000_000, "{largest}");
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(largest + 1).collect();
    let (noise, too_much) = (Bytes::from(noise.clone()).slice(..largest), Bytes::from(noise));
    storage.put("noise", noise.clone()).await?;
    let pieces = futures_util::stream::iter([Ok(too_much.clone())]);
    for body in [Body::from(too_much.clone()), Body::stream(pieces)] {
        assert_eq!(storage.put("noise", body).await.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    assert_eq!(stack(&memory).await.0.get("noise").await?, Some(noise));
    Ok(())
}

#[tokio::test]
async fn foreign_data_and_damage_are_told_from_values_and_nothing_is_lost() -> Result<()> {
    let memory = Memory::new();
    let raw = Storage::new(memory.clone());
    stack(&memory).await.0.put("letter", "dear diary").await?;
    let stored = raw.get("letter").await?.unwrap();
    let metadata = raw.stat("letter").await?.unwrap().metadata;
    raw.put("foreign", "somebody else's").await?;
    raw.put("empty", "").await?;
    for key in ["foreign", "empty"] {
        assert_eq!(stack(&memory).await.0.get(key).await.unwrap_err().kind(), ErrorKind::Corrupt, "{key}");
    }
    let keys: Vec<Entry> = stack(&memory).await.0.list("").await?.try_collect().await?;
    assert_eq!(keys.len(), 3);

    let options = || PutOptions::new().metadata(metadata.clone().unwrap());
    for at in 0..stored.len() {
        let mut damaged = stored.to_vec();
        damaged[at] ^= 1;
        raw.put_with("letter", damaged.clone(), options()).await?;
        let error = stack(&memory).await.0.get("letter").await.expect_err("the value was changed");
        // Where the id of the key is damaged, it names a key that is not there.
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Config), "byte {at}: {error:?}");
        assert_eq!(raw.get("letter").await?.unwrap(), damaged, "reading changed it");
    }
    raw.put_with("letter", stored, options()).await?;
    assert_eq!(stack(&memory).await.0.get("letter").await?.as_deref(), Some(&b"dear diary"[..]));
    Ok(())
}
