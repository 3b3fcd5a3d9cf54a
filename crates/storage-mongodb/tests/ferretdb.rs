//! FerretDB over SQLite, which loses updates of several clients: it is refused, unless a single client asks for it.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::env;

use storage_core::{Condition, DeleteOptions, ErrorKind, Etag, Metadata, PutOptions, Query, Storage, StorageBackend};
use storage_mongodb::Mongo;

mod support;

/// `host:port` of the server, `None` where there is none.
fn server() -> Option<String> {
    storage_conformance::server("STORAGE_TEST_FERRETDB")?;
    let uri = env::var("STORAGE_TEST_FERRETDB").unwrap();
    Some(uri.trim_start_matches("mongodb://").to_owned())
}

fn collection() -> String {
    format!("ferret{:08x}", fastrand::u32(..))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_by_what_it_says_of_itself() {
    let Some(server) = server() else { return };
    let e = Mongo::connect(support::config(&server, &collection()).unwrap()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    for part in ["FerretDB", "compare-and-set", "`unsafe_server`"] {
        assert!(e.message().contains(part), "{e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_by_a_race_where_it_does_not_say_what_it_is() {
    let Some(server) = server() else { return };
    let server = support::hiding(server, &[b"ferretdb"]);
    for _ in 0..4 {
        let e = Mongo::connect(support::config(&server, &collection()).unwrap()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{e:?}");
        assert!(e.message().contains("compare-and-set") && !e.message().contains("FerretDB"), "{e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_client_may_use_it() {
    let Some(server) = server() else { return };
    let name = collection();
    let mut config = support::config(&server, &name).unwrap();
    config.unsafe_server = true;
    config.inline_limit = 1 << 16;
    let mongo = Mongo::connect(config).await.unwrap();
    let info = mongo.info();
    assert!(info.description.contains("single client"), "{}", info.description);
    assert!(!info.capabilities.transactions && info.capabilities.conditional);
    let storage = Storage::new(mongo);
    let draft = PutOptions::new().metadata(Metadata::new().tag("draft").field("pages", 3)).if_absent();
    let put = storage.put_with("notes/a", "small", draft.clone()).await.unwrap();
    assert_eq!(storage.put_with("notes/a", "other", draft).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let stale = PutOptions::new().condition(Condition::IfMatch(Etag::new("0")));
    assert_eq!(storage.put_with("notes/a", "w", stale).await.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    let fresh = PutOptions::new().if_match(put.etag.as_ref().unwrap());
    storage.put_with("notes/a", "newer", fresh).await.unwrap();
    let large = vec![7; 1 << 20];
    storage.put("notes/large", large.clone()).await.unwrap();
    assert_eq!(storage.get("notes/large").await.unwrap().unwrap(), large);
    assert_eq!(storage.get("notes/a").await.unwrap().unwrap(), "newer");
    let page = storage.query_page(Query::new().prefix("notes/")).await.unwrap();
    assert_eq!(page.entries.len(), 2);
    let stale = DeleteOptions::new().condition(Condition::IfMatch(Etag::new("0")));
    assert_eq!(storage.delete_with("notes/a", stale).await.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    let etag = storage.stat("notes/a").await.unwrap().unwrap().etag.unwrap();
    storage.delete_with("notes/a", DeleteOptions::new().condition(Condition::IfMatch(etag))).await.unwrap();
    storage.put("notes/a", "again").await.unwrap();
    let tagged = storage.query_page(Query::new().any_tag(["draft"])).await.unwrap();
    assert!(tagged.entries.is_empty());
    storage.clear().await.unwrap();
    // What it has made is no reason to trust the server.
    let hidden = support::hiding(server, &[b"ferretdb"]);
    let e = Mongo::connect(support::config(&hidden, &name).unwrap()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e:?}");
    assert!(storage.get("notes/a").await.unwrap().is_none());
}
