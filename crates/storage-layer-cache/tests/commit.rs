//! A transaction that is written to through another handle while its commit is under way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::FutureExt;
use storage_conformance::Faults;
use storage_core::{Result, Storage};
use storage_layer_cache::CacheLayer;
use storage_memory::Memory;

#[tokio::test]
async fn what_is_written_while_the_commit_is_under_way_is_seen_after_it() -> Result<()> {
    let mut late = [[0, 0], [0, 0]];
    for seed in 0..40 {
        for (is_cleared, is_dropped) in [(false, false), (false, true), (true, false), (true, true)] {
            let memory = Memory::new();
            let below = Storage::new(memory.clone());
            below.put_batch([("a", "old"), ("b", "old")]).await?;
            let faults = Faults::new(memory, seed).latency(6).only(["commit"]);
            let storage = Storage::new(faults).layer(CacheLayer::new());
            storage.get_batch(["a", "b"]).await?;

            let tx = storage.begin().await?;
            tx.put("a", "new").await?;
            let other = tx.clone();
            let mut commit = Box::pin(tx.commit());
            if (&mut commit).now_or_never().is_some() {
                continue;
            }
            let written = if is_cleared { other.clear().await } else { other.put("b", "new").await.map(drop) };
            if written.is_err() {
                // It waits after the commit, not before it.
                continue;
            }
            assert_eq!(storage.get("b").await?, Some("old".into()), "nothing is seen before the commit");
            let mut done = None;
            while done.is_none() && below.get("b").await? == Some("old".into()) {
                done = (&mut commit).now_or_never();
            }
            let is_dropped = is_dropped && done.is_none();
            match done {
                Some(result) => result?,
                None if is_dropped => drop(commit),
                None => commit.await?,
            }
            for key in ["a", "b"] {
                assert_eq!(storage.get(key).await?, below.get(key).await?, "{key}, seed {seed}");
            }
            late[usize::from(is_cleared)][usize::from(is_dropped)] += 1;
        }
    }
    assert!(late.as_flattened().iter().all(|n| *n > 5), "{late:?}");
    Ok(())
}
