//! Values through tokio's readers and writers.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;

use storage_core::{Body, Error, ErrorKind, GetOptions, PutOptions, Storage};
use storage_memory::Memory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_writer_makes_one_value_of_many_writes() {
    let storage = Storage::new(Memory::new());
    for len in [0, 1, 4096, 256 << 10, (256 << 10) + 1, 3 << 20] {
        let value = noise(len);
        let mut writer = storage.writer("a");
        for piece in value.chunks(10_007) {
            writer.write_all(piece).await.unwrap();
        }
        let entry = writer.finish().await.unwrap();
        assert_eq!(entry.size, len as u64);
        assert_eq!(storage.get("a").await.unwrap().unwrap(), value);
        let mut read = Vec::new();
        let object = storage.open("a", GetOptions::new()).await.unwrap().unwrap();
        object.body.into_reader().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, value);
    }
}

#[tokio::test]
async fn shutdown_commits_and_dropping_aborts() {
    let storage = Storage::new(Memory::new());
    let mut writer = storage.writer("a");
    tokio::io::copy(&mut &b"value"[..], &mut writer).await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(storage.get("a").await.unwrap(), None, "nothing is there before the end");
    writer.shutdown().await.unwrap();
    assert_eq!(storage.get("a").await.unwrap().unwrap(), "value");
    let late = writer.write_all(b"more").await.unwrap_err();
    assert_eq!(late.downcast::<Error>().unwrap().kind(), ErrorKind::Closed);
    drop(writer);

    let mut dropped = storage.writer("a");
    dropped.write_all(&noise(1 << 20)).await.unwrap();
    drop(dropped);
    assert_eq!(storage.get("a").await.unwrap().unwrap(), "value");
}

#[tokio::test]
async fn a_writer_says_why_the_put_failed() {
    let storage = Storage::new(Memory::new());
    storage.put("a", "value").await.unwrap();
    let mut writer = storage.writer_with("a", PutOptions::new().if_absent());
    writer.write_all(b"other").await.unwrap();
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let mut writer = storage.writer("");
    writer.write_all(b"value").await.unwrap();
    let error: io::Error = writer.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.downcast::<Error>().unwrap().kind(), ErrorKind::InvalidKey);
}

#[tokio::test]
async fn a_file_is_a_replayable_body() {
    let dir = std::env::temp_dir().join(format!("storage-core-io-{}", std::process::id()));
    std::fs::write(&dir, noise(1 << 20)).unwrap();
    let body = Body::from_file(&dir).await.unwrap();
    assert_eq!(body.len(), Some(1 << 20));
    for _ in 0..2 {
        assert_eq!(body.try_clone().unwrap().bytes(u64::MAX).await.unwrap(), noise(1 << 20));
    }
    std::fs::write(&dir, "shorter").unwrap();
    assert_eq!(body.bytes(u64::MAX).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    std::fs::remove_file(&dir).unwrap();
    assert_eq!(Body::from_file(&dir).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Body::from_reader(&b"abc"[..]).bytes(3).await.unwrap(), "abc");
}
