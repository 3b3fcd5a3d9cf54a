//! A store that can do less than those of `object_store`: no attributes, no conditions, no suffix ranges, listings in any order,
//! no files to read from, and one object that nobody may delete. It takes the ways through the code that the others do not.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path,
};
use storage_core::{ErrorKind, ListOptions, Metadata, Storage};
use storage_object_store::{Config, Naming, ObjectStoreBackend, Profile};

/// The store, and what it was asked to delete.
#[derive(Debug, Default)]
struct Plain(InMemory, Arc<Mutex<Vec<String>>>);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain")
    }
}

fn not_implemented<T>(what: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: what.into(), implementer: "Plain".into() })
}

#[async_trait]
impl ObjectStore for Plain {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if !options.attributes.is_empty() || options.mode != PutMode::Overwrite {
            return not_implemented("attributes and conditions");
        }
        self.0.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return not_implemented("attributes");
        }
        self.0.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Suffix(_)) = options.range {
            return not_implemented("suffix ranges");
        }
        self.0.get_opts(at, options).await
    }

    fn delete_stream(&self, places: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let asked = self.1.clone();
        let done = self.0.delete_stream(places).map_ok(move |place| {
            asked.lock().unwrap().push(place.to_string());
            match place.as_ref() {
                "stuck" => Err(Error::PermissionDenied { path: "stuck".into(), source: "refused".into() }),
                _ => Ok(place),
            }
        });
        done.map(|each| each?).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listing = self.0.list(prefix);
        let backwards = async move {
            let mut all: Vec<_> = listing.try_collect().await?;
            all.reverse();
            Ok::<_, Error>(stream::iter(all.into_iter().map(Ok)))
        };
        stream::once(backwards).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut level = self.0.list_with_delimiter(prefix).await?;
        level.objects.reverse();
        Ok(level)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

async fn plain() -> (Arc<Plain>, Storage<ObjectStoreBackend>) {
    let store = Arc::new(Plain::default());
    let mut profile = Profile::new("plain");
    profile.naming = Naming::Flat;
    let backend = ObjectStoreBackend::connect(store.clone(), profile, Config::default()).await;
    (store, Storage::typed(backend.unwrap()))
}

#[tokio::test]
async fn ranges_are_shifted_behind_the_header() {
    let (store, storage) = plain().await;
    assert!(!storage.info().capabilities.conditional && storage.info().capabilities.version_etags);
    let options = storage_core::PutOptions::new().metadata(Metadata::new().tag("t"));
    let entry = storage.put_with("k", "0123456789", options).await.unwrap();
    assert!(store.0.head(&"k".into()).await.unwrap().size > entry.size);
    let stored = storage.stat("k").await.unwrap().unwrap();
    assert_eq!((&stored.etag, stored.size), (&entry.etag, entry.size));
    for (range, expected) in [
        (storage_core::ByteRange::Bounded(2, 5), "234"),
        (storage_core::ByteRange::Bounded(8, 50), "89"),
        (storage_core::ByteRange::From(10), ""),
        (storage_core::ByteRange::Suffix(3), "789"),
        (storage_core::ByteRange::Suffix(30), "0123456789"),
        (storage_core::ByteRange::Suffix(0), ""),
    ] {
        let mut options = storage_core::GetOptions::new();
        options.range = Some(range);
        let object = storage.open("k", options).await.unwrap().unwrap();
        assert_eq!(object.entry, stored);
        assert_eq!(object.body.bytes(100).await.unwrap(), expected, "{range:?}");
    }
    let beyond = storage.get_with("k", storage_core::GetOptions::new().range(11..)).await;
    assert_eq!(beyond.unwrap_err().kind(), ErrorKind::RangeNotSatisfiable);
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "0123456789");
    let stale = storage_core::GetOptions::new().if_match(storage_core::Etag::new("*"));
    let stale = storage.get_with("k", stale).await;
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn listings_of_an_unsorted_store_are_sorted() {
    let (_, storage) = plain().await;
    let keys = ["a", "a-b", "a/b", "a//b", "a0", "b/", "c"];
    for key in keys {
        storage.put(key, key).await.unwrap();
    }
    let mut sorted = keys;
    sorted.sort_unstable();
    let options = ListOptions::new().metadata(true);
    let items: Vec<_> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
    for (item, key) in items.into_iter().zip(sorted) {
        let entry = item.into_entry().unwrap();
        assert_eq!((entry.key.as_str(), entry.size), (key, key.len() as u64));
        assert_eq!(Some(entry), storage.stat(key).await.unwrap());
    }
    let options = ListOptions::new().delimited(true).start_after("a");
    let items = storage.list_with(options).await.unwrap();
    let level: Vec<_> = items.map_ok(|item| item.position().to_owned()).try_collect().await.unwrap();
    assert_eq!(level, ["a-b", "a/", "a0", "b/", "c"]);
}

#[tokio::test]
async fn a_store_that_is_wrongly_said_to_be_sorted_is_found_out() {
    let mut profile = Profile::memory();
    profile.sorted = true;
    let backend = ObjectStoreBackend::connect(Arc::new(Plain::default()), profile, Config::default());
    let storage = Storage::new(backend.await.unwrap());
    for key in ["a", "b"] {
        storage.put(key, key).await.unwrap();
    }
    let listing: storage_core::Result<Vec<_>> = storage.keys().await.unwrap().try_collect().await;
    assert_eq!(listing.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_batch_asks_once_for_each_key() {
    let (store, storage) = plain().await;
    store.1.lock().unwrap().clear();
    let denied = Some(ErrorKind::PermissionDenied);
    for (keys, expected, asked) in [
        (["b", "a", "b", "b"], [None; 4], vec!["a", "b"]),
        (["b", "stuck", "a", "stuck"], [None, denied, None, denied], vec!["a", "b", "stuck", "stuck"]),
    ] {
        let items = keys.map(|key| (key, storage_core::DeleteOptions::new()));
        let done = storage.delete_batch_with(items, storage_core::BatchOptions::new()).await.unwrap();
        let kinds: Vec<_> = done.into_iter().map(|result| result.err().map(|e| e.kind())).collect();
        assert_eq!(kinds, expected);
        assert_eq!(std::mem::take(&mut *store.1.lock().unwrap()), asked);
    }
}
