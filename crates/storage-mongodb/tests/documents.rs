//! Documents and metadata that others would trip over: what others wrote into the collection, and names that MongoDB has a meaning for.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc, oid::ObjectId, spec::BinarySubtype};
use storage_core::{Condition, DeleteOptions, ErrorKind, Etag, Metadata, PutOptions, Query, Storage};
use storage_mongodb::Mongo;

async fn open(of: &str) -> (Storage, String) {
    let collection = format!("{of}{:08x}", fastrand::u32(..));
    let mongo = Mongo::connect(support::config(&support::server(), &collection).unwrap()).await.unwrap();
    (Storage::new(mongo), collection)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_is_passed_over_or_damaged() {
    if support::is_missing_server() {
        return;
    }
    let (storage, collection) = open("others").await;
    storage.put("a", "ours").await.unwrap();
    let theirs = support::client().await.database(support::DATABASE).collection::<Document>(&collection);
    // No keys: they are none of ours.
    let ids = [Bson::from(ObjectId::new()), 7.into(), "".into(), "nul\0within".into(), doc! { "a": "b" }.into()];
    for id in ids {
        theirs.insert_one(doc! { "_id": id, "title": "a document of others" }).await.unwrap();
    }
    // Keys, but no values.
    let found = |id: &str, size: Bson, data: Bson| {
        doc! { "_id": id, "rev": "r", "size": size, "metadata": { "tags": [], "fields": [] }, "data": data }
    };
    let whole = Bson::from(mongodb::bson::Binary { subtype: BinarySubtype::Generic, bytes: b"five!".to_vec() });
    let damaged = [
        doc! { "_id": "bare" },
        found("no data", 5_i64.into(), Bson::Null),
        found("another size", 6_i64.into(), whole.clone()),
        found("no size", "five".into(), whole.clone()),
        doc! { "_id": "a list", "rev": ["r", "s"], "size": 5_i64, "metadata": { "tags": [], "fields": [] }, "data": whole },
        doc! { "_id": "a file", "rev": "r", "size": 5_i64, "metadata": { "tags": [], "fields": [] }, "file": "none" },
    ];
    let mut names = vec!["a".to_owned()];
    for document in damaged {
        names.push(document.get_str("_id").unwrap().to_owned());
        theirs.insert_one(document).await.unwrap();
    }
    names.sort();
    let entries: Vec<_> = storage.list("").await.unwrap().try_collect().await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), names);
    for name in names.iter().filter(|name| *name != "a") {
        assert_eq!(storage.get(name.as_str()).await.unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        let copied = storage.copy(name.as_str(), "copy").await.unwrap_err();
        assert_eq!(copied.kind(), ErrorKind::Corrupt, "{name}");
        let absent = storage.put_with(name.as_str(), "v", PutOptions::new().if_absent()).await.unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::AlreadyExists, "{name}");
        // That a size is wrong is seen when the value is read.
        if name != "another size" {
            let matching = || Condition::IfMatch(Etag::new("r"));
            let put = storage.put_with(name.as_str(), "v", PutOptions::new().condition(matching())).await.unwrap_err();
            assert_eq!(put.kind(), ErrorKind::PreconditionFailed, "{name}");
            let deleted = storage.delete_with(name.as_str(), DeleteOptions::new().condition(matching())).await;
            assert_eq!(deleted.unwrap_err().kind(), ErrorKind::PreconditionFailed, "{name}");
        }
        let copy: Document = theirs.find_one(doc! { "_id": name }).await.unwrap().unwrap();
        storage.delete(name.as_str()).await.unwrap();
        assert!(storage.get(name.as_str()).await.unwrap().is_none(), "{name}");
        theirs.insert_one(copy).await.unwrap();
        storage.put(name.as_str(), "mended").await.unwrap();
        assert_eq!(storage.get(name.as_str()).await.unwrap().unwrap(), "mended", "{name}");
    }
    storage.clear().await.unwrap();
    // What is no key stays, but for the text that no key can be, which lies within the bounds of all of them.
    let left: Vec<Bson> = theirs.distinct("_id", doc! {}).await.unwrap();
    assert!(left.iter().any(|id| matches!(id, Bson::ObjectId(_))) && left.contains(&7.into()), "{left:?}");
    support::drop_all(&collection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_mongodb_has_a_meaning_for_are_names() {
    if support::is_missing_server() {
        return;
    }
    let (storage, collection) = open("names").await;
    let names = ["a.b", ".", "$set", "$", "a.$b", "$$NOW", "", "_id", "__proto__", "0", "a.0"];
    for (n, name) in (0_i64..).zip(names) {
        let metadata = Metadata::new().tag(name).field(name, n).field("text", name).content_type(format!("a/{name}"));
        storage.put_with(format!("{n}"), "v", PutOptions::new().metadata(metadata.clone())).await.unwrap();
        let entry = storage.stat(format!("{n}")).await.unwrap().unwrap();
        assert_eq!(*entry.metadata.unwrap(), metadata, "{name:?}");
    }
    for (n, name) in (0_i64..).zip(names) {
        let queries = [
            Query::new().equals(name, n),
            Query::new().equals("text", name),
            Query::new().any_tag([name]),
            Query::new().all_tags([name]),
        ];
        for query in queries {
            let page = storage.query_page(query.clone()).await.unwrap();
            let keys: Vec<&str> = page.entries.iter().map(|entry| entry.key.as_str()).collect();
            assert_eq!(keys, [n.to_string()], "{query:?}");
        }
    }
    for metadata in [Metadata::new().tag("a\0"), Metadata::new().field("a\0b", 1), Metadata::new().field("a", "\0")] {
        let refused = storage.put_with("nul", "v", PutOptions::new().metadata(metadata)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
    assert!(storage.stat("nul").await.unwrap().is_none());
    support::drop_all(&collection).await;
}
