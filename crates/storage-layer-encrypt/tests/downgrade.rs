//! Under `encrypt_metadata` nothing is believed that came to the store around the layer: not metadata in the clear, whoever made it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, sync::Arc};

use futures_util::TryStreamExt;
use storage_config::DataKey;
use storage_core::{
    Bytes, CopyOptions, Entry, ErrorKind, GetOptions, ListItem, ListOptions, Metadata, PutOptions, Query, Result,
    Storage, StorageBackend,
};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_memory::Memory;

type Above = Storage<dyn StorageBackend>;

fn layer() -> EncryptLayer {
    EncryptLayer::new(StaticKeys::new("k", &DataKey::new([1; 32])).unwrap())
}

fn above(below: &Storage, layer: EncryptLayer) -> Above {
    below.clone().layer(layer)
}

fn about(role: &str) -> Metadata {
    Metadata::new().field("role", role).tag(role).content_type("text/plain")
}

fn with(metadata: Metadata) -> PutOptions {
    PutOptions::new().metadata(metadata)
}

async fn entries(s: &Above) -> Vec<Entry> {
    let items = s.list_with(ListOptions::new().metadata(true)).await.unwrap();
    items.try_filter_map(|item: ListItem| async { Ok(item.into_entry()) }).try_collect().await.unwrap()
}

async fn found(s: &Above, role: &str) -> BTreeSet<String> {
    let by_field = s.query(Query::new().equals("role", role)).await.unwrap();
    let by_tag = s.query(Query::new().any_tag([role])).await.unwrap();
    let by_field: Vec<Entry> = by_field.try_collect().await.unwrap();
    let by_tag: Vec<Entry> = by_tag.try_collect().await.unwrap();
    by_field.into_iter().chain(by_tag).map(|entry| entry.key.to_string()).collect()
}

/// Neither is what was forged believed, nor does it hide the sound value beside it.
async fn is_refused(s: &Above, what: &str) {
    let stat = s.stat("a").await.unwrap_err();
    assert_eq!(stat.kind(), ErrorKind::Corrupt, "{what}");
    let get = s.get("a").await.unwrap_err();
    assert_eq!(get.kind(), ErrorKind::Corrupt, "{what}");
    let range = s.get_with("a", GetOptions::new().range(0..1)).await.unwrap_err();
    assert_eq!(range.kind(), ErrorKind::Corrupt, "{what}");
    let listed = entries(s).await;
    let [forged, sound] = &listed[..] else { panic!("{what}: {listed:?}") };
    assert_eq!(forged.damaged.as_ref().map(|e| e.kind()), Some(ErrorKind::Corrupt), "{what}");
    assert!(forged.metadata.is_none() && sound.damaged.is_none(), "{what}");
    assert_eq!(**sound.metadata.as_ref().unwrap(), about("reader"), "{what}");
    assert!(found(s, "admin").await.is_empty(), "{what}");
    assert_eq!(found(s, "reader").await, BTreeSet::from(["b".to_owned()]), "{what}");
}

async fn stored(below: &Storage, key: &str) -> (Bytes, Arc<Metadata>) {
    let object = below.open(key, GetOptions::new()).await.unwrap().unwrap();
    (object.body.bytes(u64::MAX).await.unwrap(), object.entry.metadata.unwrap())
}

#[tokio::test]
async fn what_bypassed_the_layer_is_damaged_with_and_without_migration() -> Result<()> {
    let mut config = storage_memory::Config::default();
    config.max_versions = std::num::NonZeroUsize::MAX;
    let below = Storage::new(Memory::with_config(config));
    let strict = above(&below, layer().encrypt_metadata(true));
    let migrating = above(&below, layer().encrypt_metadata(true).allow_plain_metadata(true));
    let old = above(&below, layer());
    for key in ["a", "b", "c"] {
        strict.put_with(key, "value", with(about("reader"))).await?;
    }
    let ((value, metadata), (_, of_c)) = (stored(&below, "a").await, stored(&below, "c").await);
    // What the layer wrote before it encrypted metadata, for one that should say something else, and of another key.
    old.put_with("a", "value", with(about("reader"))).await?;
    let (old_value, _) = stored(&below, "a").await;
    old.put_with("c", "value", with(about("admin"))).await?;
    let (old_of_c, old_metadata_of_c) = stored(&below, "c").await;
    strict.delete("c").await?;
    let forged: [(&str, Bytes, Option<Metadata>); 9] = [
        ("metadata in the clear beside a sealed value", value.clone(), Some(about("admin"))),
        ("no metadata beside a sealed value", value.clone(), None),
        ("the sealed metadata of another key", value.clone(), Some((*of_c).clone())),
        ("more beside sealed metadata", value.clone(), Some((*metadata).clone().tag("admin"))),
        ("a plain value with metadata", vec![7; 300].into(), Some(about("admin"))),
        ("a plain value without metadata", vec![7; 300].into(), None),
        ("a short plain value", "plain".into(), Some(about("admin"))),
        ("other metadata beside an old value", old_value, Some(about("admin"))),
        ("an old value of another key", old_of_c, Some((*old_metadata_of_c).clone())),
    ];
    for (what, value, metadata) in forged {
        let mut options = PutOptions::new();
        options.metadata = metadata.map(Arc::new);
        below.put_with("a", value, options).await?;
        is_refused(&strict, what).await;
        is_refused(&migrating, what).await;
        let transaction = strict.begin().await?;
        assert_eq!(transaction.stat("a").await.unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
        transaction.rollback().await?;
        let versions: Vec<Entry> = strict.versions("a").await?.try_collect().await?;
        assert!(versions[0].damaged.is_some() && versions.last().unwrap().damaged.is_none(), "{what}");
    }
    strict.put_with("a", "again", with(about("writer"))).await?;
    assert_eq!(found(&strict, "writer").await.len(), 1);
    Ok(())
}

#[tokio::test]
async fn old_values_are_read_where_it_is_allowed_until_they_are_written_again() -> Result<()> {
    let below = Storage::new(Memory::new());
    above(&below, layer()).put_with("a", "value", with(about("admin"))).await?;
    let strict = above(&below, layer().encrypt_metadata(true));
    strict.put_with("b", "value", with(about("reader"))).await?;
    is_refused(&strict, "an old value").await;
    assert!(strict.stat("a").await.unwrap_err().message().contains("allow_plain_metadata"));
    let migrating = above(&below, layer().encrypt_metadata(true).allow_plain_metadata(true));
    assert_eq!(migrating.get("a").await?.as_deref(), Some(&b"value"[..]));
    let entry = migrating.stat("a").await?.unwrap();
    assert_eq!((entry.size, &**entry.metadata.as_ref().unwrap()), (5, &about("admin")));
    assert_eq!(found(&migrating, "admin").await.len(), 1);
    assert!(entries(&migrating).await.iter().all(|entry| entry.damaged.is_none()));
    let again = CopyOptions::new().condition(storage_core::Condition::IfMatch(entry.etag.unwrap()));
    migrating.copy_with("a", "a", again).await?;
    assert_eq!(**strict.stat("a").await?.unwrap().metadata.as_ref().unwrap(), about("admin"));
    assert_eq!(strict.get("a").await?.as_deref(), Some(&b"value"[..]));
    Ok(())
}

#[tokio::test]
async fn what_belongs_to_a_key_that_is_not_there_ends_no_listing() -> Result<()> {
    let below = Storage::new(Memory::new());
    let other = EncryptLayer::new(StaticKeys::new("other", &DataKey::new([2; 32]))?).encrypt_metadata(true);
    above(&below, other).put_with("a", "value", with(about("admin"))).await?;
    let s = above(&below, layer().encrypt_metadata(true));
    s.put_with("b", "value", with(about("reader"))).await?;
    let listed = entries(&s).await;
    assert!(listed[0].damaged.is_some() && listed[1].damaged.is_none());
    assert!(found(&s, "admin").await.is_empty());
    assert_eq!(s.stat("a").await.unwrap_err().kind(), ErrorKind::Config);
    s.delete("a").await?;
    Ok(())
}
