//! What is given up over a bridge, or over two, does not land behind a later call. Each bridge by itself is raced in the suite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use storage_core::Storage;
use storage_fs::Fs;
use storage_memory::Memory;
use storage_object_store::{AsObjectStore, Config, ObjectStoreBackend, Profile};
use tokio::{task::yield_now, time::sleep};

const ROUNDS: u32 = 60;

/// Drives a future for so many polls and some time, and drops it.
async fn drop_after<F: Future>(polls: u32, future: F) {
    let mut future = pin!(future);
    for n in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
        if n % 2 == 0 { yield_now().await } else { sleep(Duration::from_micros(300)).await }
    }
}

async fn read(store: &dyn ObjectStore, path: &Path) -> Vec<u8> {
    store.get(path).await.unwrap().bytes().await.unwrap().into()
}

/// Each round completes an upload and gives that up, puts another value, and looks at once and at the end.
async fn uploads_are_never_late(store: Arc<dyn ObjectStore>) {
    let path = |n: u32| Path::from(format!("k{n}"));
    for n in 0..ROUNDS {
        let mut upload = store.put_multipart(&path(n)).await.unwrap();
        upload.put_part(PutPayload::from("given up")).await.unwrap();
        drop_after(1 + n % 6, upload.complete()).await;
        store.put(&path(n), "new".into()).await.unwrap();
        assert_eq!(read(&*store, &path(n)).await, b"new", "round {n}");
        drop(upload);
    }
    sleep(Duration::from_millis(50)).await;
    for n in 0..ROUNDS {
        assert_eq!(read(&*store, &path(n)).await, b"new", "round {n}, later");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_that_is_given_up_while_it_completes_is_never_late() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Storage::new(Fs::open(dir.path()).await.unwrap());
    for storage in [Storage::new(Memory::new()), fs] {
        uploads_are_never_late(Arc::new(AsObjectStore::new(storage))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_is_one_over_two_bridges() {
    let dir = tempfile::tempdir().unwrap();
    let fs = AsObjectStore::new(Storage::new(Fs::open(dir.path()).await.unwrap()));
    let back = ObjectStoreBackend::connect(Arc::new(fs), Profile::new("bridged"), Config::default()).await.unwrap();
    uploads_are_never_late(Arc::new(AsObjectStore::new(Storage::new(back)))).await;
}
