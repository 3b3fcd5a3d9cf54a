//! The fault-injecting and the recording wrapper do what they say.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    BatchOptions, Body, ErrorKind, GetOptions, IntoKey, PresignOptions, PutOptions, Query, Storage, StorageBackend,
};
use storage_memory::Memory;

#[tokio::test]
async fn a_fault_before_does_nothing_and_is_definite() {
    let s = Storage::typed(Faults::new(Memory::new(), 1).before(1.0).only(["put", "commit"]));
    let error = s.put("key", "v").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && !error.is_ambiguous());
    assert!(!s.has("key").await.unwrap());
    let tx = s.begin().await.unwrap();
    assert_eq!(tx.put("key", "v").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(s.backend().planted(), 3);
}

#[tokio::test]
async fn a_fault_after_is_ambiguous_for_writes_only() {
    let s = Storage::typed(Faults::new(Memory::new(), 1).after(1.0));
    assert!(s.put("key", "v").await.unwrap_err().is_ambiguous());
    assert!(!s.get("key").await.unwrap_err().is_ambiguous());
    let below = Storage::from_arc(s.backend().inner().clone());
    assert!(below.has("key").await.unwrap());
}

#[tokio::test]
async fn bodies_are_cut_or_broken_off() {
    let memory = Memory::new();
    Storage::new(memory.clone()).put("key", vec![b'x'; 1000]).await.unwrap();
    let short = Faults::new(memory.clone(), 2).short_body(1.0);
    let object = short.get(&"key".into_key().unwrap(), GetOptions::new()).await.unwrap().unwrap();
    assert!(object.body.bytes(u64::MAX).await.unwrap().len() < 1000, "the backend does not notice");
    let short = Storage::new(short);
    assert_eq!(short.get("key").await.unwrap_err().kind(), ErrorKind::Unavailable, "the handle does");
    assert_eq!(short.get_batch(["key"]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let reset = Storage::new(Faults::new(memory, 2).reset(1.0));
    assert_eq!(reset.get("key").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let listing = reset.list("").await.unwrap();
    assert!(listing.try_collect::<Vec<_>>().await.is_err());
}

#[tokio::test]
async fn what_stalls_never_answers() {
    let memory = Memory::new();
    Storage::new(memory.clone()).put("key", vec![b'x'; 1000]).await.unwrap();
    let s = Storage::new(Faults::new(memory.clone(), 2).stall(1.0));
    assert!(s.put("key", "v").now_or_never().is_none());
    assert!(s.health().now_or_never().is_none());
    let s = Storage::new(Faults::new(memory, 2).stall_streams(1.0));
    let body = s.open("key", GetOptions::new()).await.unwrap().unwrap().body;
    assert!(body.bytes(u64::MAX).now_or_never().is_none());
    let listing = s.list("").await.unwrap();
    assert!(listing.collect::<Vec<_>>().now_or_never().is_none());
}

#[tokio::test]
async fn the_same_seed_plants_the_same_faults() {
    let run = |seed| async move {
        let s = Storage::new(Faults::new(Memory::new(), seed).before(0.3).after(0.3).latency(3));
        let mut outcomes = Vec::new();
        for _ in 0..100 {
            outcomes.push(s.put("key", "v").await.map_err(|e| e.kind()).is_ok());
        }
        outcomes
    };
    assert_eq!(run(5).await, run(5).await);
    assert_ne!(run(5).await, run(6).await);
}

#[tokio::test]
async fn a_recorder_notes_every_method() {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let s = Storage::new(recorder);
    s.put("a", Body::from("v")).await.unwrap();
    s.open("a", GetOptions::new()).await.unwrap();
    s.copy("a", "b").await.unwrap();
    s.rename("b", "c").await.unwrap();
    s.stat("c").await.unwrap();
    drop(s.list("").await.unwrap());
    drop(s.query(Query::new()).await.unwrap());
    s.get_batch(["a"]).await.unwrap();
    s.put_batch_with([("d", "v", PutOptions::new())], BatchOptions::new()).await.unwrap();
    s.delete_batch(["d"]).await.unwrap();
    drop(s.versions("a").await.unwrap());
    let presigned = s.backend().presign(&"a".into_key().unwrap(), PresignOptions::get(Duration::from_secs(1))).await;
    assert_eq!(presigned.unwrap_err().kind(), ErrorKind::Unsupported);
    let tx = s.begin().await.unwrap();
    tx.put("e", "v").await.unwrap();
    tx.commit().await.unwrap();
    s.delete("a").await.unwrap();
    s.clear().await.unwrap();
    s.health().await.unwrap();
    s.disconnect().await.unwrap();
    let expected = [
        "put",
        "get",
        "copy",
        "rename",
        "stat",
        "list",
        "query",
        "get_batch",
        "put_batch",
        "delete_batch",
        "versions",
        "presign",
        "begin",
        "transaction.put",
        "transaction.commit",
        "delete",
        "clear",
        "health",
        "disconnect",
    ];
    assert_eq!(log.take(), expected);
    assert!(log.take().is_empty() && Arc::strong_count(s.backend()) == 1);
}

#[tokio::test]
async fn every_method_can_be_called_by_its_name() {
    for method in METHODS {
        let memory = Memory::new();
        Storage::new(memory.clone()).put("a", "v").await.unwrap();
        let recorder = Recorder::new(memory);
        let log = recorder.log();
        call(&recorder, method).await.unwrap();
        assert_eq!(log.take()[0], *method);
    }
}
