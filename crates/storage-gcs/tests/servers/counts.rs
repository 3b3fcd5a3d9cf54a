//! How many requests each operation costs, counted by a proxy before the translator.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::TryStreamExt;
use storage_core::{Condition, GetOptions, ListOptions, Metadata, PutOptions};

use crate::bucket::{Bucket, is_there};

#[tokio::test]
async fn operations_cost_what_the_readme_says() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let storage = bucket.open().await;
    let keys = |n: usize| (0..n).map(|i| format!("batch/{i:04}")).collect::<Vec<_>>();
    let items = |n: usize| keys(n).into_iter().map(|key| (key, "v")).collect::<Vec<_>>();
    storage.put_batch(items(1500)).await.unwrap();
    let described = PutOptions::new().metadata(Metadata::new().tag("t").field("n", 1));
    let etag = storage.put_with("k", "v", described).await.unwrap().etag.unwrap();
    macro_rules! costs {
        ($what:literal, $expected:expr, $operation:expr) => {{
            let before = bucket.proxy.requests();
            let _ = $operation.await;
            assert_eq!(bucket.proxy.requests() - before, $expected, $what);
        }};
    }
    let all = |options| async { storage.list_with(options).await?.try_collect::<Vec<_>>().await };
    costs!("get", 1, storage.get("k"));
    costs!("get of a part", 1, storage.get_with("k", GetOptions::new().range(0..1)));
    costs!("get of nothing", 1, storage.get("nothing"));
    costs!("get under a condition", 2, storage.get_with("k", GetOptions::new().if_match(etag.clone())));
    costs!("get of what is known", 1, storage.get_with("k", GetOptions::new().if_none_match(etag.clone())));
    costs!("stat", 1, storage.stat("k"));
    costs!("put", 1, storage.put("put", "v"));
    let absent = || PutOptions::new().condition(Condition::IfAbsent);
    costs!("create", 1, storage.put_with("new", "v", absent()));
    let update = PutOptions::new().condition(Condition::IfMatch(etag));
    costs!("update", 1, storage.put_with("k", "w", update));
    costs!("put of 3 parts", 6, storage.put("large", vec![7; 12 << 20]));
    costs!("delete", 1, storage.delete("new"));
    costs!("copy", 2, storage.copy("k", "copy"));
    costs!("listing of 2 pages", 2, all(ListOptions::new()));
    costs!("listing of 2 pages with a prefix", 3, all(ListOptions::new().prefix("batch/")));
    costs!("one level", 2, all(ListOptions::new().delimited(true)));
    costs!("10 entries with metadata", 12, all(ListOptions::new().prefix("batch/000").metadata(true)));
    costs!("batch of 1,000 deletes", 1000, storage.delete_batch(keys(1000)));
    costs!("clear of 500", 502, storage.clear_prefix("batch/"));
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "w");
}
