//! How many requests each operation costs, counted by a proxy before the emulator.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::TryStreamExt;
use storage_core::{Condition, GetOptions, ListOptions, Metadata, PutOptions, Storage};

use crate::container::{Container, is_there};

#[tokio::test]
async fn operations_cost_what_the_readme_says() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let mut config = container.config();
    // The emulator deletes 1,000 blobs one after the other.
    config.http.timeout = std::time::Duration::from_secs(30);
    let storage = Storage::new(storage_azure::connect(config).await.unwrap());
    let keys = |n: usize| (0..n).map(|i| format!("batch/{i:04}")).collect::<Vec<_>>();
    let items = |n: usize| keys(n).into_iter().map(|key| (key, "v")).collect::<Vec<_>>();
    storage.put_batch(items(1500)).await.unwrap();
    let described = PutOptions::new().metadata(Metadata::new().tag("t").field("n", 1));
    let etag = storage.put_with("k", "v", described).await.unwrap().etag.unwrap();
    macro_rules! costs {
        ($what:literal, $expected:literal, $operation:expr) => {{
            let before = container.proxy.requests();
            let _ = $operation.await.unwrap();
            assert_eq!(container.proxy.requests() - before, $expected, $what);
        }};
    }
    let all = |options| async { storage.list_with(options).await?.try_collect::<Vec<_>>().await };
    costs!("get", 1, storage.get("k"));
    costs!("get of a part", 1, storage.get_with("k", GetOptions::new().range(0..1)));
    costs!("get of the last bytes", 2, {
        let mut last = GetOptions::new();
        last.range = Some(storage_core::ByteRange::Suffix(1));
        storage.get_with("k", last)
    });
    costs!("get of nothing", 1, storage.get("nothing"));
    costs!("stat", 1, storage.stat("k"));
    costs!("put", 1, storage.put("put", "v"));
    let absent = || PutOptions::new().condition(Condition::IfAbsent);
    costs!("create", 1, storage.put_with("new", "v", absent()));
    let update = PutOptions::new().condition(Condition::IfMatch(etag));
    costs!("update", 1, storage.put_with("k", "w", update));
    costs!("put of 3 parts", 4, storage.put("large", vec![7; 12 << 20]));
    costs!("delete", 1, storage.delete("new"));
    costs!("delete of nothing", 1, storage.delete("nothing"));
    costs!("copy", 2, storage.copy("k", "copy"));
    costs!("listing of 2 pages", 2, all(ListOptions::new()));
    costs!("listing of 2 pages with a prefix", 3, all(ListOptions::new().prefix("batch/")));
    costs!("one level", 2, all(ListOptions::new().delimited(true)));
    costs!("10 entries with metadata", 12, all(ListOptions::new().prefix("batch/000").metadata(true)));
    costs!("batch of 1,000 deletes", 4, storage.delete_batch(keys(1000)));
    costs!("clear of 500", 4, storage.clear_prefix("batch/"));
}
