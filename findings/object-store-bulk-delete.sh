#!/usr/bin/env bash
# object_store 0.14.2: an answer to a bulk delete is taken for success whatever it is an answer to.
#
# S3 answers a bulk delete (`delete_stream`) with status 200 and a document `DeleteResult` that names each object as deleted or failed.
# Expected: an object counts as deleted when the answer says so, and a document of another kind is an error. Seen: the root element may be
# called anything, and every object that is not named as failed counts as deleted, though the answer names another one only.
set -euo pipefail
. "$(dirname "$0")/object_store.bash"

seen=$(run <<'RUST'
use futures::{StreamExt, stream};
use http::Response;
use object_store::{
    ClientOptions, ObjectStore, Result,
    aws::AmazonS3Builder,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService},
    path::Path,
};

/// Gives every request the same answer.
#[derive(Clone, Copy, Debug)]
struct Always(&'static str);

impl HttpConnector for Always {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(*self))
    }
}

#[async_trait::async_trait]
impl HttpService for Always {
    async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        Ok(Response::new(self.0.to_owned().into()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    for answer in [
        "<DeleteResult><Deleted><Key>a</Key></Deleted><Deleted><Key>b</Key></Deleted></DeleteResult>",
        "<Bill><Deleted><Key>c</Key></Deleted></Bill>",
    ] {
        let store = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_http_connector(Always(answer))
            .build()?;
        let paths = stream::iter(["a", "b"].map(|path| Ok(Path::from(path)))).boxed();
        let deleted: Vec<String> = store
            .delete_stream(paths)
            .map(|deleted| deleted.map_or("an error".into(), |path| format!("{path} deleted")))
            .collect()
            .await;
        println!("{answer}: {}", deleted.join(", "));
    }
    Ok(())
}
RUST
)
expect "$seen" "<DeleteResult><Deleted><Key>a</Key></Deleted><Deleted><Key>b</Key></Deleted></DeleteResult>: a deleted, b deleted
<Bill><Deleted><Key>c</Key></Deleted></Bill>: a deleted, b deleted"
