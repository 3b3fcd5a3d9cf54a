//! Never stale: after failed, ambiguous and cancelled writes, and when everything happens at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt, TryStreamExt, future::join_all, stream};
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    Body, Bytes, ErrorKind, GetOptions, ListOptions, Metadata, PutOptions, Result, Storage, StorageBackend,
};
use storage_layer_cache::{Cache, CacheLayer};
use storage_memory::Memory;

fn over<B: StorageBackend>(backend: B) -> Storage<Cache<B>> {
    Storage::typed(backend).layer(CacheLayer::new())
}

async fn filled() -> (Memory, Storage) {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    below.put("a", "old").await.unwrap();
    below.put("b", "other").await.unwrap();
    (memory, below)
}

async fn agree<B: StorageBackend>(storage: &Storage<Cache<B>>, below: &Storage, what: &str) {
    for key in ["a", "b"] {
        // The first read may load, the second is from memory if anything is.
        for _ in 0..2 {
            assert_eq!(storage.get(key).await.unwrap(), below.get(key).await.unwrap(), "{what}: the value of {key}");
            assert_eq!(storage.stat(key).await.unwrap(), below.stat(key).await.unwrap(), "{what}: the entry of {key}");
        }
    }
}

#[tokio::test]
async fn a_failed_write_leaves_nothing_stale_whenever_it_fails() {
    for after in [false, true] {
        for method in METHODS {
            let (memory, below) = filled().await;
            let faults = Faults::new(memory, 1).only([
                "put",
                "delete",
                "put_batch",
                "delete_batch",
                "clear",
                "copy",
                "rename",
                "versions",
            ]);
            let storage = over(if after { faults.after(1.0) } else { faults.before(1.0) });
            agree(&storage, &below, method).await;
            let backend = storage.backend().clone();
            let result = call(&*backend, method).await;
            if *method == "disconnect" {
                continue;
            }
            assert_eq!(result.is_err(), storage.backend().get_ref().planted() > 0, "{method}");
            agree(&storage, &below, method).await;
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_leaves_nothing_stale() {
    for after in [false, true] {
        let (memory, below) = filled().await;
        let faults = Faults::new(memory, 1).only(["commit"]);
        let storage = over(if after { faults.after(1.0) } else { faults.before(1.0) });
        agree(&storage, &below, "before").await;
        let tx = storage.begin().await.unwrap();
        tx.put("a", "new").await.unwrap();
        tx.delete("b").await.unwrap();
        assert_eq!(storage.get("a").await.unwrap(), Some("old".into()), "nothing is seen before the commit");
        assert!(tx.commit().await.is_err());
        assert_eq!(below.get("a").await.unwrap().unwrap(), if after { "new" } else { "old" });
        agree(&storage, &below, "after").await;
    }
}

#[tokio::test]
async fn a_transaction_sees_its_own_and_invalidates_what_it_touched() {
    let (memory, below) = filled().await;
    let recorder = Recorder::new(memory);
    let log = recorder.log();
    let storage = over(recorder);
    agree(&storage, &below, "before").await;
    let tx = storage.begin().await.unwrap();
    tx.put("a", "new").await.unwrap();
    assert_eq!(tx.get("a").await.unwrap(), Some("new".into()));
    tx.rollback().await.unwrap();
    let _ = log.take();
    agree(&storage, &below, "rolled back").await;
    assert_eq!(log.take(), [""; 0], "what was not changed is still kept");
    let tx = storage.begin().await.unwrap();
    tx.put("a", "new").await.unwrap();
    tx.commit().await.unwrap();
    let _ = log.take();
    agree(&storage, &below, "committed").await;
    assert_eq!(log.take(), ["get"], "only what it touched is loaded again");
    let tx = storage.begin().await.unwrap();
    tx.clear().await.unwrap();
    tx.commit().await.unwrap();
    agree(&storage, &below, "cleared").await;
}

/// A write that was cancelled or whose answer was lost can still happen; here it does so half a minute later.
#[tokio::test(start_paused = true)]
async fn a_write_that_happens_after_its_end_is_seen() {
    for cancelled in [true, false] {
        let (memory, below) = filled().await;
        let faults = Faults::new(memory, 1);
        let faults = if cancelled { faults.stall(1.0) } else { faults.after(1.0) };
        let storage = over(faults.only(["put", "delete_batch", "clear"]));
        agree(&storage, &below, "before").await;
        let _ = storage.put("a", "lost").now_or_never();
        agree(&storage, &below, "at once").await;
        tokio::time::advance(Duration::from_secs(30)).await;
        agree(&storage, &below, "later").await;
        below.put("a", "lost").await.unwrap();
        agree(&storage, &below, "when it has happened").await;
        // `b` was not concerned, so it stays in memory all the while.
        below.put("b", "from elsewhere").await.unwrap();
        assert_eq!(storage.get("b").await.unwrap(), Some("other".into()));
        // A minute after its end it does not happen any more, and values are kept again.
        tokio::time::advance(Duration::from_secs(31)).await;
        storage.get("a").await.unwrap();
        below.put("a", "from elsewhere").await.unwrap();
        assert_eq!(storage.get("a").await.unwrap(), Some("lost".into()));

        let _ = storage.delete_batch(["a", "b"]).now_or_never();
        agree(&storage, &below, "after a batch").await;
        below.put("a", "late").await.unwrap();
        below.delete("b").await.unwrap();
        agree(&storage, &below, "when the batch has happened").await;
        let _ = storage.clear_prefix("c").now_or_never();
        agree(&storage, &below, "after a clear").await;
        tokio::time::advance(Duration::from_secs(59)).await;
        below.put("b", "late").await.unwrap();
        agree(&storage, &below, "when the clear has happened").await;
    }
}

/// More doubtful keys than are remembered one by one.
#[tokio::test(start_paused = true)]
async fn many_lost_writes_leave_nothing_stale() {
    let (memory, below) = filled().await;
    let storage = over(Faults::new(memory, 1).after(1.0).only(["put", "put_batch"]));
    assert!(storage.put("a", "lost").await.is_err());
    let many = (0..5000).map(|n| (format!("many/{n}"), "x"));
    assert!(storage.put_batch(many).await.is_err());
    agree(&storage, &below, "after many").await;
    below.put("a", "late").await.unwrap();
    agree(&storage, &below, "when it has happened").await;
    tokio::time::advance(Duration::from_secs(61)).await;
    storage.get("a").await.unwrap();
    below.put("a", "from elsewhere").await.unwrap();
    assert_eq!(storage.get("a").await.unwrap(), Some("late".into()), "it is kept again");
}

/// Polls so many times, and then drops the future.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..=times {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
    }
    None
}

#[tokio::test]
async fn writers_and_readers_dropped_at_every_point_leave_nothing_stale() {
    let (mut dropped, mut done) = (0, 0);
    for method in METHODS.iter().filter(|method| !["disconnect", "health"].contains(method)) {
        for polls in 0..12 {
            let (memory, below) = filled().await;
            let storage = over(Faults::new(memory, polls as u64).latency(8));
            agree(&storage, &below, method).await;
            let backend = storage.backend().clone();
            match polled(call(&*backend, method), polls).await {
                Some(result) => done += usize::from(result.is_ok()),
                None => dropped += 1,
            }
            let _ = polled(storage.get("a"), polls).await;
            agree(&storage, &below, method).await;
            let _ = polled(storage.get("b"), polls).await;
            storage.put("b", "new").await.unwrap();
            agree(&storage, &below, method).await;
        }
    }
    assert!(dropped > 30 && done > 30, "{dropped} dropped, {done} done");
}

/// What is known of one key, whose only writer writes 1, 2, 3, …
#[derive(Default)]
struct Known {
    begun: AtomicUsize,
    acknowledged: AtomicUsize,
    seen: AtomicUsize,
}

impl Known {
    /// The least that a read which begins now may see.
    fn floor(&self) -> usize {
        self.acknowledged.load(SeqCst).max(self.seen.load(SeqCst))
    }

    /// A read has ended; `None` is a key without a value, as after every fifth write.
    fn check(&self, floor: usize, read: Option<usize>, what: &str, seed: u64) {
        let begun = self.begun.load(SeqCst);
        let context = format!("by {what}, of at least {floor} and at most {begun} (seed {seed})");
        match read {
            Some(n) => {
                assert!((floor..=begun).contains(&n) && !deletes(n), "read {n} {context}");
                self.seen.fetch_max(n, SeqCst);
            }
            None => assert!((floor..=begun).any(deletes), "read nothing {context}"),
        }
    }
}

fn deletes(n: usize) -> bool {
    n.is_multiple_of(5)
}

const WAYS: u8 = 9;

async fn write<B: StorageBackend>(storage: &Storage<B>, key: &str, n: usize, way: u8) -> Result<()> {
    let staged = format!("{key}-staged-{n}");
    let options = || PutOptions::new().metadata(Metadata::new().field("n", n as i64));
    let value = || Bytes::from(n.to_string());
    match (deletes(n), way) {
        (true, 0..3) => storage.delete(key).await,
        (true, 3..6) => storage.delete_batch([key]).await,
        (true, 6) => storage.transaction(|tx| async move { tx.delete(key).await }).await,
        (true, 7) => storage.rename(key, &staged).await.map(drop),
        (true, _) => storage.clear_prefix(key).await,
        (false, 0..3) => storage.put_with(key, value(), options()).await.map(drop),
        (false, 3) => {
            let pieces = stream::iter([Ok(value()), Ok(Bytes::new())]);
            storage.put_with(key, Body::stream(pieces), options()).await.map(drop)
        }
        (false, 4) => {
            let items = [(key.to_owned(), value(), options()), (staged, value(), options())];
            for result in storage.put_batch_with(items, Default::default()).await? {
                result?;
            }
            Ok(())
        }
        (false, 5) => {
            storage.put_with(&staged, value(), options()).await?;
            storage.copy(&staged, key).await.map(drop)
        }
        (false, 6) => {
            storage.put_with(&staged, value(), options()).await?;
            storage.rename(&staged, key).await.map(drop)
        }
        _ => {
            let (value, options) = (value(), options());
            let put = move |tx: storage_core::Tx| {
                let (value, options) = (value.clone(), options.clone());
                async move { tx.put_with(key, value, options).await.map(drop) }
            };
            storage.transaction(put).await
        }
    }
}

async fn read<B: StorageBackend>(storage: &Storage<B>, key: &str, way: u8) -> Result<Option<usize>> {
    let number = |bytes: Bytes| std::str::from_utf8(&bytes).unwrap().parse().unwrap();
    let noted = |metadata: Option<Arc<Metadata>>| {
        let metadata = serde_json::to_value(&*metadata.unwrap()).unwrap();
        metadata["fields"]["n"].as_u64().unwrap() as usize
    };
    Ok(match way {
        0 => storage.get_with(key, GetOptions::new().range(0..)).await?.map(number),
        1 => storage.get_batch([key]).await?.remove(key).map(number),
        2 => storage.stat(key).await?.map(|entry| noted(entry.metadata)),
        3 => {
            let options = ListOptions::new().prefix(key).metadata(true).limit(1);
            let items: Vec<_> = storage.list_with(options).await?.try_collect().await?;
            let entry = items.into_iter().next().and_then(storage_core::ListItem::into_entry);
            entry.filter(|entry| entry.key.as_str() == key).map(|entry| noted(entry.metadata))
        }
        4 => {
            let Some(entry) = storage.stat(key).await? else {
                return Ok(None);
            };
            let n = noted(entry.metadata);
            let options = GetOptions::new().if_none_match(entry.etag.unwrap());
            match storage.get_with(key, options).await {
                Err(e) if e.kind() == ErrorKind::NotModified => Some(n),
                read => read?.map(number),
            }
        }
        _ => match storage.open(key, GetOptions::new()).await? {
            Some(object) => {
                let whole = noted(object.entry.metadata);
                let n = number(object.body.bytes(u64::MAX).await?);
                assert_eq!(n, whole, "the value and its metadata");
                Some(n)
            }
            None => None,
        },
    })
}

/// A round: two keys with a writer each, four readers, failures below, calls that are dropped.
async fn round(settings: CacheLayer, seed: u64) -> (u64, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // A doubtful write keeps its key out of the cache, so that half of the rounds go without.
    let rough = rng.bool();
    let faults = Faults::new(Memory::new(), seed).latency(4).before(0.05).reset(0.05);
    let storage = Storage::typed(if rough { faults.after(0.02) } else { faults }).layer(settings);
    let known: Arc<[Known; 2]> = Arc::default();
    let mut tasks = Vec::new();
    for (i, mut rng) in (0..2).map(|i| (i, rng.fork())).collect::<Vec<_>>() {
        let (storage, known) = (storage.clone(), known.clone());
        tasks.push(tokio::spawn(async move {
            let mut mistakes = 0;
            for n in 1..40 {
                known[i].begun.store(n, SeqCst);
                let way = rng.u8(..WAYS);
                let key = format!("key{i}");
                let polls = if rough && rng.u8(..10) == 0 { rng.usize(..6) } else { usize::MAX - 1 };
                match polled_or_done(write(&storage, &key, n, way), polls).await {
                    Some(Ok(())) => drop(known[i].acknowledged.fetch_max(n, SeqCst)),
                    _ => mistakes += 1,
                }
                for _ in 0..rng.usize(..8) {
                    tokio::task::yield_now().await;
                }
            }
            mistakes
        }));
    }
    for mut rng in (0..4).map(|_| rng.fork()).collect::<Vec<_>>() {
        let (storage, known) = (storage.clone(), known.clone());
        tasks.push(tokio::spawn(async move {
            let mut mistakes = 0;
            for _ in 0..150 {
                let (i, way) = (rng.usize(..2), rng.u8(..10));
                let floor = known[i].floor();
                let key = format!("key{i}");
                let polls = if rng.u8(..10) == 0 { rng.usize(..6) } else { usize::MAX - 1 };
                match polled_or_done(read(&storage, &key, way), polls).await {
                    Some(Ok(read)) => known[i].check(floor, read, &format!("way {way}"), seed),
                    _ => mistakes += 1,
                }
            }
            mistakes
        }));
    }
    let mistakes = join_all(tasks).await.into_iter().map(|task| task.unwrap()).sum();
    (storage.backend().stats().hits, mistakes)
}

/// As `polled`, but a future that may take as long as it likes is awaited as usual.
async fn polled_or_done<F: Future>(future: F, times: usize) -> Option<F::Output> {
    if times > 1000 { Some(future.await) } else { polled(future, times).await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn random_histories_are_never_stale() {
    let first =
        std::env::var("STORAGE_CONFORMANCE_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |s| s.parse().unwrap());
    println!("STORAGE_CONFORMANCE_SEED={first}");
    let small = CacheLayer::new().max_bytes(1500).unwrap();
    for settings in [CacheLayer::new(), small, CacheLayer::new().validate(true)] {
        let (mut hits, mut mistakes) = (0, 0);
        for seed in first..first + 60 {
            let (more_hits, more_mistakes) = round(settings.clone(), seed).await;
            hits += more_hits;
            mistakes += more_mistakes;
        }
        println!("{hits} hits, {mistakes} failed or dropped calls of {}", 60 * (4 * 150 + 2 * 39));
        assert!(hits > 1000 && mistakes > 1000, "{hits} hits, {mistakes} mistakes");
    }
}
