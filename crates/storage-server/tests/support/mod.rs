//! A server of a test's own, and requests as somebody else's client makes them.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod uploads;

use std::{net::SocketAddr, path::PathBuf};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use storage_core::Storage;
use storage_memory::Memory;
use storage_server::{Config, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// A server that ends with this.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) storage: Storage,
    pub(crate) client: Client,
    end: Option<oneshot::Sender<()>>,
    pub(crate) ended: JoinHandle<()>,
}

/// A server over a store in memory.
pub(crate) async fn start(config: Config) -> Running {
    start_over(Storage::new(Memory::new()), config, 0).await
}

/// A server over this store, on this port.
pub(crate) async fn start_over(storage: Storage, config: Config, port: u16) -> Running {
    start_server(storage.clone(), Server::new(storage, config).unwrap(), port).await
}

/// A server over this store that takes resumable uploads.
pub(crate) async fn start_uploads(storage: Storage, uploads: Storage, config: Config, port: u16) -> Running {
    start_server(storage.clone(), Server::new(storage, config).unwrap().uploads(uploads), port).await
}

async fn start_server(storage: Storage, server: Server, port: u16) -> Running {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let bound = server.on(listener).unwrap();
    let address = bound.address().unwrap();
    let (end, told) = oneshot::channel();
    let ended = tokio::spawn(bound.run(async {
        // Dropping the sender ends it, too.
        let _ = told.await;
    }));
    let client = Client::builder().tls_backend_preconfigured(no_tls()).no_proxy().build().unwrap();
    Running { address, storage, client, end: Some(end), ended }
}

fn no_tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

impl Running {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path))
    }

    /// The status of a request without a body.
    pub(crate) async fn status(&self, method: &str, path: &str) -> u16 {
        self.request(method, path).send().await.unwrap().status().as_u16()
    }

    pub(crate) async fn put(&self, path: &str, value: &'static str) -> Response {
        let response = self.request("PUT", path).body(value).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response
    }

    /// Tells it to end.
    pub(crate) fn end(&mut self) {
        drop(self.end.take());
    }

    /// What is answered to these bytes, until the server closes the connection. The client keeps its side open.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may have closed it already.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The same with the client's side closed behind the last byte.
    pub(crate) async fn raw_and_close(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// How many keys there are.
    pub(crate) async fn count(&self) -> usize {
        use futures_util::TryStreamExt;
        self.storage.keys().await.unwrap().try_collect::<Vec<_>>().await.unwrap().len()
    }
}

/// Problem details of this status and kind.
pub(crate) async fn expect_problem(response: Response, status: u16, kind: &str) -> String {
    assert_eq!(response.status(), StatusCode::from_u16(status).unwrap());
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(!id.is_empty());
    let text = response.text().await.unwrap();
    assert!(text.contains(&format!("\"kind\":\"{kind}\"")) && text.contains(&format!("\"status\":{status}")), "{text}");
    text
}

/// A file of tokens.
pub(crate) struct TokenFile(pub(crate) PathBuf, tempfile::TempDir);

impl TokenFile {
    pub(crate) fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        std::fs::write(&path, text).unwrap();
        Self(path, dir)
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.tokens = Some(self.0.clone());
        config
    }
}
