//! What the conformance suite cannot see from outside: where things lie, what others put there, and what is left behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::{num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory, path::Path};
use storage_core::{
    Body, CopyOptions, Error, ErrorKind, GetOptions, ListItem, ListOptions, Metadata, PutOptions, Storage,
};
use storage_object_store::{Config, ObjectStoreBackend, Profile};

type Handle = Storage<ObjectStoreBackend>;

fn small_parts() -> Config {
    Config { part_size: NonZeroUsize::new(1000).unwrap(), conditional_limit: 3000, ..Config::default() }
}

async fn memory(config: Config) -> (Arc<InMemory>, Handle) {
    let store = Arc::new(InMemory::new());
    let backend = ObjectStoreBackend::connect(store.clone(), Profile::memory(), config).await;
    (store, Storage::typed(backend.unwrap()))
}

async fn local(config: Config) -> (tempfile::TempDir, Handle) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    let backend = ObjectStoreBackend::connect(Arc::new(store), Profile::local(), config).await;
    (directory, Storage::typed(backend.unwrap()))
}

async fn objects(store: &InMemory) -> Vec<String> {
    let all = store.list(None).map_ok(|about| about.location.to_string());
    all.try_collect().await.unwrap()
}

async fn keys(storage: &Handle) -> Vec<String> {
    let keys = storage.keys().await.unwrap();
    keys.map_ok(|key| key.to_string()).try_collect().await.unwrap()
}

async fn level(storage: &Handle, prefix: &str) -> Vec<String> {
    let options = ListOptions::new().prefix(prefix).delimited(true);
    let items = storage.list_with(options).await.unwrap();
    let positions = items.map_ok(|item: ListItem| item.position().to_owned());
    positions.try_collect().await.unwrap()
}

/// Files below a directory, for all kinds of things left behind.
fn files(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => 1,
        })
        .sum()
}

fn pieces(n: usize, size: usize) -> Vec<storage_core::Result<Bytes>> {
    (0..n).map(|i| Ok(Bytes::from(vec![i as u8; size]))).collect()
}

#[tokio::test]
async fn keys_lie_under_their_own_names_where_they_can() {
    let (store, storage) = memory(Config::default()).await;
    for key in ["a", "a/b", "a//b", "/a", ".storage"] {
        storage.put(key, "v").await.unwrap();
    }
    let objects = objects(&store).await;
    let own: Vec<_> = objects.iter().filter(|name| !name.starts_with(".storage/keys/")).collect();
    assert_eq!(own, ["a", "a/b"]);
    assert_eq!(objects.len(), 5);
    assert_eq!(keys(&storage).await, [".storage", "/a", "a", "a//b", "a/b"]);
    assert_eq!(level(&storage, "").await, [".storage", "/", "a", "a/"]);
    assert_eq!(level(&storage, "a/").await, ["a//", "a/b"]);
}

#[tokio::test]
async fn foreign_objects_are_shown_or_skipped() {
    let (store, storage) = memory(Config { prefix: "p".into(), ..Config::default() }).await;
    for name in ["p/plain", "p/ends.", "p/d./x", "p/.storage/keys/!", "p/.storage/else", "pq", "q/a", "p"] {
        store.put(&Path::parse(name).unwrap(), name.into()).await.unwrap();
    }
    storage.put("ours", "v").await.unwrap();
    assert_eq!(keys(&storage).await, ["ours", "plain"]);
    assert_eq!(level(&storage, "").await, ["ours", "plain"]);
    let entry = storage.stat("plain").await.unwrap().unwrap();
    assert_eq!((entry.size, entry.metadata.unwrap()), (7, Arc::default()));

    storage.clear().await.unwrap();
    let left = objects(&store).await;
    assert_eq!(left, ["p", "p/.storage/else", "p/.storage/keys/!", "p/d./x", "p/ends.", "pq", "q/a"]);
}

#[tokio::test]
async fn files_without_a_header_are_corrupt_when_read_and_can_be_cleared() {
    let (directory, storage) = local(Config::default()).await;
    storage.put("a", "v").await.unwrap();
    storage.put("b", "v").await.unwrap();
    let annex = directory.path().join(".storage/keys");
    for (key, length) in [("c4", 3000), ("c8", 3)] {
        std::fs::write(annex.join(key), "x".repeat(length)).unwrap();
    }
    std::fs::write(annex.join("README"), "not ours").unwrap();
    assert_eq!(keys(&storage).await, ["a", "b"]);
    let listed: Vec<_> =
        storage.list_with(ListOptions::new().metadata(true)).await.unwrap().try_collect().await.unwrap();
    assert!(listed.iter().all(|item| matches!(item, ListItem::Entry(entry) if entry.damaged.is_some())), "{listed:?}");
    for key in ["a", "b"] {
        let error = storage.get(key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    storage.clear().await.unwrap();
    assert!(!annex.join("c4").exists() && !annex.join("c8").exists(), "clears what it lists");
    assert!(annex.join("README").exists());
}

#[tokio::test]
async fn values_of_many_parts_come_back_in_both_ways() {
    for size in [0, 1, 999, 1000, 1001, 1999, 2000, 5000, 20_500] {
        let value: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let chunks: Vec<Vec<u8>> = value.chunks(7).map(<[u8]>::to_vec).collect();
        let (_store, memory) = memory(small_parts()).await;
        let (_directory, local) = local(small_parts()).await;
        for storage in [memory, local] {
            let written = storage.put("bytes", value.clone()).await.unwrap();
            let streamed = storage
                .put("stream", Body::stream(stream::iter(chunks.clone()).map(|chunk| Ok(chunk.into()))))
                .await
                .unwrap();
            assert_eq!((written.size, streamed.size), (size, size));
            for (key, entry) in [("bytes", written), ("stream", streamed)] {
                // The answer to a write need not have the dates.
                let mut stored = storage.stat(key).await.unwrap().unwrap();
                (stored.modified, stored.created) =
                    (entry.modified.and(stored.modified), entry.created.and(stored.created));
                assert_eq!(stored, entry);
                assert_eq!(storage.get(key).await.unwrap().unwrap(), value);
                let object = storage.open(key, GetOptions::new()).await.unwrap().unwrap();
                assert_eq!(object.body.len(), Some(size));
                assert_eq!(object.body.bytes(u64::MAX).await.unwrap(), value);
                let last = storage.get_with(key, GetOptions::new().range(size / 2..)).await;
                assert_eq!(last.unwrap().unwrap(), value[size as usize / 2..]);
            }
        }
    }
}

#[tokio::test]
async fn an_upload_that_fails_or_is_dropped_leaves_nothing() {
    let (store, memory) = memory(small_parts()).await;
    let (directory, local) = local(small_parts()).await;
    for storage in [memory, local] {
        let fails = pieces(5, 900).into_iter().chain([Err(Error::new(ErrorKind::Other, "broken"))]);
        let error = storage.put("k", Body::stream(stream::iter(fails))).await.unwrap_err();
        assert_eq!(error.message(), "broken");
        let short = Body::with_len(9_999, stream::iter(pieces(5, 900)));
        assert_eq!(storage.put("k", short).await.unwrap_err().kind(), ErrorKind::InvalidInput);

        let endless = stream::iter(pieces(5, 900)).chain(stream::pending());
        let put = storage.put("k", Body::stream(endless));
        let late = tokio::time::timeout(std::time::Duration::from_millis(50), put).await;
        assert!(late.is_err());
        assert!(keys(&storage).await.is_empty() && storage.get("k").await.unwrap().is_none());
    }
    assert!(objects(&store).await.is_empty());
    let clean = async {
        while files(directory.path()) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), clean).await.unwrap();
}

#[tokio::test]
async fn a_conditional_stream_is_collected_up_to_its_limit() {
    use storage_core::Condition::{IfAbsent, IfMatch};
    let (_store, storage) = memory(small_parts()).await;
    let put = async |n, condition| {
        let body = Body::stream(stream::iter(pieces(n, 1000)));
        storage.put_with("k", body, PutOptions::new().condition(condition)).await
    };
    let first = put(3, IfAbsent).await.unwrap();
    assert_eq!(put(1, IfAbsent).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let etag = first.etag.unwrap();
    assert_eq!(put(4, IfMatch(etag.clone())).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(put(2, IfMatch(etag.clone())).await.unwrap().size, 2000);
    assert_eq!(put(2, IfMatch(etag)).await.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    for trick in ["*", "\"1\", \"2\""] {
        let error = put(1, IfMatch(storage_core::Etag::new(trick))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
        let options = GetOptions::new().if_match(storage_core::Etag::new(trick));
        let error = storage.get_with("k", options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
        let options = GetOptions::new().if_none_match(storage_core::Etag::new(trick));
        assert!(storage.get_with("k", options).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_the_store_cannot_do_is_not_declared() {
    let (_store, memory) = memory(Config::default()).await;
    let (_directory, local) = local(Config::default()).await;
    let (memory, local) = (memory.info(), local.info());
    assert!(memory.capabilities.conditional && memory.capabilities.version_etags);
    assert!(!local.capabilities.conditional && local.capabilities.version_etags);
    assert_eq!((memory.limits.key, local.limits.key), (1024, 1024));
    assert!(memory.limits.metadata >= Metadata::MIN_LIMIT && local.limits.metadata >= Metadata::MIN_LIMIT);
}

#[tokio::test]
async fn a_store_that_takes_few_writes_is_not_made_to_race() {
    let mut writes = Vec::new();
    for tries_conditions in [false, true] {
        let mut profile = Profile::memory();
        profile.tries_conditions = tries_conditions;
        let backend = ObjectStoreBackend::connect(Arc::new(InMemory::new()), profile, Config::default()).await;
        let storage = Storage::typed(backend.unwrap());
        assert!(storage.info().capabilities.conditional);
        // The etags of `InMemory` count writes.
        let etag = storage.put("k", "v").await.unwrap().etag.unwrap();
        writes.push(etag.as_str().trim_matches('"').parse::<u32>().unwrap());
    }
    // One to see whether attributes are kept, one for a name below that one.
    assert!(writes[0] == 2 && writes[1] > 5, "{writes:?}");
}

#[tokio::test]
async fn a_profile_that_the_store_contradicts_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let mut profile = Profile::local();
    profile.naming = storage_object_store::Naming::Flat;
    let error = ObjectStoreBackend::connect(store, profile, Config::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(files(directory.path()), 0, "probes are deleted");

    let config = Config { prefix: "x".repeat(600), ..Config::default() };
    let connected = ObjectStoreBackend::connect(Arc::new(InMemory::new()), Profile::new("s3"), config);
    assert_eq!(connected.await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_copy_shares_nothing_and_a_framed_one_has_its_own_etag() {
    let (_store, memory) = memory(Config::default()).await;
    let (_directory, local) = local(Config::default()).await;
    for storage in [memory, local] {
        let metadata = PutOptions::new().metadata(Metadata::new().tag("t"));
        let source = storage.put_with("a", "one", metadata).await.unwrap();
        let copy = storage.copy("a", "b").await.unwrap();
        assert_ne!(copy.etag, source.etag);
        assert_eq!((copy.size, &copy.metadata), (3, &source.metadata));
        storage.put("b", "two!").await.unwrap();
        assert_eq!(storage.get("a").await.unwrap().unwrap(), "one");
        let options = CopyOptions::new().metadata(Metadata::new().tag("u"));
        let same = storage.copy_with("a", "a", options).await.unwrap();
        assert!(same.metadata.unwrap().tags.contains("u"));
    }
}

#[tokio::test]
async fn disconnecting_closes_every_clone() {
    let backend =
        ObjectStoreBackend::connect(Arc::new(InMemory::new()), Profile::memory(), Config::default()).await.unwrap();
    let (one, other) = (Storage::new(backend.clone()), Storage::new(backend));
    assert!(other.is_connected().await);
    one.disconnect().await.unwrap();
    assert!(!other.is_connected().await);
    assert_eq!(other.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
}
