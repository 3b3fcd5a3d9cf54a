//! Versions: how many are kept, what becomes of their files, and what a writer leaves that ended half way.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{num::NonZeroU32, time::Duration};

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc, oid::ObjectId};
use storage_core::{DeleteOptions, GetOptions, Storage, VersionId};
use storage_mongodb::Mongo;

struct Kept {
    storage: Storage<Mongo>,
    collection: String,
}

impl Kept {
    async fn new(versions: u32) -> Self {
        let collection = format!("kept{:08x}", fastrand::u32(..));
        let mut config = support::config(&support::server(), &collection).unwrap();
        config.versions = NonZeroU32::new(versions);
        config.inline_limit = 1000;
        config.sweep_after = Duration::ZERO;
        Self { storage: Storage::typed(Mongo::connect(config).await.unwrap()), collection }
    }

    async fn versions(&self, key: &str) -> Vec<VersionId> {
        let entries: Vec<_> = self.storage.versions(key).await.unwrap().try_collect().await.unwrap();
        entries.into_iter().map(|entry| entry.version.unwrap()).collect()
    }

    async fn documents(&self, of: &str) -> Vec<Document> {
        let database = support::client().await.database(support::DATABASE);
        let name = format!("{}{of}", self.collection);
        database.collection::<Document>(&name).find(doc! {}).await.unwrap().try_collect().await.unwrap()
    }

    async fn insert(&self, of: &str, document: Document) {
        let database = support::client().await.database(support::DATABASE);
        database.collection::<Document>(&format!("{}{of}", self.collection)).insert_one(document).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_are_kept_as_asked_for_and_no_file_more() {
    if support::is_missing_server() {
        return;
    }
    let kept = Kept::new(3).await;
    let mut written = Vec::new();
    for n in 0..6_u8 {
        // Small values and large ones, which have files, in turn.
        let len = if n % 2 == 0 { 10 } else { 600_000 };
        let put = kept.storage.put("k", vec![n; len]).await.unwrap();
        written.insert(0, (put.version.unwrap(), n, len));
    }
    let newest: Vec<VersionId> = written.iter().take(3).map(|(version, ..)| version.clone()).collect();
    assert_eq!(kept.versions("k").await, newest);
    kept.storage.backend().sweep().await.unwrap();
    for (version, n, len) in &written[..3] {
        let old = kept.storage.get_with("k", GetOptions::new().version(version.clone())).await.unwrap().unwrap();
        assert_eq!(old, vec![*n; *len]);
    }
    let of_pruned = GetOptions::new().version(written[3].0.clone());
    assert!(kept.storage.get_with("k", of_pruned).await.unwrap().is_none());
    // The fourth and the sixth write had files; the second's is gone.
    assert_eq!((kept.documents(".files").await.len(), kept.documents(".leases").await.len()), (2, 0));
    kept.storage.delete("k").await.unwrap();
    assert_eq!(kept.versions("k").await, newest);
    // The count goes on behind the delete.
    let again = kept.storage.put("k", "again").await.unwrap().version.unwrap();
    assert_eq!(kept.versions("k").await, [again, newest[0].clone(), newest[1].clone()]);
    support::drop_all(&kept.collection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_one_keeps_nothing_of_what_is_deleted() {
    if support::is_missing_server() {
        return;
    }
    let kept = Kept::new(1).await;
    for value in [vec![1; 600_000], vec![2; 10], vec![3; 600_000]] {
        kept.storage.put("k", value).await.unwrap();
        assert_eq!(kept.versions("k").await.len(), 1);
    }
    kept.storage.delete("k").await.unwrap();
    assert!(kept.versions("k").await.is_empty());
    for of in ["", ".versions", ".files", ".chunks", ".leases"] {
        assert_eq!(kept.documents(of).await, [], "{of}");
    }
    support::drop_all(&kept.collection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_left_that_ended_half_way_is_no_version() {
    if support::is_missing_server() {
        return;
    }
    let kept = Kept::new(3).await;
    let first = kept.storage.put("k", vec![1; 600_000]).await.unwrap().version.unwrap();
    // It has kept the value, and was killed before it replaced it.
    let mut copy = kept.documents("").await.remove(0);
    copy.insert("_id", ObjectId::new());
    copy.insert("key", "k");
    kept.insert(".versions", copy).await;
    assert_eq!(kept.versions("k").await, std::slice::from_ref(&first));
    let second = kept.storage.put("k", "second").await.unwrap().version.unwrap();
    let third = kept.storage.put("k", "third").await.unwrap().version.unwrap();
    assert_eq!(kept.versions("k").await, [third.clone(), second.clone(), first.clone()]);
    // Both documents go with the version, and with them the file.
    kept.storage.delete_with("k", DeleteOptions::new().version(first.clone())).await.unwrap();
    assert_eq!(kept.versions("k").await, [third, second]);
    assert!(kept.storage.get_with("k", GetOptions::new().version(first)).await.unwrap().is_none());
    assert_eq!((kept.documents(".files").await.len(), kept.documents(".chunks").await.len()), (0, 0));
    support::drop_all(&kept.collection).await;
}
