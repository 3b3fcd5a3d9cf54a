//! How many resumable uploads are known to be complete.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use futures_util::{StreamExt, stream};
use storage_server::Config;
use support::uploads::{Uploads, uploads};

/// The most that are known, as PROTOCOL.md says.
const MOST: usize = 4096;

async fn complete(all: &Uploads, n: usize) -> String {
    let path = all.begin(&format!("/files/k{}", n % 10)).await;
    assert_eq!(all.append(&path, 0, "?1", "").await.status(), 200);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_complete_uploads_are_known_and_the_oldest_are_forgotten() {
    let all = uploads(Config::default()).await;
    let mut oldest = Vec::new();
    for n in 0..30 {
        oldest.push(complete(&all, n).await);
    }
    assert_eq!(all.offset(&oldest[0]).await, "0 ?1");
    let open = all.begin("/files/open").await;
    let others = stream::iter(30..MOST + 20).map(|n| complete(&all, n)).buffer_unordered(16);
    let others: Vec<String> = others.collect().await;
    // The oldest, by the order in which they were completed.
    for (n, path) in oldest.iter().enumerate() {
        let known = all.server.status("HEAD", path).await == 204;
        assert_eq!(known, n >= 20, "{n}");
    }
    assert_eq!(all.server.status("HEAD", others.last().unwrap()).await, 204);
    // What is not complete is not forgotten, and nothing else is kept of the others.
    assert_eq!(all.offset(&open).await, "0 ?0");
    let kept = all.kept().await;
    assert!(kept.len() == MOST + 1 && kept.iter().all(|kind| kind == "record"), "{} are kept", kept.len());
}
