//! Objects whose metadata is there and cannot be read, and those of others, which have none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::TryStreamExt;
use storage_cloud_tests::{Cloud, Server};
use storage_core::{
    Condition, CopyOptions, Entry, ErrorKind, Etag, ListItem, ListOptions, Metadata, PutOptions, Query,
};

#[tokio::test]
async fn a_damaged_object_is_told_and_hides_no_other() {
    for cloud in Cloud::ALL {
        for text in ["not base64!", "bm90IEpTT04", "", "\u{e9}"] {
            let server = Server::start(cloud).await.unwrap();
            let storage = server.connect().await.unwrap();
            let described = || PutOptions::new().metadata(Metadata::new().tag("t"));
            let old = storage.put_with("b", "value", described()).await.unwrap().etag.unwrap();
            storage.put_with("a", "value", described()).await.unwrap();
            let damage = || {
                server.store().put("b", b"value", vec![(format!("{}storage", cloud.meta()), text.into())]);
                server.store().put("theirs", b"value", Vec::new());
            };
            damage();
            let listed = storage.list_with(ListOptions::new().metadata(true)).await.unwrap();
            let listed: Vec<Entry> =
                listed.try_filter_map(async |item: ListItem| Ok(item.into_entry())).try_collect().await.unwrap();
            let damaged: Vec<_> = listed.iter().map(|entry| entry.damaged.as_ref().map(|e| e.kind())).collect();
            assert_eq!(damaged, [None, Some(ErrorKind::Corrupt), None], "{cloud:?}, {text:?}");
            assert_eq!((listed[1].size, &listed[1].metadata, &listed[1].etag), (5, &None, &None), "{cloud:?}");
            assert!(listed[1].modified.is_some() && *listed[2].metadata.as_deref().unwrap() == Metadata::new());
            let found: Vec<_> = storage.query(Query::new().all_tags(["t"])).await.unwrap().try_collect().await.unwrap();
            assert_eq!(found.len(), 1, "{cloud:?}");
            for error in [storage.get("b").await.map(drop).unwrap_err(), storage.stat("b").await.map(drop).unwrap_err()]
            {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{cloud:?}, {text:?}");
            }
            assert_eq!(storage.get("theirs").await.unwrap().unwrap(), "value");
            let under = |condition| storage.put_with("b", "w", PutOptions::new().condition(condition));
            assert_eq!(under(Condition::IfAbsent).await.unwrap_err().kind(), ErrorKind::AlreadyExists, "{cloud:?}");
            for etag in [old, Etag::new("\"other\"")] {
                let error = under(Condition::IfMatch(etag)).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PreconditionFailed, "{cloud:?}");
            }
            // A listing without metadata tells its etag like any other. Another instance has seen none of them.
            for storage in [&storage, &server.connect().await.unwrap()] {
                let listed: Vec<ListItem> =
                    storage.list_with(ListOptions::new()).await.unwrap().try_collect().await.unwrap();
                let listed: Vec<Entry> = listed.into_iter().filter_map(ListItem::into_entry).collect();
                let matches = |n: usize| Condition::IfMatch(listed[n].etag.clone().unwrap());
                let put = storage.put_with("b", "w", PutOptions::new().condition(matches(1))).await.unwrap_err();
                let onto = CopyOptions::new().condition(matches(1));
                let copy = storage.copy_with("a", "b", onto).await.unwrap_err();
                for error in [put, copy] {
                    assert_eq!(error.kind(), ErrorKind::PreconditionFailed, "{cloud:?}");
                }
                storage.put_with("a", "w", described().condition(matches(0))).await.unwrap();
            }
            storage.put_with("b", "sound", described()).await.unwrap();
            assert_eq!(storage.get("b").await.unwrap().unwrap(), "sound");
            damage();
            storage.delete("b").await.unwrap();
            assert_eq!(storage.get("b").await.unwrap(), None);
            damage();
            storage.clear().await.unwrap();
            assert!(server.store().objects.is_empty(), "{cloud:?}");
        }
    }
}
