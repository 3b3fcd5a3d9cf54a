//! A value read in several ranges at once: so many at once and no more, in order, of one version.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::StreamExt;
use storage_core::{
    BackendInfo, Body, Bytes, DeleteOptions, Entry, ErrorKind, Etag, GetOptions, Key, ListOptions, ListStream, Object,
    PutOptions, Result, StatOptions, Storage, StorageBackend, async_trait,
};
use storage_memory::Memory;

/// Counts reads: all, those under way, and the most that were.
#[derive(Debug, Default)]
struct Counts {
    reads: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

/// Memory whose reads take a few turns, perhaps without etags.
#[derive(Debug)]
struct Slow {
    inner: Memory,
    counts: Arc<Counts>,
    etags: bool,
}

#[async_trait]
impl StorageBackend for Slow {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }
    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.counts.reads.fetch_add(1, SeqCst);
        self.counts.most.fetch_max(self.counts.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
        assert!(options.parallel_reads.is_none(), "the handle's own affair");
        // Later ones are faster, so that the order is not that of the answers.
        for _ in 0..20_usize.saturating_sub(self.counts.reads.load(SeqCst)) {
            tokio::task::yield_now().await;
        }
        let found = self.inner.get(key, options).await;
        self.counts.under_way.fetch_sub(1, SeqCst);
        let mut found = found?;
        if let Some(object) = found.as_mut().filter(|_| !self.etags) {
            object.entry.etag = None;
        }
        Ok(found)
    }
    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.inner.put(key, body, options).await
    }
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.inner.delete(key, options).await
    }
    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.inner.stat(key, options).await
    }
    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.inner.list(options).await
    }
}

fn slow(etags: bool) -> (Storage, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    (Storage::new(Slow { inner: Memory::new(), counts: counts.clone(), etags }), counts)
}

fn value(len: usize) -> Bytes {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn every_range_of_every_size_is_what_one_read_gives() {
    let (storage, _) = slow(true);
    for len in [0_usize, 1, 9, 10, 11, 20, 95] {
        let value = value(len);
        storage.put("k", value.clone()).await.unwrap();
        let n = len as u64;
        let all = || GetOptions::new().parallel(3, 10);
        assert_eq!(storage.get_with("k", all()).await.unwrap().unwrap(), value);
        for range in [0..n, n / 3..n, 0..n / 2, n..n, n / 3..n + 50] {
            let seen = storage.get_with("k", all().range(range.clone())).await.unwrap().unwrap();
            assert_eq!(seen, value[range.start as usize..range.end.min(n) as usize], "{range:?} of {len}");
        }
        for last in [0, 1, 10, 11, n, n + 1] {
            let (seen, entry) =
                storage.get_with_entry("k", all().range(storage_core::ByteRange::Suffix(last))).await.unwrap().unwrap();
            assert_eq!(seen, value[n.saturating_sub(last) as usize..], "the last {last} of {len}");
            assert_eq!(entry.size, n);
        }
        let seen = storage.get_with("k", all().range(n / 2..)).await.unwrap().unwrap();
        assert_eq!(seen, value[len / 2..]);
        let beyond = storage.get_with("k", all().range(n + 1..)).await.unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::RangeNotSatisfiable);
    }
    assert!(storage.get_with("absent", GetOptions::new().parallel(3, 10)).await.unwrap().is_none());
}

#[tokio::test]
async fn so_many_are_read_at_once_and_no_more_are_held() {
    let (storage, counts) = slow(true);
    let value = value(100);
    storage.put("k", value.clone()).await.unwrap();
    let object = storage.open("k", GetOptions::new().parallel(4, 10)).await.unwrap().unwrap();
    assert_eq!(counts.reads.load(SeqCst), 1, "nothing is read before it is wanted, but for the first");
    let mut stream = object.body.into_stream();
    let (mut seen, mut taken) = (Vec::new(), 0);
    while let Some(piece) = stream.next().await {
        taken += 1;
        seen.extend_from_slice(&piece.unwrap());
        // What was read and not yet taken: at most what is under way or waits, and the piece in hand.
        assert!(counts.reads.load(SeqCst) - (taken - 1) <= 5, "{taken}");
    }
    assert_eq!(seen, value);
    // The first of the ten came with the entry.
    assert_eq!((counts.reads.load(SeqCst), counts.most.load(SeqCst)), (10, 4));
    storage.get_with("k", GetOptions::new().parallel(4, 100)).await.unwrap();
    assert_eq!(counts.reads.load(SeqCst), 11, "a value of one chunk is one read");
}

#[tokio::test]
async fn a_value_that_changes_meanwhile_is_a_conflict() {
    let (storage, counts) = slow(true);
    for changed in [Some("short".into()), Some(value(101)), Some(value(100)), None] {
        storage.put("k", value(100)).await.unwrap();
        let object = storage.open("k", GetOptions::new().parallel(2, 10)).await.unwrap().unwrap();
        match changed {
            Some(changed) => drop(storage.put("k", changed).await.unwrap()),
            None => storage.delete("k").await.unwrap(),
        }
        let error = object.body.bytes(u64::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!((error.operation(), error.key().map(Key::as_str)), (Some("get"), Some("k")));
    }
    // A condition of the caller's own is looked at first.
    storage.put("k", value(100)).await.unwrap();
    let stale = GetOptions::new().parallel(2, 10).if_match(Etag::new("stale"));
    assert_eq!(storage.get_with("k", stale).await.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    let entry = storage.stat("k").await.unwrap().unwrap();
    let known = GetOptions::new().parallel(2, 10).if_none_match(entry.etag.unwrap());
    assert_eq!(storage.get_with("k", known).await.unwrap_err().kind(), ErrorKind::NotModified);
    let other = GetOptions::new().parallel(2, 10).if_none_match(Etag::new("other"));
    assert_eq!(storage.get_with("k", other).await.unwrap().unwrap(), value(100));
    let reads = counts.reads.load(SeqCst);
    for none in [GetOptions::new().parallel(0, 10), GetOptions::new().parallel(2, 0)] {
        assert_eq!(storage.get_with("k", none).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(counts.reads.load(SeqCst), reads);
}

#[tokio::test]
async fn without_an_etag_it_is_one_read() {
    let (storage, counts) = slow(false);
    storage.put("k", value(100)).await.unwrap();
    assert_eq!(storage.get_with("k", GetOptions::new().parallel(4, 10)).await.unwrap().unwrap(), value(100));
    // One of ten bytes, which showed that there is none, and one of all.
    assert_eq!((counts.reads.load(SeqCst), counts.most.load(SeqCst)), (2, 1));
}
