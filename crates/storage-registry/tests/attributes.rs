//! What a store says of the bytes that it holds reaches its callers through layers that keep those bytes, and no others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, LazyLock};

use futures_util::{StreamExt, TryStreamExt};
use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{
    BackendInfo, BatchOptions, Body, DeleteOptions, Entry, ErrorKind, GetOptions, Key, ListItem, ListOptions,
    ListStream, Object, PutOptions, Query, Result, StatOptions, StorageBackend, async_trait,
};
use storage_memory::Memory;
use storage_registry::{LayerConfig, Registry, StorageConfig};

/// A store that names the content of each value, and can fetch values by such names.
#[derive(Debug)]
struct Named {
    info: BackendInfo,
    inner: Memory,
}

fn named(mut entry: Entry) -> Entry {
    entry.attributes.insert("cid", format!("cid of {} bytes", entry.size));
    entry
}

#[async_trait]
impl StorageBackend for Named {
    fn info(&self) -> &BackendInfo {
        &self.info
    }
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let found = self.inner.get(key, options).await?;
        Ok(found.map(|object| Object::new(named(object.entry), object.body)))
    }
    async fn put(&self, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let body = options.source.take().map_or(body, |source| format!("fetched {source}").into());
        self.inner.put(key, body, options).await.map(named)
    }
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.inner.delete(key, options).await
    }
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        Ok(self.inner.stat(key, options).await?.map(named))
    }
    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let listing = self.inner.list(options).await?.map_ok(|item| match item {
            ListItem::Entry(entry) => ListItem::Entry(named(entry)),
            other => other,
        });
        Ok(listing.boxed())
    }
}

#[derive(Debug)]
struct Factory;

#[async_trait]
impl BackendFactory for Factory {
    fn schemes(&self) -> &'static [&'static str] {
        &["named"]
    }

    async fn connect(&self, _: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let inner = Memory::new();
        let mut info = inner.info().clone();
        info.capabilities.transactions = false;
        info.capabilities.versioning = false;
        info.capabilities.sources = true;
        Ok(Arc::new(Named { info, inner }))
    }
}

async fn under(layer: &LayerConfig) -> storage_core::Storage {
    let mut config = StorageConfig::new("named:");
    config.layers.push(layer.clone());
    Registry::new().register(Factory).build(&config).await.unwrap()
}

fn layers() -> Vec<(LayerConfig, bool)> {
    static KEY: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "303132333435363738396162636465666768696A6b6c6d6e6f70717273747576").unwrap();
        file
    });
    let key = format!("file:{}", KEY.path().display());
    let keeping = ["limit", "metrics", "retry", "timeout", "trace", "cache", "versioned"];
    let mut layers: Vec<_> = keeping.map(|name| (LayerConfig::new(name), true)).into();
    layers.push((LayerConfig::new("prefix").option("prefix", "ours"), true));
    layers.push((LayerConfig::new("compress"), false));
    layers.push((
        LayerConfig::new("encrypt").option("current", "k").option("keys", serde_json::json!({ "k": key })),
        false,
    ));
    layers
}

#[tokio::test]
async fn attributes_pass_only_where_the_bytes_do() {
    for (layer, keeps) in layers() {
        let s = under(&layer).await;
        let mut seen = vec![s.put("k", "value").await.unwrap()];
        seen.extend(
            s.put_batch_with([("k", "value", PutOptions::new())], BatchOptions::new()).await.unwrap().remove(0),
        );
        for _ in 0..2 {
            seen.push(s.get_with_entry("k", GetOptions::new()).await.unwrap().unwrap().1);
            seen.push(s.get_with_entry("k", GetOptions::new().range(1..3)).await.unwrap().unwrap().1);
            seen.push(s.stat("k").await.unwrap().unwrap());
        }
        seen.extend(s.list("").await.unwrap().try_collect::<Vec<_>>().await.unwrap());
        let with_metadata = s.list_with(ListOptions::new().metadata(true)).await.unwrap();
        let with_metadata: Vec<ListItem> = with_metadata.try_collect().await.unwrap();
        seen.extend(with_metadata.into_iter().filter_map(ListItem::into_entry));
        seen.extend(s.query(Query::new()).await.unwrap().try_collect::<Vec<_>>().await.unwrap());
        assert_eq!(seen.len(), 11, "{layer:?}");
        for entry in seen {
            let expected = keeps.then(|| "cid of 5 bytes".to_owned());
            assert_eq!(entry.attributes.get("cid"), expected.as_deref(), "{layer:?}: {entry:?}");
        }
    }
}

#[tokio::test]
async fn a_source_is_fetched_or_refused_and_never_ignored() {
    for (layer, keeps) in layers() {
        let s = under(&layer).await;
        let source = || PutOptions::new().source("abc");
        let put = s.put_with("k", "", source()).await;
        // The versioned layer writes in steps of its own.
        if !keeps || format!("{layer:?}").contains("versioned") {
            assert_eq!(put.unwrap_err().kind(), ErrorKind::Unsupported, "{layer:?}");
            assert!(!s.has("k").await.unwrap());
            continue;
        }
        put.unwrap();
        for _ in 0..2 {
            assert_eq!(s.get("k").await.unwrap().unwrap(), "fetched abc", "{layer:?}");
        }
        let both = s.put_with("k", "bytes", source()).await.unwrap_err();
        assert_eq!(both.kind(), ErrorKind::InvalidInput, "{layer:?}: {both}");
        assert_eq!(s.get("k").await.unwrap().unwrap(), "fetched abc", "{layer:?}");
    }
}
