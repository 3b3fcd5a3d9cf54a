//! Which queries the store below answers, and that the answers are the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::TryStreamExt;
use storage_config::DataKey;
use storage_conformance::Recorder;
use storage_core::{Entry, Filter, Metadata, OrderBy, PutOptions, Query, Result, Storage};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_memory::Memory;

fn layer(sealed: bool) -> EncryptLayer {
    let keys = StaticKeys::new("k", &DataKey::new([1; 32])).unwrap();
    EncryptLayer::new(keys).encrypt_metadata(sealed)
}

async fn keys(storage: &Storage, query: Query) -> Result<Vec<String>> {
    let found: Vec<Entry> = storage.query(query).await?.try_collect().await?;
    assert!(found.iter().all(|entry| entry.metadata.is_some()));
    Ok(found.into_iter().map(|entry| entry.key.as_str().to_owned()).collect())
}

#[tokio::test]
async fn plain_metadata_is_queried_below_and_sizes_above() -> Result<()> {
    let memory = Memory::new();
    let recorder = Recorder::new(memory.clone());
    let log = recorder.log();
    let above = Storage::new(recorder).layer(layer(false));
    for i in 0..20_i64 {
        let metadata = Metadata::new().field("n", i).tag(if i % 2 == 0 { "even" } else { "odd" });
        let value = vec![0; 2 * usize::try_from(i).unwrap()];
        above.put_with(format!("k{i:02}"), value, PutOptions::new().metadata(metadata)).await?;
    }
    let even = || Query::new().filter(Filter::AnyTag(["even".to_owned()].into()));
    let by_field = || OrderBy::Field("n".into());
    let _ = log.take();
    assert_eq!(keys(&above, even().prefix("k0").limit(3)).await?, ["k00", "k02", "k04"]);
    assert_eq!(keys(&above, even().descending(by_field()).limit(2)).await?, ["k18", "k16"]);
    assert_eq!(log.take(), ["query", "query", "query", "query"], "each looks whether any metadata is encrypted");
    // What lies below is larger than 4 bytes.
    assert_eq!(keys(&above, even().filter(Filter::MaxSize(4))).await?, ["k00", "k02"]);
    assert_eq!(keys(&above, even().descending(OrderBy::Size).limit(1)).await?, ["k18"]);
    assert!(!log.take().contains(&"query"), "sizes are those of the plain values");
    // A value of before, with encrypted metadata, is no less an answer; then the store below cannot give it.
    let sealed = Storage::new(memory.clone()).layer(layer(true));
    let metadata = Metadata::new().field("n", 100).tag("even");
    sealed.put_with("sealed", "v", PutOptions::new().metadata(metadata)).await?;
    assert_eq!(keys(&above, even().descending(by_field()).limit(2)).await?, ["sealed", "k18"]);
    assert_eq!(keys(&above, even().prefix("s")).await?, ["sealed"]);
    let _ = log.take();
    assert_eq!(keys(&above, even().prefix("k0").limit(1)).await?, ["k00"]);
    assert_eq!(log.take(), ["query", "query"], "none under this prefix");
    // A damaged entry does not count, nor does it take a place.
    let found = Storage::new(memory.clone());
    let metadata = Metadata::new().field("n", 0).tag("even");
    found.put_with("k00", "short", PutOptions::new().metadata(metadata)).await?;
    assert_eq!(keys(&above, even().prefix("k").limit(2)).await?, ["k02", "k04"]);
    // Encrypted metadata is queried above.
    let _ = log.take();
    let all_sealed = Recorder::new(Memory::new());
    let log = all_sealed.log();
    let above = Storage::new(all_sealed).layer(layer(true));
    above.put_with("k", "v", PutOptions::new().metadata(Metadata::new().tag("even"))).await?;
    assert_eq!(keys(&above, even()).await?, ["k"]);
    assert!(!log.take().contains(&"query"));
    Ok(())
}
