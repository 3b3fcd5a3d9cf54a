//! What a layer costs that has nothing to do: time and allocations of a call through it, and through none. And what those
//! that work cost beside the library that does their work.
//!
//! `cargo xtask bench layers`. The value is 4 KiB in memory; the calls go through `dyn StorageBackend`, as behind a URI. Neither
//! a recorder of metrics nor a subscriber of traces is installed.

mod beside;

use std::{env, sync::Arc};

use divan::{AllocProfiler, Bencher};
use futures_util::FutureExt;
use storage_core::{
    BackendInfo, Body, BoxFuture, ByteRange, Bytes, Entry, GetOptions, Key, Layer, Object, PutOptions, Result, Storage,
    StorageBackend,
};
use storage_layer::{Intercept, Intercepted, Operation, Payload, Transform, Transformed};
use storage_layer_limit::LimitLayer;
use storage_layer_metrics::MetricsLayer;
use storage_layer_prefix::PrefixLayer;
use storage_layer_retry::RetryLayer;
use storage_layer_timeout::TimeoutLayer;
use storage_layer_trace::TraceLayer;
use storage_memory::Memory;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() -> Result<()> {
    // Timers need a runtime, which need not run for calls that do not wait.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let _entered = runtime.as_ref().ok().map(|runtime| runtime.enter());
    divan::main();
    // Only where everything is measured: `cargo bench` says `--bench`, whoever wants a part names it.
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments == ["--bench"] { beside::run() } else { Ok(()) }
}

/// An intercepting layer that does nothing.
#[derive(Debug)]
struct Idle;

impl Intercept for Idle {
    type Guard = ();

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

    async fn entry<S: StorageBackend + ?Sized>(&self, _: &S, stored: Entry) -> Result<Option<Entry>> {
        Ok(Some(stored))
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Same {
    type Backend = Transformed<S, Same>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Transformed::new(inner, self)
    }
}

fn stack(name: &str) -> Result<Storage> {
    let memory = Storage::typed(Memory::new());
    Ok(match name {
        "intercept" => memory.layer(Idle).erase(),
        "intercept x4" => memory.layer(Idle).layer(Idle).layer(Idle).layer(Idle).erase(),
        "transform" => memory.layer(Same).erase(),
        "retry" => memory.layer(RetryLayer::new()).erase(),
        "timeout" => memory.layer(TimeoutLayer::new()).erase(),
        "limit" => memory.layer(LimitLayer::new()).erase(),
        "metrics" => memory.layer(MetricsLayer::new()).erase(),
        "trace" => memory.layer(TraceLayer::new()).erase(),
        "prefix" => memory.layer(PrefixLayer::new("prefix")?).erase(),
        _ => memory.erase(),
    })
}

const STACKS: [&str; 10] =
    ["none", "intercept", "intercept x4", "transform", "retry", "timeout", "limit", "metrics", "trace", "prefix"];

/// Nothing in these stacks waits, so one poll is the whole call.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

fn filled(name: &str) -> Option<(Arc<dyn StorageBackend>, Key, Bytes)> {
    let (storage, key) = (stack(name).ok()?, Key::parse("benchmark/value").ok()?);
    let value = Bytes::from(vec![7; 4096]);
    now(storage.backend().put(&key, value.clone().into(), PutOptions::new()))?.ok()?;
    Some((storage.backend().clone(), key, value))
}

#[divan::bench(args = STACKS)]
fn get(bencher: Bencher, name: &str) {
    let filled = filled(name);
    assert!(filled.is_some(), "the value is stored");
    let Some((backend, key, _)) = filled else { return };
    bencher.bench_local(|| now(backend.get(&key, GetOptions::new())));
}

#[divan::bench(args = STACKS)]
fn put(bencher: Bencher, name: &str) {
    let filled = filled(name);
    assert!(filled.is_some(), "the value is stored");
    let Some((backend, key, value)) = filled else { return };
    bencher.bench_local(|| now(backend.put(&key, value.clone().into(), PutOptions::new())));
}
