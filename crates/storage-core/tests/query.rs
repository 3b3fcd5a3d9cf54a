//! The reference evaluator against an oracle written down once more, as plainly as possible.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    cmp::Ordering,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{Comparison, Continuation, Entry, ErrorKind, FieldValue, Filter, Key, Metadata, OrderBy, Query};

const SEED: u64 = 0x5eed;

fn entry(key: &str, size: u64, metadata: Metadata) -> Entry {
    let mut entry = Entry::new(Key::parse(key).unwrap(), size);
    entry.metadata = Some(Arc::new(metadata));
    entry
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789)
}

async fn answer(query: &Query, entries: &[Entry]) -> Vec<Entry> {
    let listing: Vec<_> = entries.iter().cloned().map(Ok).collect();
    let answer = query.clone().evaluate(stream::iter(listing).boxed()).await;
    answer.unwrap().try_collect().await.unwrap()
}

/// One of each type and some more, in the order that `OrderBy::Field` documents.
fn values() -> Vec<FieldValue> {
    vec![
        FieldValue::Null,
        false.into(),
        true.into(),
        i64::MIN.into(),
        0.into(),
        1.into(),
        i64::MAX.into(),
        (-1e300).into(),
        0.0.into(),
        1.0.into(),
        1.5.into(),
        "".into(),
        "1".into(),
        "a".into(),
        "true".into(),
        "é".into(),
    ]
}

fn same_type(a: &FieldValue, b: &FieldValue) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

#[test]
fn every_comparison_of_every_pair_of_types() {
    let values = values();
    for (i, field) in values.iter().enumerate() {
        for (j, value) in values.iter().enumerate() {
            let ordered = same_type(field, value);
            let order = i.cmp(&j);
            for comparison in Comparison::ALL {
                let expected = match comparison {
                    Comparison::Equal => order.is_eq(),
                    Comparison::NotEqual => order.is_ne(),
                    Comparison::Less => ordered && order.is_lt(),
                    Comparison::LessOrEqual => ordered && order.is_le(),
                    Comparison::Greater => ordered && order.is_gt(),
                    Comparison::GreaterOrEqual => ordered && order.is_ge(),
                    other => panic!("{other:?} is not tested"),
                };
                let seen = comparison.holds(field, value);
                assert_eq!(seen, expected, "{field} {comparison:?} {value}");
            }
        }
    }
    assert!(Comparison::Equal.holds(&(-0.0).into(), &0.0.into()));
}

#[tokio::test]
async fn a_missing_field_matches_no_comparison() {
    let entries = [entry("k", 0, Metadata::new().field("other", 1))];
    let mut bare = Entry::new(Key::parse("bare").unwrap(), 0);
    bare.metadata = None;
    for comparison in Comparison::ALL {
        for value in values() {
            let query = Query::new().field("f", comparison, value);
            assert!(answer(&query, &entries).await.is_empty());
            assert!(!query.matches(&bare));
        }
    }
}

#[tokio::test]
async fn the_other_filters() {
    let mut full = entry("a%/1", 10, Metadata::new().content_type("text/plain").tag("x").tag("y"));
    (full.created, full.modified) = (Some(at(10)), Some(at(20)));
    let bare = entry("a/2", 0, Metadata::new());
    let entries = [full, bare];
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    for (query, expected) in [
        (Query::new(), &["a%/1", "a/2"] as &[&str]),
        (Query::new().prefix("a%"), &["a%/1"]),
        (Query::new().prefix("a_"), &[]),
        (Query::new().filter(Filter::ContentType("text/plain".into())), &["a%/1"]),
        (Query::new().filter(Filter::ContentType("text".into())), &[]),
        (Query::new().filter(Filter::AnyTag(tags(&["z", "y"]))), &["a%/1"]),
        (Query::new().filter(Filter::AnyTag(tags(&["z"]))), &[]),
        (Query::new().filter(Filter::AnyTag(tags(&[]))), &[]),
        (Query::new().all_tags(["x", "y"]), &["a%/1"]),
        (Query::new().all_tags(["x", "z"]), &[]),
        (Query::new().filter(Filter::AllTags(tags(&[]))), &["a%/1", "a/2"]),
        (Query::new().filter(Filter::MinSize(10)), &["a%/1"]),
        (Query::new().filter(Filter::MinSize(11)), &[]),
        (Query::new().filter(Filter::MaxSize(9)), &["a/2"]),
        (Query::new().filter(Filter::MaxSize(10)), &["a%/1", "a/2"]),
        (Query::new().filter(Filter::CreatedAfter(at(9))), &["a%/1"]),
        (Query::new().filter(Filter::CreatedAfter(at(10))), &[]),
        (Query::new().filter(Filter::CreatedBefore(at(10))), &[]),
        (Query::new().filter(Filter::CreatedBefore(at(11))), &["a%/1"]),
        (Query::new().filter(Filter::ModifiedAfter(at(19))), &["a%/1"]),
        (Query::new().filter(Filter::ModifiedAfter(at(20))), &[]),
        (Query::new().filter(Filter::ModifiedBefore(at(20))), &[]),
        (Query::new().filter(Filter::ModifiedBefore(at(21))), &["a%/1"]),
        (Query::new().any_tag(["x"]).filter(Filter::MaxSize(5)), &[]),
        (Query::new().limit(0), &[]),
        (Query::new().limit(1), &["a%/1"]),
        (Query::new().limit(1).descending(OrderBy::Key), &["a/2"]),
    ] {
        let answer = answer(&query, &entries).await;
        let keys: Vec<&str> = answer.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, expected, "{query:?}");
    }
}

/// Many equal ranks, some missing.
fn random_entries(random: &mut fastrand::Rng) -> Vec<Entry> {
    let values = values();
    (0..60)
        .map(|n| {
            let mut metadata = Metadata::new();
            if random.u8(0..5) > 0 {
                metadata = metadata.field("f", random.choice(&values).unwrap().clone());
            }
            let mut entry = entry(&format!("{n:03}"), random.u64(0..4), metadata);
            let mut time = || random.bool().then(|| at(random.u64(0..4)));
            (entry.created, entry.modified) = (time(), time());
            entry
        })
        .collect()
}

fn orders() -> [OrderBy; 6] {
    [
        OrderBy::Key,
        OrderBy::Size,
        OrderBy::Created,
        OrderBy::Modified,
        OrderBy::Field("f".into()),
        OrderBy::Field("missing".into()),
    ]
}

/// The order of `values` as positions, which the evaluator must agree with.
fn oracle(by: &OrderBy, a: &Entry, b: &Entry) -> Ordering {
    let values = values();
    let field = |entry: &Entry, name: &str| {
        let value = entry.metadata.as_ref()?.fields.get(name)?;
        values.iter().position(|v| v == value)
    };
    match by {
        OrderBy::Key => a.key.cmp(&b.key),
        OrderBy::Size => a.size.cmp(&b.size),
        OrderBy::Created => a.created.cmp(&b.created),
        OrderBy::Modified => a.modified.cmp(&b.modified),
        OrderBy::Field(name) => field(a, name).cmp(&field(b, name)),
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn order_ties_and_continuations() {
    println!("seed {SEED:#x}");
    let mut random = fastrand::Rng::with_seed(SEED);
    for round in 0..20 {
        let entries = random_entries(&mut random);
        for (by, descending) in orders().into_iter().flat_map(|by| [(by.clone(), false), (by, true)]) {
            let query =
                if descending { Query::new().descending(by.clone()) } else { Query::new().ascending(by.clone()) };
            let mut expected = entries.clone();
            // A stable sort keeps the ascending keys of ties, in both directions.
            expected.sort_by(|a, b| {
                let order = oracle(&by, a, b);
                if descending { order.reverse() } else { order }
            });
            assert_eq!(answer(&query, &entries).await, expected, "round {round} {query:?}");

            let mut page = query.clone().limit(random.usize(1..10));
            let mut paged = Vec::new();
            // Not an endless loop, should a page begin with what the last one ended with.
            while paged.len() <= expected.len() {
                let found = answer(&page, &entries).await;
                let Some(last) = found.last() else { break };
                let json = serde_json::to_string(&page.continuation_after(last)).unwrap();
                let next: Continuation = serde_json::from_str(&json).unwrap();
                assert_eq!(next, page.continuation_after(last), "{json}");
                page = page.continuation(next);
                page.validate().unwrap();
                paged.extend(found);
            }
            assert_eq!(paged, expected, "round {round} {page:?}");
        }
    }
}

#[tokio::test]
async fn a_page_goes_on_when_its_last_entry_is_gone() {
    let entries: Vec<Entry> = ["a", "b", "c"].map(|key| entry(key, 1, Metadata::new())).into();
    let query = Query::new().descending(OrderBy::Size);
    let next = query.continuation_after(&entries[1]);
    let rest = answer(&query.continuation(next), &[entries[0].clone(), entries[2].clone()]).await;
    assert_eq!(rest, [entries[2].clone()]);
}

#[test]
fn queries_without_meaning_are_refused() {
    let entry = entry("k", 1, Metadata::new());
    let by_size = Query::new().ascending(OrderBy::Size).continuation_after(&entry);
    let wrong = [
        Query::new().continuation(by_size.clone()),
        Query::new().descending(OrderBy::Size).continuation(by_size.clone()),
        Query::new().ascending(OrderBy::Field("f".into())).continuation(by_size.clone()),
        Query::new().equals("f", f64::NAN),
        Query::new().field("f", Comparison::Less, f64::INFINITY),
        Query::new().equals("f\0", 1),
        Query::new().equals("f", "\0"),
        Query::new().any_tag(["\0"]),
        Query::new().all_tags(["\0"]),
        Query::new().filter(Filter::ContentType("\0".into())),
        Query::new().ascending(OrderBy::Field("\0".into())),
    ];
    for query in wrong {
        assert_eq!(query.validate().unwrap_err().kind(), ErrorKind::InvalidInput, "{query:?}");
    }
    let error = Query::new().prefix("\0").validate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    let right = Query::new().ascending(OrderBy::Size).continuation(by_size);
    right.validate().unwrap();
}

#[test]
fn a_query_travels_as_json() {
    let mut query = Query::new()
        .prefix("a/\"")
        .equals("float", 1e300)
        .equals("zero", -0.0)
        .equals("int", i64::MIN)
        .equals("null", FieldValue::Null)
        .any_tag(["a", "b"])
        .all_tags(["c"])
        .filter(Filter::ContentType("text/plain".into()))
        .filter(Filter::MinSize(u64::MAX))
        .filter(Filter::MaxSize(0))
        .filter(Filter::ModifiedAfter(at(1)))
        .filter(Filter::ModifiedBefore(at(2)))
        .filter(Filter::CreatedAfter(at(3)))
        .filter(Filter::CreatedBefore(at(4)))
        .limit(7);
    for comparison in Comparison::ALL {
        query = query.field("f", comparison, true);
    }
    let entry = entry("k", 3, Metadata::new().field("f", 0.1));
    for by in orders() {
        let query = query.clone().descending(by);
        let next = query.continuation_after(&entry);
        let query = query.continuation(next);
        let json = serde_json::to_string(&query).unwrap();
        assert_eq!(serde_json::from_str::<Query>(&json).unwrap(), query, "{json}");
    }
    assert_eq!(serde_json::from_str::<Query>("{}").unwrap(), Query::new());
    for wrong in [r#"{"prefx":""}"#, r#"{"continuation":{"order":{},"sort_key":"missing","key":""}}"#] {
        assert!(serde_json::from_str::<Query>(wrong).is_err(), "{wrong}");
    }
}
