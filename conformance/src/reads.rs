//! Every way to read while something below it fails: what comes without an error must be all there is.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use storage_core::{Entry, GetOptions, ListItem, ListOptions, Metadata, Order, OrderBy, Query, Result, Storage};

use crate::{
    Context, Outcome,
    assert::{brief, expect},
    support::{noise, with_on},
    writes::CALLS,
};

/// Keys that listings and answers show.
const KEYS: usize = 12;

/// Bytes of a value that a store may read in pieces.
const LARGE: u64 = 200_000;

type Read = fn(Storage) -> BoxFuture<'static, Result<String>>;

/// Ways to read, each with what it makes of the store in a text.
const READS: [(&str, Read); 16] = [
    ("a get", |s| async move { Ok(format!("{:?}", s.get("k/03").await?)) }.boxed()),
    ("a get of a large value", |s| async move { Ok(format!("{:?}", s.get("large").await?.map(|v| v.len()))) }.boxed()),
    ("a get of a range", |s| {
        let len = s.info().limits.value.min(LARGE);
        let range = GetOptions::new().range(len / 4..len / 2);
        async move { Ok(format!("{:?}", s.get_with("large", range).await?.map(|value| value.len()))) }.boxed()
    }),
    ("a get of an absent key", |s| async move { Ok(format!("{:?}", s.get("absent").await?)) }.boxed()),
    ("a stat", |s| async move { Ok(told(s.stat("k/03").await?.into_iter().collect())) }.boxed()),
    ("a stat of an absent key", |s| async move { Ok(format!("{:?}", s.stat("absent").await?)) }.boxed()),
    ("has", |s| async move { Ok(format!("{:?}", (s.has("k/03").await?, s.has("absent").await?))) }.boxed()),
    ("a batch of gets", |s| async move { Ok(format!("{:?}", s.get_batch(["k/03", "absent", "k/04"]).await?)) }.boxed()),
    ("a listing", |s| async move { Ok(told(s.list("k/").await?.try_collect().await?)) }.boxed()),
    ("a listing with metadata", |s| shown(s, ListOptions::new().prefix("k/").metadata(true)).boxed()),
    ("a listing of one level", |s| shown(s, ListOptions::new().delimited(true)).boxed()),
    ("a page of a listing", |s| shown(s, ListOptions::new().start_after("k/02").limit(5)).boxed()),
    ("a sorted listing", |s| {
        async move {
            let order = Order { by: OrderBy::Size, descending: true };
            let items: Vec<ListItem> = s.list_sorted(ListOptions::new(), order).await?.try_collect().await?;
            Ok(format!("{:?}", items.iter().map(ListItem::position).collect::<Vec<_>>()))
        }
        .boxed()
    }),
    ("an answer", |s| async move { Ok(told(s.query(Query::new().prefix("k/")).await?.try_collect().await?)) }.boxed()),
    ("an answer to a filter", |s| {
        async move { Ok(told(s.query(Query::new().equals("odd", true)).await?.try_collect().await?)) }.boxed()
    }),
    ("versions", |s| {
        async move {
            if !s.info().capabilities.versioning {
                return Ok(String::new());
            }
            let versions: Vec<Entry> = s.versions("k/01").await?.try_collect().await?;
            Ok(format!("{:?}", versions.iter().map(|entry| &entry.version).collect::<Vec<_>>()))
        }
        .boxed()
    }),
];

fn told(entries: Vec<Entry>) -> String {
    format!("{:?}", entries.iter().map(|entry| (entry.key.as_str(), entry.size, &entry.metadata)).collect::<Vec<_>>())
}

async fn shown(s: Storage, options: ListOptions) -> Result<String> {
    let items: Vec<ListItem> = s.list_with(options).await?.try_collect().await?;
    let told = items.into_iter().map(|item| match item {
        ListItem::Prefix(prefix) => prefix,
        ListItem::Entry(entry) => told(vec![entry]),
        other => format!("{other:?}"),
    });
    Ok(told.collect::<Vec<_>>().join(" "))
}

/// Lets the first call below fail, then the second, and so on, for every way to read. `plant` does so; `forget` ends it, and
/// says whether anything failed. `how` completes "a listing, call 3 below …".
pub(crate) async fn each_read_is_honest(
    c: &Context,
    how: &str,
    plant: impl Fn(usize),
    forget: impl Fn() -> bool,
) -> Outcome {
    let s = &c.storage;
    for i in 0..KEYS {
        let odd = Metadata::new().field("odd", i % 2 == 1);
        s.put_with(format!("k/{i:02}"), format!("{i}").repeat(i + 1), with_on(s, odd)).await?;
    }
    for n in 0..5 {
        s.put("k/01", format!("version {n}")).await?;
    }
    s.put_with(
        "large",
        noise(s.info().limits.value.min(LARGE) as usize, 1),
        with_on(s, Metadata::new().field("odd", true)),
    )
    .await?;
    for (what, read) in READS {
        let expected = read(s.clone()).await?;
        for call in 0..CALLS {
            c.calls().case();
            plant(call);
            let result = read(s.clone()).await;
            let struck = forget();
            let honest = match &result {
                Ok(seen) => *seen == expected,
                Err(e) => e.is_retryable() && !e.is_ambiguous(),
            };
            expect(honest, || {
                let (expected, seen, call) = (brief(&expected), brief(&result), call + 1);
                format!(
                    "{what}, call {call} below {how}: expected a definite error to try again, or {expected}, saw {seen}"
                )
            })?;
            if !struck {
                break;
            }
        }
    }
    Ok(())
}
