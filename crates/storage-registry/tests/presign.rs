//! Presigned requests by URI and through every layer: forwarded, refused, or taken back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    sync::LazyLock,
    time::Duration,
};

use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_conformance::saboteurs::presigning;
use storage_core::{ErrorKind, PresignOptions, PresignedRequest, Result, Storage, StorageBackend, async_trait};
use storage_memory::Memory;
use storage_registry::{LayerConfig, Registry, StorageConfig};

const MINUTE: Duration = Duration::from_secs(60);

/// A store in memory that presigns requests.
#[derive(Debug)]
struct Presigning;

#[async_trait]
impl BackendFactory for Presigning {
    fn schemes(&self) -> &'static [&'static str] {
        &["presigning"]
    }

    async fn connect(&self, _: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        Ok(presigning(Arc::new(Memory::new())))
    }
}

/// The status and the body that a plain client gets.
async fn send(request: PresignedRequest, body: &'static str) -> (String, String) {
    let exchange = move || {
        let (host, path) = request.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let (method, length) = (request.method, body.len());
        write!(stream, "{method} /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

async fn under(layer: Option<LayerConfig>) -> Storage {
    let mut config = StorageConfig::new("presigning:");
    config.layers.extend(layer);
    Registry::new().register(Presigning).build(&config).await.unwrap()
}

#[tokio::test]
async fn layers_that_keep_bytes_and_see_no_writes_forward_them() {
    let names = ["limit", "metrics", "retry", "timeout", "trace"];
    let mut layers: Vec<_> = names.map(|name| Some(LayerConfig::new(name))).into();
    layers.push(None);
    layers.push(Some(LayerConfig::new("prefix").option("prefix", "ours")));
    for layer in layers {
        let storage = under(layer.clone()).await;
        assert!(storage.info().capabilities.presign, "{layer:?}");
        storage.put("a b", "value").await.unwrap();
        let get = storage.presign("a b", PresignOptions::get(MINUTE)).await.unwrap();
        assert_eq!(send(get, "").await, ("200".into(), "value".into()), "{layer:?}");
        let put = storage.presign("new", PresignOptions::put(MINUTE)).await.unwrap();
        assert_eq!(send(put, "theirs").await.0, "200", "{layer:?}");
        assert_eq!(storage.get("new").await.unwrap().unwrap(), "theirs", "{layer:?}");
        let delete = storage.presign("a b", PresignOptions::delete(MINUTE)).await.unwrap();
        assert_eq!(send(delete, "").await.0, "204", "{layer:?}");
        assert!(!storage.has("a b").await.unwrap(), "{layer:?}");
    }
}

#[tokio::test]
async fn layers_that_must_see_each_write_presign_reads_only() {
    for name in ["cache", "versioned"] {
        let storage = under(Some(LayerConfig::new(name))).await;
        for value in ["old", "value"] {
            storage.put("k", value).await.unwrap();
            storage.get("k").await.unwrap();
        }
        let get = storage.presign("k", PresignOptions::get(MINUTE)).await.unwrap();
        assert_eq!(send(get, "").await, ("200".into(), "value".into()), "{name}");
        for options in [PresignOptions::put(MINUTE), PresignOptions::delete(MINUTE)] {
            let refused = storage.presign("k", options).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{name}: {refused}");
            assert_eq!(refused.key().map(|key| key.as_str()), Some("k"), "{name}: {refused}");
        }
    }
}

#[tokio::test]
async fn layers_that_change_bytes_take_them_back() {
    static KEY: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "303132333435363738396162636465666768696A6b6c6d6e6f70717273747576").unwrap();
        file
    });
    let key = format!("file:{}", KEY.path().display());
    let encrypt = LayerConfig::new("encrypt").option("current", "k").option("keys", serde_json::json!({ "k": key }));
    for layer in [LayerConfig::new("compress"), encrypt] {
        let storage = under(Some(layer.clone())).await;
        assert!(!storage.info().capabilities.presign, "{layer:?}");
        storage.put("k", "value").await.unwrap();
        for options in [PresignOptions::get, PresignOptions::put, PresignOptions::head, PresignOptions::delete] {
            let refused = storage.presign("k", options(MINUTE)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{layer:?}: {refused}");
            // Nor past the handle's own check.
            let refused = storage.backend().presign(&"k".parse().unwrap(), options(MINUTE)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{layer:?}: {refused}");
        }
    }
}
