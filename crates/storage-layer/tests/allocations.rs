//! An intercepting layer that has nothing to do costs one allocation for each call.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator is unsafe; this one passes everything on to the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use futures_util::FutureExt;
use storage_core::{BoxFuture, Bytes, DeleteOptions, GetOptions, Key, PutOptions, Result, StatOptions, StorageBackend};
use storage_layer::{Intercept, Intercepted, Operation, Payload};
use storage_memory::Memory;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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

/// How many allocations each call takes: put, get, stat, delete.
fn allocations(backend: &dyn StorageBackend) -> [usize; 4] {
    let (key, value) = (Key::parse("key").unwrap(), Bytes::from_static(b"value"));
    let mut counts = [0; 4];
    // The first round fills what is kept for later.
    for _ in 0..2 {
        let calls: [&dyn Fn(); 4] = [
            &|| drop(backend.put(&key, value.clone().into(), PutOptions::new()).now_or_never().unwrap().unwrap()),
            &|| drop(backend.get(&key, GetOptions::new()).now_or_never().unwrap().unwrap().unwrap()),
            &|| drop(backend.stat(&key, StatOptions::new()).now_or_never().unwrap().unwrap().unwrap()),
            &|| backend.delete(&key, DeleteOptions::new()).now_or_never().unwrap().unwrap(),
        ];
        counts = calls.map(|call| {
            let before = COUNT.get();
            call();
            COUNT.get() - before
        });
    }
    counts
}

#[test]
fn an_idle_layer_costs_one_allocation_for_each_call() {
    let none = allocations(&Memory::new());
    assert!(none.iter().all(|count| *count > 0), "the allocator counts: {none:?}");
    let idle = |inner| Intercepted::new(inner, Idle);
    assert_eq!(allocations(&idle(Memory::new().into())), none.map(|count| count + 1));
    let two = Intercepted::new(std::sync::Arc::new(idle(Memory::new().into())), Idle);
    assert_eq!(allocations(&two), none.map(|count| count + 2));
}
