//! Queries: the same answers as the evaluator in the core gives over the same entries.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use storage_core::{
    Comparison, Continuation, Entry, FieldValue, Filter, ListItem, ListOptions, Metadata, OrderBy, PutOptions, Query,
    Storage,
};
use support::{Engine, Place};

const NAMES: [&str; 6] = ["a", "pages", "we\"ird.na[0]me", "' OR 1=1 --", "ß", "?"];
const TEXTS: [&str; 9] = ["", "a", "B", "b", "ä", "1", "true", "%", "'; DROP TABLE storage; --"];

fn value(random: &mut fastrand::Rng) -> FieldValue {
    match random.u8(..9) {
        0 => FieldValue::Null,
        1 => random.bool().into(),
        2 => i64::from(random.i8(-2..3)).into(),
        3 => random.choice([i64::MAX, i64::MAX - 1, i64::MIN, 1 << 53, (1 << 53) + 1]).unwrap().into(),
        4 => random.choice([0.0, -0.0, 1.0, 1.5, -2.0]).unwrap().into(),
        5 => random.choice([f64::MAX, f64::MIN_POSITIVE, 5e-324, 9007199254740993.0, 0.1 + 0.2]).unwrap().into(),
        _ => (*random.choice(&TEXTS).unwrap()).into(),
    }
}

fn metadata(random: &mut fastrand::Rng) -> Metadata {
    let mut metadata = Metadata::new();
    for name in NAMES {
        if random.bool() {
            metadata = metadata.field(name, value(random));
        }
    }
    for tag in TEXTS {
        if random.u8(..3) == 0 {
            metadata = metadata.tag(tag);
        }
    }
    if random.bool() {
        metadata = metadata.content_type(*random.choice(&["text/plain", "Text/Plain", "a"]).unwrap());
    }
    metadata
}

fn moment(random: &mut fastrand::Rng, entries: &[Entry]) -> SystemTime {
    let at = entries[random.usize(..entries.len())].modified.unwrap();
    match random.u8(..5) {
        0 => at + Duration::from_nanos(1),
        1 => at - Duration::from_nanos(1),
        2 => SystemTime::UNIX_EPOCH + Duration::from_nanos(1500),
        _ => at,
    }
}

fn filter(random: &mut fastrand::Rng, entries: &[Entry]) -> Filter {
    let tags =
        |random: &mut fastrand::Rng| (0..random.usize(..4)).map(|_| (*random.choice(&TEXTS).unwrap()).into()).collect();
    match random.u8(..14) {
        0 => Filter::AnyTag(tags(random)),
        1 => Filter::AllTags(tags(random)),
        2 => Filter::ContentType("text/plain".into()),
        3 => Filter::MinSize(random.choice([0, 3, u64::MAX]).unwrap()),
        4 => Filter::MaxSize(random.choice([0, 5, u64::MAX]).unwrap()),
        5 => Filter::ModifiedAfter(moment(random, entries)),
        6 => Filter::ModifiedBefore(moment(random, entries)),
        7 => Filter::CreatedAfter(moment(random, entries)),
        8 => Filter::CreatedBefore(moment(random, entries)),
        _ => Filter::Field {
            name: (*random.choice(&NAMES).unwrap()).into(),
            comparison: random.choice(Comparison::ALL).unwrap(),
            value: value(random),
        },
    }
}

fn order(random: &mut fastrand::Rng) -> OrderBy {
    match random.u8(..8) {
        0 => OrderBy::Key,
        1 => OrderBy::Size,
        2 => OrderBy::Created,
        3 => OrderBy::Modified,
        _ => OrderBy::Field((*random.choice(&NAMES).unwrap()).into()),
    }
}

async fn answer(storage: &Storage, query: Query) -> Vec<Entry> {
    storage.query(query).await.unwrap().try_collect().await.unwrap()
}

fn oracle(query: &Query, entries: &[Entry]) -> Vec<Entry> {
    let mut expected: Vec<Entry> =
        entries.iter().filter(|entry| query.matches(entry) && query.continues_with(entry)).cloned().collect();
    expected.sort_by(|a, b| query.compare(a, b));
    expected.truncate(query.limit.unwrap_or(usize::MAX));
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_agree_with_the_core() {
    for place in Place::all() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        eprintln!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut config = place.config();
        config.indexes = [NAMES[0], NAMES[2]].map(String::from).into();
        let storage = place.connect(config).await;
        for i in 0..260 {
            let key = format!("{}{}", random.choice(["a/", "a%", "A/", "_", "é"]).unwrap(), i % 230);
            let options = PutOptions::new().metadata(metadata(&mut random));
            storage.put_with(key, vec![0; random.usize(..7)], options).await.unwrap();
        }
        let listing = storage.list_with(ListOptions::new().metadata(true)).await.unwrap();
        let items: Vec<ListItem> = listing.try_collect().await.unwrap();
        let entries: Vec<Entry> = items.into_iter().filter_map(ListItem::into_entry).collect();

        let mut matched = 0;
        let rounds = if place.engine == Engine::Sqlite { 1500 } else { 400 };
        for _ in 0..rounds {
            let mut query = Query::new().prefix(*random.choice(&["", "", "a", "a/", "a%", "é"]).unwrap());
            for _ in 0..random.usize(..3) {
                query = query.filter(filter(&mut random, &entries));
            }
            query.order.by = order(&mut random);
            query.order.descending = random.bool();
            if random.u8(..4) == 0 {
                query = query.limit(random.usize(..6));
            }
            if random.bool() {
                // From anywhere, not only from an entry that the query would have returned.
                let from = &entries[random.usize(..entries.len())];
                let continuation = Continuation::after(&query.order, from);
                query = query.continuation(continuation);
            }
            let (expected, seen) = (oracle(&query, &entries), answer(&storage, query.clone()).await);
            assert_eq!(seen, expected, "{query:?}");
            matched += seen.len();
        }
        assert!(matched > rounds * 6, "the queries hardly match anything: {matched}");
    }
}

#[tokio::test]
async fn continuations_that_the_entry_does_not_have() {
    for place in Place::all() {
        let storage = place.open().await;
        for (i, key) in ["a", "b", "c"].into_iter().enumerate() {
            let options = PutOptions::new().metadata(Metadata::new().field("f", i as i64));
            storage.put_with(key, vec![0; i], options).await.unwrap();
        }
        let listing = storage.list_with(ListOptions::new().metadata(true)).await.unwrap();
        let entries: Vec<Entry> = listing.map_ok(|item| item.into_entry().unwrap()).try_collect().await.unwrap();
        // Ranks as they stand in the serialized form: a continuation comes from the outside.
        let sort_keys = [
            r#""missing""#.to_owned(),
            r#""null""#.into(),
            r#"{"bool":true}"#.into(),
            r#"{"size":1}"#.into(),
            r#"{"size":18446744073709551615}"#.into(),
            r#"{"int":1}"#.into(),
            r#"{"float":1.0}"#.into(),
            r#"{"string":"x"}"#.into(),
            r#"{"time":{"secs_since_epoch":1,"nanos_since_epoch":1}}"#.into(),
            r#"{"time":{"secs_since_epoch":99999999999,"nanos_since_epoch":0}}"#.into(),
        ];
        let orders = [OrderBy::Key, OrderBy::Size, OrderBy::Created, OrderBy::Modified, OrderBy::Field("f".into())];
        for by in orders {
            for descending in [false, true] {
                for sort_key in &sort_keys {
                    let mut query = Query::new();
                    query.order.by = by.clone();
                    query.order.descending = descending;
                    let order = serde_json::to_string(&query.order).unwrap();
                    let json = format!(r#"{{"order":{order},"sort_key":{sort_key},"key":"b"}}"#);
                    query.continuation = Some(serde_json::from_str(&json).unwrap());
                    let seen = answer(&storage, query.clone()).await;
                    assert_eq!(seen, oracle(&query, &entries), "{json}");
                }
            }
        }
    }
}

#[tokio::test]
async fn more_filters_than_a_statement_takes() {
    for place in Place::all() {
        let storage = place.open().await;
        let tagged = PutOptions::new().metadata(Metadata::new().tag("t0").field("f", 1));
        storage.put_with("k", "v", tagged).await.unwrap();
        storage.put("other", "v").await.unwrap();
        let mut query = Query::new();
        for i in 0..2000 {
            query = query.field("f", Comparison::NotEqual, -i);
        }
        assert_eq!(answer(&storage, query).await.len(), 1);
        let query = Query::new().any_tag((0..50_000).map(|i| format!("t{i}")));
        assert_eq!(answer(&storage, query).await.len(), 1);
    }
}

#[tokio::test]
async fn pages_of_a_long_answer() {
    for place in Place::all() {
        let storage = place.open().await;
        let items: Vec<_> = (0..1234).map(|i| (format!("{i:05}"), vec![0; i % 3])).collect();
        storage.put_batch(items).await.unwrap();
        for (by, descending) in [(OrderBy::Key, true), (OrderBy::Size, false), (OrderBy::Field("no".into()), true)] {
            let mut query = Query::new();
            (query.order.by, query.order.descending) = (by, descending);
            let seen = answer(&storage, query.clone()).await;
            assert_eq!(seen.len(), 1234);
            assert!(seen.is_sorted_by(|a, b| query.compare(a, b).is_lt()));
        }
    }
}
