//! Storages as object stores: object_store's own suite, and what callers rely on beyond it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutPayload,
    TagSet, UpdateVersion, integration, path::Path,
};
use storage_conformance::Faults;
use storage_core::{Bytes, Storage, StorageBackend};
use storage_fs::Fs;
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_memory::Memory;
use storage_object_store::AsObjectStore;
use storage_sql::{Config, Sql};
use tempfile::TempDir;

/// The stores of a test, and the directories in which they lie.
struct Stores {
    all: Vec<AsObjectStore>,
    _dirs: [TempDir; 2],
}

impl Stores {
    async fn all() -> Self {
        let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let keys = StaticKeys::generate("test").unwrap();
        let storages = [
            Storage::new(Memory::new()),
            Storage::new(Fs::open(dirs[0].path()).await.unwrap()),
            Storage::new(Sql::connect(Config::sqlite(dirs[1].path().join("db"))).await.unwrap()),
            Storage::new(Memory::new()).layer(EncryptLayer::new(keys)),
        ];
        Self { all: storages.map(AsObjectStore::new).into(), _dirs: dirs }
    }
}

/// object_store's own suite. Of its 19 functions those three are missing that need a `MultipartStore`, whose parts come from anywhere
/// under an upload's id, and the one that looks at HTTP responses.
macro_rules! suite {
    ($($name:ident => $run:expr;)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let stores = Stores::all().await;
            for store in &stores.all {
                eprintln!("{store}");
                let run: fn(&AsObjectStore) -> futures_util::future::BoxFuture<'_, ()> = $run;
                run(store).await;
            }
        }
    )* };
}
suite! {
    put_get_delete_list => |s| Box::pin(integration::put_get_delete_list(s));
    put_get_attributes => |s| Box::pin(integration::put_get_attributes(s));
    get_opts => |s| Box::pin(integration::get_opts(s));
    put_opts => |s| Box::pin(integration::put_opts(s, true));
    stream_get => |s| Box::pin(integration::stream_get(s));
    list_uses_directories_correctly => |s| Box::pin(integration::list_uses_directories_correctly(s));
    list_with_delimiter => |s| Box::pin(integration::list_with_delimiter(s));
    get_nonexistent_object => |s| Box::pin(async move {
        let error = integration::get_nonexistent_object(s, None).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    });
    rename_and_copy => |s| Box::pin(integration::rename_and_copy(s));
    copy_if_not_exists => |s| Box::pin(integration::copy_if_not_exists(s));
    copy_rename_nonexistent_object => |s| Box::pin(integration::copy_rename_nonexistent_object(s));
    multipart_race_condition => |s| Box::pin(integration::multipart_race_condition(s, true));
    multipart_out_of_order => |s| Box::pin(integration::multipart_out_of_order(s));
    list_paginated => |s| Box::pin(integration::list_paginated(s, s));
    list_with_offset_exclusivity => |s| Box::pin(integration::list_with_offset_exclusivity(s));
}

fn memory() -> (Storage, AsObjectStore) {
    let storage = Storage::new(Memory::new());
    (storage.clone(), AsObjectStore::new(storage))
}

#[tokio::test]
async fn listings_are_sorted_and_leave_out_what_is_no_path() {
    let (storage, store) = memory();
    for key in ["b", "a/c", "a//x", "/a", "a/b", "a-b", "a/", "..", "ü"] {
        storage.put(key, "v").await.unwrap();
    }
    let names = |entries: Vec<object_store::ObjectMeta>| -> Vec<String> {
        entries.into_iter().map(|about| about.location.to_string()).collect()
    };
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(names(all), ["a-b", "a/b", "a/c", "b", "ü"]);
    let some: Vec<_> = store.list_with_offset(Some(&"a".into()), &"a/b".into()).try_collect().await.unwrap();
    assert_eq!(names(some), ["a/c"]);
    let level = store.list_with_delimiter(None).await.unwrap();
    assert_eq!(level.common_prefixes, [Path::from("a")]);
    assert_eq!(names(level.objects), ["a-b", "b", "ü"]);
}

#[tokio::test]
async fn attributes_and_tags_are_metadata() {
    let (storage, store) = memory();
    let attributes = Attributes::from_iter([
        (Attribute::ContentType, "text/plain"),
        (Attribute::StorageClass, "COLD"),
        (Attribute::Metadata("author".into()), "me"),
        (Attribute::Metadata("object_store/storage-class".into()), "mine"),
    ]);
    let mut tags = TagSet::default();
    tags.push("project", "a b");
    let options = object_store::PutOptions { attributes: attributes.clone(), tags, ..Default::default() };
    store.put_opts(&"k".into(), "v".into(), options).await.unwrap();
    let head = store.get_opts(&"k".into(), GetOptions::new().with_head(true)).await.unwrap();
    assert_eq!(head.attributes, attributes);
    let metadata = storage.stat("k").await.unwrap().unwrap().metadata.unwrap();
    assert_eq!(metadata.content_type.as_deref(), Some("text/plain"));
    assert_eq!(metadata.fields["author"], "me".into());
    assert_eq!(metadata.tags.iter().collect::<Vec<_>>(), ["project=a+b"]);
    // A number written past object_store is shown as text.
    let metadata = storage_core::Metadata::new().field("n", 7);
    storage.put_with("n", "v", storage_core::PutOptions::new().metadata(metadata)).await.unwrap();
    let seen = store.get(&"n".into()).await.unwrap().attributes;
    assert_eq!(seen.get(&Attribute::Metadata("n".into())).map(AsRef::as_ref), Some("7"));
}

#[tokio::test]
async fn an_upload_that_is_dropped_or_aborted_stores_nothing() {
    for store in &Stores::all().await.all {
        let path = Path::from("upload");
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part(vec![1; 100_000].into()).await.unwrap();
        drop(upload);
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part(vec![2; 100_000].into()).await.unwrap();
        upload.abort().await.unwrap();
        assert!(matches!(upload.complete().await, Err(Error::NotSupported { .. })));
        assert!(matches!(upload.put_part("late".into()).await, Err(Error::NotSupported { .. })));
        assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })), "{store}");
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part("whole".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "whole");
    }
}

#[tokio::test]
async fn an_upload_says_why_it_failed_in_each_part_and_at_its_end() {
    let mut config = storage_memory::Config::default();
    config.max_value = Some(1000);
    let store = AsObjectStore::new(Storage::new(Memory::with_config(config)));
    let mut upload = store.put_multipart(&"k".into()).await.unwrap();
    let parts: Vec<_> = (0..3).map(|_| upload.put_part(vec![0; 800].into())).collect();
    let mut failed = 0;
    for part in parts {
        if let Err(e) = part.await {
            assert!(matches!(e, Error::NotSupported { .. }), "{e:?}");
            failed += 1;
        }
    }
    assert!(failed > 0);
    let error = upload.complete().await.unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }), "{error:?}");
    assert!(error.to_string().contains("larger than"), "{error}");
    assert!(matches!(store.head(&"k".into()).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn only_what_can_succeed_later_is_generic() {
    let faults = Faults::new(Memory::new(), 1).before(1.0);
    let store = AsObjectStore::new(Storage::new(faults));
    let error = store.get(&"k".into()).await.unwrap_err();
    assert!(matches!(error, Error::Generic { .. }), "{error:?}");

    let (storage, store) = memory();
    store.put(&"k".into(), "value".into()).await.unwrap();
    let permanent = |e: Error| assert!(matches!(e, Error::NotSupported { .. }), "{e:?}");
    permanent(store.put(&"k".repeat(2000).into(), "v".into()).await.unwrap_err());
    permanent(store.get(&Path::ROOT).await.unwrap_err());
    permanent(store.get_range(&"k".into(), 5..9).await.unwrap_err());
    permanent(store.get_range(&"k".into(), 100..109).await.unwrap_err());
    let update = PutMode::Update(UpdateVersion { e_tag: None, version: None });
    permanent(store.put_opts(&"k".into(), "v".into(), update.into()).await.unwrap_err());
    let tag = vec![b'x'; 70_000];
    let large = Attributes::from_iter([(Attribute::ContentType, String::from_utf8(tag).unwrap())]);
    permanent(store.put_opts(&"k".into(), "v".into(), large.clone().into()).await.unwrap_err());
    let mut upload = store.put_multipart_opts(&"k".into(), PutMultipartOptions::from(large)).await.unwrap();
    permanent(upload.complete().await.unwrap_err());
    storage.disconnect().await.unwrap();
    permanent(store.get(&"k".into()).await.unwrap_err());
}

#[tokio::test]
async fn conditions_are_refused_where_the_storage_has_none() {
    let dir = TempDir::new().unwrap();
    let local = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let profile = storage_object_store::Profile::local();
    let config = storage_object_store::Config::default();
    let backend = storage_object_store::ObjectStoreBackend::connect(Arc::new(local), profile, config).await.unwrap();
    assert!(!backend.info().capabilities.conditional);
    let store = AsObjectStore::new(Storage::new(backend));
    let refused = store.put_opts(&"k".into(), "v".into(), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(refused, Error::NotSupported { .. }), "{refused:?}");
    store.put(&"k".into(), "v".into()).await.unwrap();
    let refused = store.copy_if_not_exists(&"k".into(), &"l".into()).await.unwrap_err();
    assert!(matches!(refused, Error::NotSupported { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_payload_of_many_pieces_is_one_value() {
    for store in &Stores::all().await.all {
        let pieces = (0..1000u32).map(|i| Bytes::from(i.to_string()));
        let payload: PutPayload = pieces.clone().collect();
        store.put(&"k".into(), payload).await.unwrap();
        let expected: Vec<u8> = pieces.flatten().collect();
        assert_eq!(store.get(&"k".into()).await.unwrap().bytes().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn bulk_deletes_answer_in_order_and_pass_errors_on() {
    for store in &Stores::all().await.all {
        let paths: Vec<Path> = (0..2500).map(|i| Path::from(format!("d/{i:04}"))).collect();
        for path in paths.iter().step_by(100) {
            store.put(path, "v".into()).await.unwrap();
        }
        let foreign = || Error::NotImplemented { operation: "the caller's own".into(), implementer: "test".into() };
        let given = paths.iter().cloned().map(Ok).chain([Err(foreign()), Ok(Path::from("k".repeat(3000)))]);
        let results: Vec<_> = store.delete_stream(stream::iter(given.collect::<Vec<_>>()).boxed()).collect().await;
        assert_eq!(results.len(), 2502);
        for (result, path) in results.iter().zip(&paths) {
            assert_eq!(result.as_ref().unwrap(), path);
        }
        assert!(matches!(results[2500], Err(Error::NotImplemented { .. })));
        assert!(results[2501].is_err());
        assert_eq!(store.list(None).count().await, 0);
    }
}

#[tokio::test]
async fn missing_and_mismatched_are_told_apart() {
    let (_, store) = memory();
    let match_any = |etag: &str| GetOptions::new().with_if_match(Some(etag));
    let missing = store.get_opts(&"k".into(), match_any("x")).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing:?}");
    store.put(&"k".into(), "v".into()).await.unwrap();
    let etag = store.head(&"k".into()).await.unwrap().e_tag.unwrap();
    for (condition, holds) in [("*", true), ("x, y", false), (&*format!("x, {etag}"), true)] {
        assert_eq!(store.get_opts(&"k".into(), match_any(condition)).await.is_ok(), holds, "{condition}");
        let none = GetOptions::new().with_if_none_match(Some(condition));
        assert_eq!(store.get_opts(&"k".into(), none).await.is_ok(), !holds, "{condition}");
    }
}
