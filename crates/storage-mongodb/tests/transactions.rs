//! Transactions beside writers without one.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use storage_core::{ErrorKind, Storage};
use storage_mongodb::Mongo;

/// A transaction that deletes what it does not see, while somebody creates it, is no order of the two unless they meet.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_of_nothing_meets_who_creates_the_key() {
    if support::is_missing_server() {
        return;
    }
    let collection = format!("meet{:08x}", fastrand::u32(..));
    let storage =
        Storage::new(Mongo::connect(support::config(&support::server(), &collection).unwrap()).await.unwrap());
    let tx = storage.begin().await.unwrap();
    storage.put("k", "created behind the snapshot").await.unwrap();
    let met = match tx.delete("k").await {
        Err(e) => Err(e),
        Ok(()) => tx.commit().await,
    };
    assert_eq!(met.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(storage.get("k").await.unwrap().is_some());
    // Where nobody comes, it leaves nothing.
    let tx = storage.begin().await.unwrap();
    tx.delete("nothing").await.unwrap();
    assert!(tx.get("nothing").await.unwrap().is_none());
    tx.commit().await.unwrap();
    assert!(storage.get("nothing").await.unwrap().is_none());
    support::drop_all(&collection).await;
}
