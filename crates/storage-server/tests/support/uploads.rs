//! A server that takes resumable uploads, and a client of them.

use futures_util::TryStreamExt;
use reqwest::{RequestBuilder, Response};
use storage_core::Storage;
use storage_memory::Memory;
use storage_server::Config;

use super::{Running, start_uploads};

pub(crate) struct Uploads {
    pub(crate) server: Running,
    pub(crate) parts: Storage,
}

pub(crate) async fn uploads(config: Config) -> Uploads {
    let parts = Storage::new(Memory::new());
    let server = start_uploads(Storage::new(Memory::new()), parts.clone(), config, 0).await;
    Uploads { server, parts }
}

pub(crate) fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

impl Uploads {
    /// Begins an upload, and returns its path.
    pub(crate) async fn begin(&self, path: &str) -> String {
        self.begun(self.server.request("PUT", path)).await
    }

    pub(crate) async fn begun(&self, request: RequestBuilder) -> String {
        let created = request.header("upload-complete", "?0").send().await.unwrap();
        assert_eq!(created.status(), 201);
        let url = created.url().join(header(&created, "location")).unwrap();
        assert!(header(&created, "upload-limit").contains("max-age="), "{:?}", created.headers());
        url.path().to_owned()
    }

    pub(crate) fn patch(
        &self,
        path: &str,
        offset: usize,
        complete: &str,
        bytes: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        let request = self.server.request("PATCH", path).header("content-type", "application/partial-upload");
        request.header("upload-offset", offset).header("upload-complete", complete).body(bytes)
    }

    pub(crate) async fn append(&self, path: &str, offset: usize, complete: &str, bytes: &'static str) -> Response {
        self.patch(path, offset, complete, bytes).send().await.unwrap()
    }

    pub(crate) async fn offset(&self, path: &str) -> String {
        let found = self.server.request("HEAD", path).send().await.unwrap();
        assert_eq!(found.status(), 204);
        assert_eq!(header(&found, "cache-control"), "no-store");
        format!("{} {}", header(&found, "upload-offset"), header(&found, "upload-complete"))
    }

    /// What is kept of uploads.
    pub(crate) async fn kept(&self) -> Vec<String> {
        let keys: Vec<_> = self.parts.keys().await.unwrap().try_collect().await.unwrap();
        keys.iter().map(|key| key.as_str().split('/').next().unwrap().to_owned()).collect()
    }
}
