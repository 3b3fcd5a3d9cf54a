//! What a layer costs that has nothing to do: time and allocations of a call through it, and through none.
//!
//! `cargo xtask bench layers`. The value is 4 KiB in memory; the calls go through `dyn StorageBackend`, as behind a URI.

use std::sync::Arc;

use divan::{AllocProfiler, Bencher};
use futures_util::FutureExt;
use storage_core::{
    BackendInfo, Body, BoxFuture, ByteRange, Bytes, Entry, GetOptions, Key, Layer, Object, PutOptions, Result, Storage,
    StorageBackend,
};
use storage_layer::{Intercept, Intercepted, Operation, Payload, Transform, Transformed};
use storage_layer_retry::RetryLayer;
use storage_memory::Memory;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// An intercepting layer that does nothing.
#[derive(Debug)]
struct Idle;

impl Intercept for Idle {
    type Span = ();

    async fn call<'a, T, F>(&'a self, _: Operation<'a>, call: F) -> (Result<T>, ())
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        (call().await, ())
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Idle {
    type Backend = Intercepted<S, Idle>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Intercepted::new(inner, self)
    }
}

/// A transforming layer that does nothing.
#[derive(Debug)]
struct Same;

impl Transform for Same {
    fn info(&self, inner: &BackendInfo) -> BackendInfo {
        inner.clone()
    }

    async fn encode(&self, _: &Key, body: Body, options: PutOptions) -> Result<(Body, PutOptions)> {
        Ok((body, options))
    }

    async fn decode(&self, _: &Key, stored: Object) -> Result<Object> {
        Ok(stored)
    }

    async fn read_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: GetOptions,
    ) -> Result<Option<Object>> {
        inner.get(key, options.range(range)).await
    }

    async fn entry(&self, stored: Entry) -> Result<Entry> {
        Ok(stored)
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Same {
    type Backend = Transformed<S, Same>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Transformed::new(inner, self)
    }
}

fn stack(name: &str) -> Storage {
    let memory = Storage::new(Memory::new());
    match name {
        "intercept" => memory.layer(Idle).erase(),
        "intercept x4" => memory.layer(Idle).layer(Idle).layer(Idle).layer(Idle).erase(),
        "retry" => memory.layer(RetryLayer::new()).erase(),
        "transform" => memory.layer(Same).erase(),
        _ => memory.erase(),
    }
}

const STACKS: [&str; 5] = ["none", "intercept", "intercept x4", "retry", "transform"];

/// Nothing in these stacks waits, so one poll is the whole call.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

fn filled(name: &str) -> (Arc<dyn StorageBackend>, Option<Key>, Bytes) {
    let (storage, value) = (stack(name), Bytes::from(vec![7; 4096]));
    let key = Key::parse("benchmark/value").ok();
    let put = key.as_ref().map(|key| {
        let put = storage.backend().put(key, value.clone().into(), PutOptions::new());
        now(put)
    });
    assert!(matches!(put, Some(Some(Ok(_)))), "the value is stored");
    (storage.backend().clone(), key, value)
}

#[divan::bench(args = STACKS)]
fn get(bencher: Bencher, name: &str) {
    let (backend, key, _) = filled(name);
    bencher.bench_local(|| key.as_ref().map(|key| now(backend.get(key, GetOptions::new()))));
}

#[divan::bench(args = STACKS)]
fn put(bencher: Bencher, name: &str) {
    let (backend, key, value) = filled(name);
    bencher.bench_local(|| {
        let body = Body::Bytes(value.clone());
        key.as_ref().map(|key| now(backend.put(key, body, PutOptions::new())))
    });
}
