//! Futures of the handle can be sent to another thread, whatever iterators they were made from.

use storage_core::{BoxFuture, Result, Storage};
use storage_memory::Memory;

fn batches(storage: Storage) -> BoxFuture<'static, Result<usize>> {
    Box::pin(async move {
        let keys: Vec<String> = (0..3).map(|i| format!("k{i}")).collect();
        storage.put_batch(keys.iter().map(|key| (key, "x"))).await?;
        let found = storage.get_batch(keys.iter().map(|key| key.as_str())).await?;
        storage.delete_batch(keys.iter().filter(|key| !key.is_empty())).await?;
        Ok(found.len())
    })
}

#[tokio::test]
async fn batches_of_borrowed_items_are_send() -> Result<()> {
    let storage = Storage::new(Memory::new());
    assert_eq!(batches(storage).await?, 3);
    Ok(())
}
