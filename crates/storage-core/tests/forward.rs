//! `Arc` and `Box` pass every method on, to the method of the same name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use storage_core::{
    BackendInfo, BatchOptions, Body, Capabilities, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind,
    GetOptions, Key, ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query,
    RenameOptions, Result, StatOptions, StorageBackend, Transaction, async_trait,
};

/// Writes down the name of each method and fails with it, unlike any default.
#[derive(Debug)]
struct Recorder {
    info: BackendInfo,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Recorder {
    fn new() -> (Self, Arc<Mutex<Vec<&'static str>>>) {
        let info = BackendInfo::new("recorder", Capabilities::new());
        let calls = Arc::<Mutex<_>>::default();
        let recorder = Self { info, calls: calls.clone() };
        (recorder, calls)
    }

    fn note<T>(&self, method: &'static str) -> Result<T> {
        self.calls.lock().unwrap().push(method);
        Err(Error::new(ErrorKind::Other, method))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for Recorder {
    fn info(&self) -> &BackendInfo {
        self.calls.lock().unwrap().push("info");
        &self.info
    }
    async fn get(&self, _: &Key, _: GetOptions) -> Result<Option<Object>> {
        self.note("get")
    }
    async fn put(&self, _: &Key, _: Body, _: PutOptions) -> Result<Entry> {
        self.note("put")
    }
    async fn delete(&self, _: &Key, _: DeleteOptions) -> Result<()> {
        self.note("delete")
    }
    async fn stat(&self, _: &Key, _: StatOptions) -> Result<Option<Entry>> {
        self.note("stat")
    }
    async fn list(&self, _: ListOptions) -> Result<ListStream> {
        self.note("list")
    }
    async fn get_batch(&self, _: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        self.note("get_batch")
    }
    async fn put_batch(&self, _: Vec<(Key, Body, PutOptions)>, _: BatchOptions) -> Result<Vec<Result<Entry>>> {
        self.note("put_batch")
    }
    async fn delete_batch(&self, _: Vec<(Key, DeleteOptions)>, _: BatchOptions) -> Result<Vec<Result<()>>> {
        self.note("delete_batch")
    }
    async fn query(&self, _: Query) -> Result<EntryStream> {
        self.note("query")
    }
    async fn clear(&self, _: &str) -> Result<()> {
        self.note("clear")
    }
    async fn copy(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<Entry> {
        self.note("copy")
    }
    async fn rename(&self, _: &Key, _: &Key, _: RenameOptions) -> Result<Entry> {
        self.note("rename")
    }
    async fn versions(&self, _: &Key) -> Result<EntryStream> {
        self.note("versions")
    }
    async fn presign(&self, _: &Key, _: PresignOptions) -> Result<PresignedRequest> {
        self.note("presign")
    }
    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        self.note("begin")
    }
    async fn health(&self) -> Result<()> {
        self.note("health")
    }
    async fn disconnect(&self) -> Result<()> {
        self.note("disconnect")
    }
}

#[async_trait]
impl Transaction for Recorder {
    async fn commit(&self) -> Result<()> {
        self.note("commit")
    }
    async fn rollback(&self) -> Result<()> {
        self.note("rollback")
    }
}

/// The methods that a trait declares, read from its source, so that none can be forgotten here.
fn declared(name: &str) -> Vec<&'static str> {
    let source = include_str!("../src/backend.rs");
    let (_, body) = source.split_once(&format!("pub trait {name}:")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    body.lines()
        .map(str::trim)
        .filter_map(|line| line.strip_prefix("async fn ").or(line.strip_prefix("fn ")))
        .map(|line| line.split('(').next().unwrap())
        .collect()
}

/// Calls every method once, and checks that each answer is the recorder's own.
async fn call_all<B: StorageBackend + ?Sized>(backend: &B) {
    fn own<T>(method: &str, result: Result<T>) {
        match result {
            Ok(_) => panic!("{method} did not reach the recorder"),
            Err(error) => assert_eq!(error.message(), method),
        }
    }
    let (k, l) = (Key::parse("k").unwrap(), Key::parse("l").unwrap());
    assert_eq!(&*backend.info().id, "recorder");
    own("get", backend.get(&k, GetOptions::new()).await);
    own("put", backend.put(&k, "".into(), PutOptions::new()).await);
    own("delete", backend.delete(&k, DeleteOptions::new()).await);
    own("stat", backend.stat(&k, StatOptions::new()).await);
    own("list", backend.list(ListOptions::new()).await);
    own("get_batch", backend.get_batch(vec![]).await);
    let options = BatchOptions::new();
    own("put_batch", backend.put_batch(vec![], options.clone()).await);
    own("delete_batch", backend.delete_batch(vec![], options).await);
    own("query", backend.query(Query::new()).await);
    own("clear", backend.clear("").await);
    own("copy", backend.copy(&k, &l, CopyOptions::new()).await);
    own("rename", backend.rename(&k, &l, RenameOptions::new()).await);
    own("versions", backend.versions(&k).await);
    own("presign", backend.presign(&k, PresignOptions::get(Duration::from_secs(1))).await);
    own("begin", backend.begin().await);
    own("health", backend.health().await);
    own("disconnect", backend.disconnect().await);
}

async fn passes_all_on<B: StorageBackend>(wrap: impl FnOnce(Recorder) -> B) {
    let (recorder, calls) = Recorder::new();
    call_all(&wrap(recorder)).await;
    assert_eq!(*calls.lock().unwrap(), declared("StorageBackend"));
}

#[tokio::test]
async fn pointers_pass_every_method_on() {
    passes_all_on(|recorder| recorder).await;
    passes_all_on(Arc::new).await;
    passes_all_on(Box::new).await;
    passes_all_on(|recorder| Arc::new(recorder) as Arc<dyn StorageBackend>).await;
    passes_all_on(|recorder| Box::new(recorder) as Box<dyn StorageBackend>).await;
    passes_all_on(|recorder| Arc::new(recorder) as Arc<dyn Transaction>).await;
    passes_all_on(|recorder| Arc::new(Box::new(Arc::new(recorder)))).await;
}

#[tokio::test]
async fn a_shared_transaction_passes_its_end_on() {
    let (recorder, calls) = Recorder::new();
    let transaction: Arc<dyn Transaction> = Arc::new(recorder);
    Transaction::commit(&transaction).await.unwrap_err();
    Transaction::rollback(&transaction).await.unwrap_err();
    assert_eq!(*calls.lock().unwrap(), declared("Transaction"));
}
