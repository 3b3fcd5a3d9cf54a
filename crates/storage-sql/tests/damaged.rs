//! Rows that others have written or damaged: each is told by itself, and can be replaced and removed.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use futures_util::TryStreamExt;
use storage_core::{
    Condition, DeleteOptions, Entry, ErrorKind, ListItem, ListOptions, Metadata, OrderBy, PutOptions, Query,
    RenameOptions, Storage,
};
use support::{Engine, Place, kind};

/// What others may have put into a row, for all databases and for those whose columns hold any type.
const DAMAGE: [&str; 7] = [
    "metadata = ''",
    "metadata = '{'",
    "metadata = 'null'",
    "metadata = '[]'",
    "metadata = '{\"tags\":7}'",
    "metadata = '{\"fields\":[1]}'",
    "size = -1",
];
const OF_ANY_TYPE: [&str; 6] = [
    "metadata = x'7b7d'",
    "metadata = 7",
    "metadata = cast(x'7bff' as text)",
    "size = 'large'",
    "nonce = 'x'",
    "version = x'00'",
];

fn options() -> PutOptions {
    PutOptions::new().metadata(Metadata::new().content_type("text/plain").tag("t").field("n", 1))
}

async fn listed(storage: &Storage) -> Vec<Entry> {
    let options = ListOptions::new().metadata(true);
    let items: Vec<ListItem> = storage.list_with(options).await.unwrap().try_collect().await.unwrap();
    items.into_iter().filter_map(ListItem::into_entry).collect()
}

/// What the entries are, and which is damaged.
fn check(what: &str, entries: &[Entry], keys: &[&str]) {
    assert_eq!(entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), keys, "{what}");
    for entry in entries {
        let kind = entry.damaged.as_ref().map(storage_core::Error::kind);
        assert_eq!(kind, (entry.key.as_str() == "b").then_some(ErrorKind::Corrupt), "{what}");
        assert_eq!(entry.metadata.is_none(), entry.damaged.is_some(), "{what}");
    }
}

async fn try_damage(place: &Place, storage: &Storage, damage: &str) {
    let what = &format!("{damage} on {:?}", place.engine);
    let keys = ["a", "b", "c"];
    let key = if place.engine == Engine::Postgres { "'\\x62'::bytea" } else { "x'62'" };
    let sql = format!("UPDATE storage SET {damage} WHERE entry_key = {key}");
    for key in keys {
        storage.put_with(key, "v", options()).await.unwrap();
    }
    let etag = storage.stat("b").await.unwrap().unwrap().etag.unwrap();
    assert_eq!(place.raw(&sql).await, 1, "{what}");
    check(what, &listed(storage).await, &keys);
    for order in [OrderBy::Key, OrderBy::Modified, OrderBy::Field("n".into())] {
        for limit in [None, Some(2)] {
            let mut query = Query::new().ascending(order.clone());
            query.limit = limit;
            let mut found = storage.query_page(query).await.unwrap().entries;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(found.len(), limit.unwrap_or(3), "{what}");
        }
    }
    check(what, &storage.query_page(Query::new()).await.unwrap().entries, &keys);
    check(what, &storage.query_page(Query::new().equals("n", 1).any_tag(["t"])).await.unwrap().entries, &["a", "c"]);
    assert_eq!(kind(storage.get("b").await), ErrorKind::Corrupt, "{what}");
    assert_eq!(kind(storage.stat("b").await), ErrorKind::Corrupt, "{what}");
    assert_eq!(kind(storage.rename("b", "renamed").await), ErrorKind::Corrupt, "{what}");

    let put = |condition| storage.put_with("b", "w", options().condition(condition));
    assert_eq!(kind(put(Condition::IfAbsent).await), ErrorKind::AlreadyExists, "{what}");
    let matches = Condition::IfMatch(etag);
    assert_eq!(kind(put(matches.clone()).await), ErrorKind::PreconditionFailed, "{what}");
    let delete = DeleteOptions::new().condition(matches.clone());
    assert_eq!(kind(storage.delete_with("b", delete).await), ErrorKind::PreconditionFailed, "{what}");
    let onto = RenameOptions::new().condition(matches);
    assert_eq!(kind(storage.rename_with("a", "b", onto).await), ErrorKind::PreconditionFailed, "{what}");

    storage.put_with("b", "w", options()).await.unwrap();
    assert_eq!(storage.get("b").await.unwrap().unwrap(), "w");
    assert!(listed(storage).await.iter().all(|entry| entry.damaged.is_none()), "{what}");
    place.raw(&sql).await;
    storage.delete("b").await.unwrap();
    assert!(!storage.has("b").await.unwrap());
    storage.put_with("b", "v", options()).await.unwrap();
    place.raw(&sql).await;
    storage.clear().await.unwrap();
    assert_eq!(listed(storage).await.len(), 0, "{what}");
}

#[tokio::test]
async fn a_damaged_row_is_told_by_itself_and_can_be_replaced_and_removed() {
    for place in Place::all() {
        let storage = place.open().await;
        for damage in DAMAGE {
            try_damage(&place, &storage, damage).await;
        }
        if place.engine == Engine::Sqlite {
            for damage in OF_ANY_TYPE {
                try_damage(&place, &storage, damage).await;
            }
        }
    }
}

#[tokio::test]
async fn dates_that_are_damaged_are_not_known() {
    let place = Place::new();
    let storage = place.open().await;
    storage.put("k", "v").await.unwrap();
    place.raw("UPDATE storage SET created_at = 'yesterday', updated_at = x'00'").await;
    let entry = storage.stat("k").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified), (None, None));
    assert!(storage.put("k", "w").await.unwrap().modified.is_some());
    assert!(storage.stat("k").await.unwrap().unwrap().modified.is_some());
}
