//! Steps that many checks share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use futures_util::{Stream, TryStreamExt, stream};
use storage_core::{
    BatchOptions, Bytes, Entry, EntryStream, Key, ListItem, ListOptions, Metadata, PutOptions, Result, Storage,
};
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};

use crate::{
    Failure, Outcome,
    assert::{expect_bytes, expect_some},
};

/// Fails unless the key has this value, or with `None` has none.
pub(crate) async fn expect_value(s: &Storage, key: &str, expected: Option<&[u8]>) -> Outcome {
    let seen = s.get(key).await?;
    match (seen, expected) {
        (None, None) => Ok(()),
        (Some(seen), Some(expected)) => expect_bytes(&format!("the value of {key:?}"), &seen, expected),
        (Some(seen), None) => Err(format!("expected no value of {key:?}, saw {} bytes", seen.len()).into()),
        (None, Some(expected)) => {
            Err(format!("expected a value of {} bytes of {key:?}, saw none", expected.len()).into())
        }
    }
}

/// The entry of a key that must exist.
pub(crate) async fn entry(s: &Storage, key: &str) -> Outcome<Entry> {
    expect_some(&format!("the entry of {key:?}"), s.stat(key).await?)
}

/// The positions that a listing yields.
pub(crate) async fn positions(s: &Storage, options: ListOptions) -> Outcome<Vec<String>> {
    let items: Vec<ListItem> = s.list_with(options).await?.try_collect().await?;
    Ok(items.iter().map(|item| item.position().to_owned()).collect())
}

/// The keys with a prefix, as listed.
pub(crate) async fn keys(s: &Storage, prefix: &str) -> Outcome<Vec<String>> {
    positions(s, ListOptions::new().prefix(prefix)).await
}

/// The entries that a listing yields, with metadata.
pub(crate) async fn entries(s: &Storage, prefix: &str) -> Outcome<Vec<Entry>> {
    let options = ListOptions::new().prefix(prefix).metadata(true);
    let items: Vec<ListItem> = s.list_with(options).await?.try_collect().await?;
    Ok(items.into_iter().filter_map(ListItem::into_entry).collect())
}

/// The keys of a stream of entries.
pub(crate) async fn keys_of(entries: EntryStream) -> Outcome<Vec<String>> {
    let entries: Vec<Entry> = entries.try_collect().await?;
    Ok(entries.iter().map(|entry| entry.key.to_string()).collect())
}

/// Writes each key with itself as the value, in one batch.
pub(crate) async fn put_all<K: AsRef<str>>(s: &Storage, keys: impl IntoIterator<Item = K>) -> Outcome {
    let items = keys.into_iter().map(|key| {
        let key = key.as_ref().to_owned();
        (key.clone(), key, PutOptions::new())
    });
    let items: Vec<_> = items.collect();
    for result in s.put_batch_with(items, BatchOptions::new()).await? {
        result?;
    }
    Ok(())
}

/// The strings in bytewise order.
pub(crate) fn sorted<S: AsRef<str>>(keys: impl IntoIterator<Item = S>) -> Vec<String> {
    let mut sorted: Vec<String> = keys.into_iter().map(|key| key.as_ref().to_owned()).collect();
    sorted.sort();
    sorted
}

/// A key that is one for sure.
pub(crate) fn key(text: &str) -> Outcome<Key> {
    Ok(Key::parse(text)?)
}

/// Put options with this metadata.
pub(crate) fn with(metadata: Metadata) -> PutOptions {
    PutOptions::new().metadata(Arc::new(metadata))
}

/// Put options with this metadata, or without any on a store that keeps none.
pub(crate) fn with_on(s: &Storage, metadata: Metadata) -> PutOptions {
    if keeps_metadata(s) { with(metadata) } else { PutOptions::new() }
}

/// Whether the store keeps metadata at all; one that does not refuses it.
pub(crate) fn keeps_metadata(s: &Storage) -> bool {
    s.info().limits.metadata > 0
}

/// The keys among these that the store does not refuse by their shape.
pub(crate) fn usable<K: AsRef<str>>(s: &Storage, keys: impl IntoIterator<Item = K>) -> Vec<K> {
    let refused = |key: &str| s.info().refused_keys.iter().any(|shape| shape.matches(key));
    keys.into_iter().filter(|key| !refused(key.as_ref())).collect()
}

/// Bytes without a pattern that a block size could hit, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Bytes {
    // A prime number of random bytes, over and over: much faster than random bytes throughout.
    let mut block = vec![0; len.min(4099)];
    fastrand::Rng::with_seed(seed).fill(&mut block);
    let mut bytes = Vec::with_capacity(len + block.len());
    while bytes.len() < len {
        bytes.extend_from_slice(&block);
    }
    bytes.truncate(len);
    bytes.into()
}

/// The bytes in pieces of this size. The producer waits once before every piece, as one behind a network does.
pub(crate) fn pieces(bytes: Bytes, size: usize) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::unfold(bytes, move |mut rest| async move {
        tokio::task::yield_now().await;
        let piece = rest.split_to(size.min(rest.len()));
        (!piece.is_empty()).then_some((Ok(piece), rest))
    })
}

/// What the mutex guards, also when a thread has panicked meanwhile.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the futures on the runtime's threads and waits for all; the first failure wins.
pub(crate) async fn all<T: Send + 'static, F>(tasks: impl IntoIterator<Item = F>) -> Outcome<Vec<T>>
where
    F: Future<Output = Outcome<T>> + Send + 'static,
{
    let running: Vec<JoinHandle<Outcome<T>>> = tasks.into_iter().map(tokio::spawn).collect();
    let mut done = Vec::with_capacity(running.len());
    for task in running {
        done.push(joined(task).await);
    }
    done.into_iter().collect()
}

/// What a task came to, a panic included.
pub(crate) async fn joined<T>(task: JoinHandle<Outcome<T>>) -> Outcome<T> {
    task.await.unwrap_or_else(|e| Err(Failure::Failed(format!("a task of the check ended early: {e}"))))
}

/// Runs the future once on each of `n` operating system threads, which all start at the same moment.
pub(crate) async fn race<T, F>(n: usize, run: impl Fn(usize) -> F + Send + Sync + 'static) -> Outcome<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Outcome<T>> + Send,
{
    let (start, run, runtime) = (Arc::new(std::sync::Barrier::new(n)), Arc::new(run), Handle::current());
    let mut results = Vec::new();
    for i in 0..n {
        let (send, receive) = oneshot::channel();
        let (start, run, runtime) = (start.clone(), run.clone(), runtime.clone());
        thread::spawn(move || {
            start.wait();
            // Nobody waits any more when the check has failed already.
            let _ = send.send(runtime.block_on(run(i)));
        });
        results.push(receive);
    }
    let mut done = Vec::with_capacity(n);
    for result in results {
        let result = result.await;
        done.push(result.map_err(|_| Failure::from("a thread of the check panicked"))?);
    }
    done.into_iter().collect()
}

/// One thread writes, again and again, while those of the other handles look; each has looked often before it ends.
pub(crate) async fn looked_at_while<W, L>(
    handles: Vec<Storage>,
    write: impl Fn(Storage, usize) -> W + Send + Sync + 'static,
    look: impl Fn(Storage) -> L + Send + Sync + 'static,
) -> Outcome
where
    W: Future<Output = Outcome> + Send,
    L: Future<Output = Outcome> + Send,
{
    const WRITES: usize = 30;
    const LOOKS: usize = 60;
    let (over, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (write, look) = (Arc::new(write), Arc::new(look));
    let run = move |i: usize| {
        let (s, over, looks) = (handles[i].clone(), over.clone(), looks.clone());
        let (write, look) = (write.clone(), look.clone());
        async move {
            let (mut outcome, mut n) = (Ok(()), 0);
            while outcome.is_ok() && !over.load(Ordering::SeqCst) {
                if i == 0 {
                    outcome = write(s.clone(), n).await;
                    n += 1;
                    if n >= WRITES && looks.load(Ordering::SeqCst) >= LOOKS {
                        break;
                    }
                } else {
                    outcome = look(s.clone()).await;
                    looks.fetch_add(1, Ordering::SeqCst);
                }
            }
            // Whoever ends ends it for all, or the others would go on for ever.
            over.store(true, Ordering::SeqCst);
            outcome
        }
    };
    race(4, run).await.map(drop)
}
