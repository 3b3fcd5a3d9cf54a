//! A server whose store is another server's, and is away just when a resumable upload is completed.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use futures_util::TryStreamExt;
use reqwest::{Client, Response};
use storage_config::Secret;
use storage_conformance::proxy::{Fault, Proxy};
use storage_core::Storage;
use storage_memory::Memory;
use storage_rest::{Config, Rest};
use support::{Running, TOKEN};

fn client() -> Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

struct Front {
    server: Running,
    client: Client,
    /// What is kept of uploads.
    parts: Storage,
}

impl Front {
    /// A server over the one at this address.
    async fn over(address: &str) -> Self {
        let mut config = Config::new(format!("http://{address}"));
        config.token = Some(Secret::new(TOKEN));
        config.timeout = Duration::from_secs(3);
        let (store, parts) = (Storage::new(Rest::connect(config).await.unwrap()), Storage::new(Memory::new()));
        let uploads = parts.clone();
        let server = Running::start_with(store, 0, |server| server.uploads(uploads)).await;
        Self { server, client: client(), parts }
    }

    /// Begins an upload with the first bytes, and returns its URL.
    async fn begin(&self, key: &str) -> String {
        let put = self.client.put(format!("{}/files/{key}", self.server.url())).bearer_auth(TOKEN);
        let begun = put.header("upload-complete", "?0").body("water ").send().await.unwrap();
        assert_eq!(begun.status(), 201);
        begun.url().join(header(&begun, "location")).unwrap().to_string()
    }

    async fn complete(&self, url: &str, offset: usize, rest: &'static str) -> Response {
        let patch = self.client.patch(url).bearer_auth(TOKEN).header("content-type", "application/partial-upload");
        patch.header("upload-offset", offset).header("upload-complete", "?1").body(rest).send().await.unwrap()
    }

    async fn offset(&self, url: &str) -> String {
        let head = self.client.head(url).bearer_auth(TOKEN).send().await.unwrap();
        format!("{} {}", header(&head, "upload-offset"), header(&head, "upload-complete"))
    }

    async fn kept(&self) -> Vec<String> {
        let keys: Vec<_> = self.parts.keys().await.unwrap().try_collect().await.unwrap();
        keys.iter().map(|key| key.as_str().split('/').next().unwrap().to_owned()).collect()
    }
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn versions(storage: &Storage, key: &str) -> usize {
    storage.versions(key).await.unwrap().try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_store_is_away_is_completed_when_it_is_back() {
    let below = Storage::new(Memory::new());
    let store = Running::start(below.clone(), 0).await;
    let front = Front::over(&store.address.to_string()).await;
    let url = front.begin("k").await;
    let port = store.address.port();
    store.stop().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The last bytes are kept, and nothing says that it is complete.
    for (offset, rest) in [(6, "the plants"), (16, ""), (16, "")] {
        let refused = front.complete(&url, offset, rest).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "upload-complete")), (503, ""));
        let text = refused.text().await.unwrap();
        assert!(text.contains("\"kind\":\"unavailable\"") && text.contains("\"ambiguous\":false"), "{text}");
        assert_eq!(front.offset(&url).await, "16 ?0");
        assert!(below.stat("k").await.unwrap().is_none());
    }
    let _store = Running::start(below.clone(), port).await;
    let done = front.complete(&url, 16, "").await;
    assert_eq!((done.status().as_u16(), header(&done, "upload-complete")), (200, "?1"));
    assert_eq!(below.get("k").await.unwrap().unwrap(), "water the plants");
    assert_eq!((versions(&below, "k").await, front.offset(&url).await), (1, "16 ?1".into()));
    assert_eq!(front.kept().await, ["record"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_write_nobody_knows_of_ends_as_ambiguous_and_is_not_written_again() {
    let below = Storage::new(Memory::new());
    let store = Running::start(below.clone(), 0).await;
    let proxy = Proxy::start(&store.address.to_string()).unwrap();
    let front = Front::over(&proxy.address()).await;
    let url = front.begin("k").await;
    // The write is done, and neither its answer nor that to the question comes back.
    proxy.spoil(0, 8, Fault::Reset(0));
    let unknown = front.complete(&url, 6, "the plants").await;
    proxy.forget();
    assert_eq!((unknown.status().as_u16(), header(&unknown, "upload-complete")), (503, "?1"));
    assert!(unknown.text().await.unwrap().contains("\"ambiguous\":true"));
    assert_eq!(below.get("k").await.unwrap().unwrap(), "water the plants");
    below.put("k", "of another").await.unwrap();
    let again = front.complete(&url, 16, "").await;
    assert_eq!(again.status(), 410);
    assert_eq!(below.get("k").await.unwrap().unwrap(), "of another");
    assert_eq!((front.offset(&url).await, front.kept().await), ("16 ?1".into(), vec!["record".into()]));
}
