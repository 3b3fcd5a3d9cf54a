//! A damaged entry: yielded, without metadata; no condition and no filter on metadata holds of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, future::ready, stream};
use storage_core::{
    BackendInfo, Body, Capabilities, Comparison, Condition, DeleteOptions, Entry, Error, ErrorKind, Etag, Filter,
    GetOptions, Key, ListItem, ListOptions, ListStream, Metadata, Object, OrderBy, PutOptions, Query, Result,
    StatOptions, Storage, StorageBackend, async_trait,
};

fn sound(key: &str, size: u64) -> Entry {
    let mut entry = Entry::new(Key::parse(key).unwrap(), size);
    entry.etag = Some(Etag::new("e"));
    entry.metadata = Some(Metadata::new().tag("t").field("n", 1).into());
    entry
}

fn damaged(key: &str, size: u64) -> Entry {
    sound(key, size).into_damaged(Error::new(ErrorKind::Corrupt, "not readable"))
}

#[test]
fn it_keeps_what_is_known_and_names_its_key() {
    let entry = damaged("d", 7);
    assert_eq!((entry.size, &entry.etag, &entry.metadata), (7, &None, &None));
    assert_eq!(entry.damaged.as_ref().and_then(Error::key), Some(&entry.key));
    assert_eq!(entry.clone().sound().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(entry, entry.clone());
    let mut other = entry.clone();
    other.damaged = None;
    assert_ne!(entry, other);
    assert_eq!(sound("s", 1).sound().unwrap(), sound("s", 1));
}

#[test]
fn conditions_see_a_value_without_an_etag_of_its_own() {
    let mut entry = damaged("d", 7);
    entry.etag = Some(Etag::new("e"));
    let kind = |condition: Condition| condition.check(Some(&entry)).unwrap_err().kind();
    assert_eq!(kind(Condition::IfAbsent), ErrorKind::AlreadyExists);
    assert_eq!(kind(Condition::IfMatch(Etag::new("e"))), ErrorKind::PreconditionFailed);
    let read = GetOptions::new().check_current(Some(&entry));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn queries_yield_it_unless_they_ask_for_metadata() {
    let keys = |query: Query| async {
        let all = [sound("a", 1), damaged("b", 2), sound("c", 3)].map(Ok);
        let entries = query.evaluate(stream::iter(all).boxed()).await.unwrap();
        entries.map_ok(|entry| entry.key.to_string()).try_collect::<Vec<_>>().await.unwrap().concat()
    };
    assert_eq!(keys(Query::new()).await, "abc");
    assert_eq!(keys(Query::new().filter(Filter::MinSize(2))).await, "bc");
    assert_eq!(keys(Query::new().descending(OrderBy::Size)).await, "cba");
    for filter in [
        Filter::AllTags(BTreeSet::new()),
        Filter::AnyTag(["t".to_owned()].into()),
        Filter::Field { name: "n".into(), comparison: Comparison::NotEqual, value: 2.into() },
    ] {
        assert!(filter.is_on_metadata());
        assert_eq!(keys(Query::new().filter(filter)).await, "ac");
    }
}

/// A store of one damaged value, which says of an error no more than it must.
#[derive(Debug)]
struct Damaged(BackendInfo);

#[async_trait]
impl StorageBackend for Damaged {
    fn info(&self) -> &BackendInfo {
        &self.0
    }
    async fn get(&self, _: &Key, _: GetOptions) -> Result<Option<Object>> {
        Err(Error::new(ErrorKind::Corrupt, "not readable"))
    }
    async fn put(&self, key: &Key, _: Body, _: PutOptions) -> Result<Entry> {
        Ok(Entry::new(key.clone(), 0))
    }
    async fn delete(&self, _: &Key, _: DeleteOptions) -> Result<()> {
        Ok(())
    }
    async fn stat(&self, _: &Key, _: StatOptions) -> Result<Option<Entry>> {
        Err(Error::new(ErrorKind::Corrupt, "not readable"))
    }
    async fn list(&self, _: ListOptions) -> Result<ListStream> {
        let mut entry = damaged("d", 7);
        entry.damaged = Some(Error::new(ErrorKind::Corrupt, "not readable"));
        Ok(stream::once(ready(Ok(ListItem::Entry(entry)))).boxed())
    }
}

#[tokio::test]
async fn the_handle_says_which_call_of_which_backend_met_it() {
    let s = Storage::new(Damaged(BackendInfo::new("test", Capabilities::new())));
    let listed: Vec<Entry> = s.list("").await.unwrap().try_collect().await.unwrap();
    let queried: Vec<Entry> = s.query(Query::new()).await.unwrap().try_collect().await.unwrap();
    for (operation, entries) in [("list", listed), ("query", queried)] {
        let error = entries[0].damaged.clone().unwrap();
        assert_eq!(error.to_string(), format!("test: {operation} \"d\": not readable"));
    }
    assert_eq!(s.keys().await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(), 1);
    s.clear().await.unwrap();
}
