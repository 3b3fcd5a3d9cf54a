//! What deleted keys take: nothing where one version is kept, else no more than `max_deleted` says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;

use futures_util::TryStreamExt;
use storage_core::{Entry, Result, Storage};
use storage_memory::{Config, Memory};

fn store(max_versions: usize, max_deleted: usize) -> Storage {
    let mut config = Config::default();
    config.max_versions = NonZeroUsize::new(max_versions).unwrap();
    config.max_deleted = max_deleted;
    Storage::new(Memory::with_config(config))
}

async fn versions(s: &Storage, key: &str) -> usize {
    let entries: Vec<Entry> = s.versions(key).await.unwrap().try_collect().await.unwrap();
    entries.len()
}

#[tokio::test]
async fn with_one_version_a_deleted_key_keeps_none() -> Result<()> {
    let s = store(1, 10);
    for key in ["deleted", "cleared", "moved"] {
        s.put(key, "older").await?;
        s.put(key, "newer").await?;
        assert_eq!(versions(&s, key).await, 1);
    }
    s.delete("deleted").await?;
    s.clear_prefix("cleared").await?;
    s.rename("moved", "target").await?;
    for key in ["deleted", "cleared", "moved"] {
        assert_eq!(versions(&s, key).await, 0, "{key}");
    }
    assert_eq!(s.get("target").await?.unwrap(), "newer");
    Ok(())
}

#[tokio::test]
async fn the_key_deleted_first_is_forgotten_first() -> Result<()> {
    let s = store(2, 3);
    for i in 0..5 {
        s.put(format!("{i}"), "v").await?;
    }
    for i in [4, 0, 3] {
        s.delete(format!("{i}")).await?;
    }
    assert_eq!(versions(&s, "4").await, 1);
    s.clear().await?;
    let mut kept = Vec::new();
    for i in 0..5 {
        kept.push(versions(&s, &format!("{i}")).await);
    }
    assert_eq!(kept, [0, 1, 1, 1, 0], "0 and 4 were deleted before 3, and then 1 and 2");
    let transaction = s.begin().await?;
    for i in 10..20 {
        transaction.put(format!("{i}"), "v").await?;
        transaction.delete(format!("{i}")).await?;
    }
    transaction.commit().await?;
    assert_eq!((versions(&s, "16").await, versions(&s, "17").await, versions(&s, "3").await), (0, 1, 0));
    Ok(())
}
