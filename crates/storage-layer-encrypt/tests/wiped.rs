//! Keys do not stay in memory that is given back: an allocator looks into every block before it is freed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator is unsafe; this one passes everything on to the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    slice,
    sync::atomic::{AtomicUsize, Ordering},
};

use storage_config::{DataKey, KeyProvider};
use storage_core::{Result, Storage};
use storage_layer_encrypt::{Keyring, StaticKeys};
use storage_memory::Memory;

/// Not a constant, of which the compiler may put copies anywhere.
static KEY: [u8; 32] = *b"a key that nothing else contains";
static FOUND: AtomicUsize = AtomicUsize::new(0);

struct Looking;

unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that all of a block can be read, and what is found in it was written through this one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let bytes = unsafe { slice::from_raw_parts(block, layout.size()) };
        if bytes.windows(KEY.len()).any(|window| window == KEY) {
            FOUND.fetch_add(1, Ordering::Relaxed);
        }
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// How often the key was found in memory that was given back meanwhile.
async fn found<T>(work: impl Future<Output = T>) -> (usize, T) {
    FOUND.store(0, Ordering::Relaxed);
    let done = Box::pin(work).await;
    (FOUND.load(Ordering::Relaxed), done)
}

#[tokio::test]
async fn wrapping_and_unwrapping_leave_no_key_on_the_heap() -> Result<()> {
    let (seen, ()) = found(async { drop(KEY.to_vec()) }).await;
    assert_eq!(seen, 1, "the allocator sees what is not wiped");

    let providers: [Box<dyn KeyProvider>; 2] = [
        Box::new(StaticKeys::generate("kek")?),
        Box::new(Keyring::open(Storage::new(Memory::new()), StaticKeys::generate("kek")?).await?),
    ];
    for keys in &providers {
        let (seen, wrapped) = found(async {
            let key = DataKey::from(&KEY);
            keys.wrap(&key, b"context").await
        })
        .await;
        let wrapped = wrapped?;
        assert_eq!(seen, 0, "{keys:?}: wrapping");
        let (seen, same) = found(async {
            let key = keys.unwrap(&wrapped, b"context").await?;
            Result::Ok(key.expose() == &KEY)
        })
        .await;
        assert!(same?);
        assert_eq!(seen, 0, "{keys:?}: unwrapping");
        let (seen, refused) = found(keys.unwrap(&wrapped, b"another")).await;
        assert!(refused.is_err());
        assert_eq!(seen, 0, "{keys:?}: refusing");
    }
    Ok(())
}
