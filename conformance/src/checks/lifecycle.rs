//! From connecting to dropping everything.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use storage_core::{ErrorKind, GetOptions, Storage};
use tokio::{runtime::Handle, time::sleep};

use crate::{
    Context, Outcome,
    assert::{expect, expect_eq, expect_some},
    support::{all, expect_value, keys, noise},
};

/// A store that works says that it is connected.
pub async fn connected(c: Context) -> Outcome {
    expect(c.storage.is_connected().await, || "expected a fresh instance to be connected, saw that it is not".into())?;
    c.storage.put("key", "v").await?;
    expect(c.storage.is_connected().await, || "expected a used instance to be connected, saw that it is not".into())
}

/// Disconnecting twice does no harm, nor does it to another instance of the same store.
pub async fn disconnect_is_final(c: Context) -> Outcome {
    let other = c.open_again().await?;
    c.storage.put("key", "v").await?;
    c.storage.disconnect().await?;
    match c.storage.disconnect().await {
        Err(e) if e.kind() != ErrorKind::Closed => return Err(e.into()),
        _ => {}
    }
    expect(!c.storage.is_connected().await, || "expected a disconnected handle to say so, saw it connected".into())?;
    expect_value(&other, "key", Some(b"v")).await?;
    other.put("key", "new").await?;
    let again = c.open_again().await?;
    expect_value(&again, "key", Some(b"new")).await
}

/// Several instances of one store can be opened at once, and see each other's writes.
pub async fn instances_at_once(c: Context) -> Outcome {
    let mut handles = Vec::new();
    for _ in 0..8 {
        handles.push(c.second_handle().await?);
    }
    let writes = handles.iter().cloned().enumerate();
    all(writes.map(|(i, s)| async move { Ok(s.put(format!("k{i}"), format!("{i}")).await?) })).await?;
    for s in &handles {
        expect_eq("the number of keys", keys(s, "").await?.len(), 8)?;
        expect_value(s, "k5", Some(b"5")).await?;
    }
    Ok(())
}

/// Dropping everything, streams and transactions included, leaks no task.
pub async fn drop_leaks_no_task(c: Context) -> Outcome {
    let tasks = Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    for _ in 0..3 {
        let s = c.other_namespace().await?;
        used(&s, &c).await?;
        if s.info().capabilities.transactions {
            let tx = s.begin().await?;
            tx.put("key", "v").await?;
        }
    }
    // What ends by itself may take its time; the clock only bounds the wait.
    let started = Instant::now();
    while tasks.num_alive_tasks() > before && started.elapsed() < Duration::from_secs(3) {
        sleep(Duration::from_millis(5)).await;
    }
    let left = tasks.num_alive_tasks();
    expect(left <= before, || format!("expected no task more than the {before} before, saw {left}"))
}

async fn used(s: &Storage, c: &Context) -> Outcome {
    s.put("large", noise(c.size(2 << 20), 1)).await?;
    let object = expect_some("the object", s.open("large", GetOptions::new()).await?)?;
    let mut body = object.body.into_stream();
    expect_some("the first piece", body.next().await)??;
    let mut listing = s.list("").await?;
    expect_some("the first entry", listing.next().await)??;
    s.delete("large").await?;
    Ok(())
}
