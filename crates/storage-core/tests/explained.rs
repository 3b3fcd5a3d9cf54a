//! Errors that come late (from streams), and errors about things that must not be repeated.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use storage_core::*;
use storage_memory::Memory;

/// Everything it returns breaks off.
#[derive(Debug)]
struct Broken(BackendInfo);

fn reset() -> Error {
    Error::new(ErrorKind::Unavailable, "reset")
}

#[async_trait]
impl StorageBackend for Broken {
    fn info(&self) -> &BackendInfo {
        &self.0
    }
    async fn get(&self, key: &Key, _: GetOptions) -> Result<Option<Object>> {
        Ok(Some(Object::new(Entry::new(key.clone(), 3), Body::stream(stream::iter([Err(reset())])))))
    }
    async fn put(&self, _: &Key, _: Body, _: PutOptions) -> Result<Entry> {
        Err(reset())
    }
    async fn delete(&self, _: &Key, _: DeleteOptions) -> Result<()> {
        Err(reset())
    }
    async fn stat(&self, _: &Key, _: StatOptions) -> Result<Option<Entry>> {
        Err(reset())
    }
    async fn list(&self, _: ListOptions) -> Result<ListStream> {
        Ok(stream::iter([Err(reset())]).boxed())
    }
}

#[tokio::test]
async fn streams_explain_their_errors_like_calls() {
    let storage = Storage::new(Broken(BackendInfo::new("b", Capabilities::new())));
    assert_eq!(storage.get("k").await.unwrap_err().to_string(), "b: get \"k\": reset");
    let body = storage.open("k", GetOptions::new()).await.unwrap().unwrap().body;
    let item = body.into_stream().next().await.unwrap();
    assert_eq!(item.unwrap_err().to_string(), "b: get \"k\": reset");
    let item = storage.list("").await.unwrap().next().await.unwrap();
    assert_eq!(item.unwrap_err().to_string(), "b: list: reset");
    let item = storage.query(Query::new()).await.unwrap().next().await.unwrap();
    assert_eq!(item.unwrap_err().to_string(), "b: query: reset");
}

#[tokio::test]
async fn a_stored_body_of_another_length_can_be_read_again() {
    for pieces in [vec!["ab"], vec!["ab", "cd"]] {
        let pieces = stream::iter(pieces).map(|piece| Ok(Bytes::from(piece)));
        let error = Body::from_backend(3, pieces).bytes(u64::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_failed_condition_names_the_target() -> Result<()> {
    let storage = Storage::new(Memory::new());
    storage.put("a", "1").await?;
    storage.put("b", "2").await?;
    let copy = CopyOptions::new().condition(Condition::IfAbsent);
    let rename = RenameOptions::new().condition(Condition::IfAbsent);
    for error in [storage.copy_with("a", "b", copy).await, storage.rename_with("a", "b", rename).await] {
        assert_eq!(error.unwrap_err().key().unwrap().as_str(), "b");
    }
    for error in [storage.copy("x", "b").await, storage.rename("x", "b").await] {
        assert_eq!(error.unwrap_err().key().unwrap().as_str(), "x");
    }
    Ok(())
}

#[tokio::test]
async fn closing_a_transaction_leaves_the_storage_open_and_closing_the_storage_closes_both() -> Result<()> {
    let storage = Storage::new(Memory::new());
    let tx = storage.begin().await?;
    // Whether or not a transaction can be disconnected, the storage it began on cannot be by it.
    let _ = tx.disconnect().await;
    assert_eq!(tx.put("a", "1").await.unwrap_err().kind(), ErrorKind::Closed);
    storage.put("a", "1").await?;
    let tx = storage.begin().await?;
    storage.disconnect().await?;
    assert_eq!(tx.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(storage.put("", "").await.unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}

#[test]
fn metadata_is_an_object_and_nothing_else() {
    for json in [r#"["text/plain",{"a":1},["t"]]"#, "null", "1", "", r#"{"content_type":1}"#, r#"{"more":1}"#] {
        assert_eq!(Metadata::from_json(json).unwrap_err().kind(), ErrorKind::Corrupt, "{json}");
    }
}

#[test]
fn a_query_about_the_time_before_1970_is_refused() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let query = Query::new().filter(Filter::ModifiedAfter(before));
    assert_eq!(query.validate().unwrap_err().kind(), ErrorKind::InvalidInput);
}
