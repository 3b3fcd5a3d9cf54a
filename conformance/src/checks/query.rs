//! Questions about metadata: the answer is that of the reference evaluator.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{BatchOptions, Comparison, Entry, ErrorKind, FieldValue, Filter, Metadata, OrderBy, Query, Storage};

use crate::{
    Context, Failure, Outcome,
    assert::{expect_eq, expect_kind},
    calls, model,
    shrink::{lines, shortest},
    support::{entry, with},
};

/// Each comparison, on each type of field.
/// Profile: full
pub async fn comparisons(c: Context) -> Outcome {
    let data = fill(&c.storage, every_type()).await?;
    let values: [FieldValue; 12] = [
        FieldValue::Null,
        false.into(),
        true.into(),
        0.into(),
        1.into(),
        i64::MAX.into(),
        (-1.0).into(),
        0.0.into(),
        1.0.into(),
        "".into(),
        "b".into(),
        "é".into(),
    ];
    for value in values {
        for comparison in Comparison::ALL {
            agrees(&c.storage, &data, Query::new().field("f", comparison, value.clone())).await?;
        }
    }
    Ok(())
}

/// `1`, `1.0`, `"1"` and `true` are four values; none equals another, and none is ordered against another.
/// Profile: full
pub async fn typed_equality(c: Context) -> Outcome {
    let fields: [(&str, FieldValue); 8] = [
        ("int", 1.into()),
        ("float", 1.0.into()),
        ("text", "1".into()),
        ("true", true.into()),
        ("text float", "1.0".into()),
        ("text true", "true".into()),
        ("null", FieldValue::Null),
        ("text null", "null".into()),
    ];
    let mut data = BTreeMap::new();
    for (name, value) in fields.clone() {
        data.insert(name.to_owned(), Metadata::new().field("f", value));
    }
    let data = fill(&c.storage, data).await?;
    for (name, value) in fields {
        let seen = answer(&c.storage, Query::new().equals("f", value.clone())).await?;
        expect_eq(&format!("the keys with f equal to {value:?}"), names(&seen), [name])?;
        for comparison in Comparison::ALL {
            agrees(&c.storage, &data, Query::new().field("f", comparison, value.clone())).await?;
        }
    }
    Ok(())
}

/// A field that is missing matches no comparison, not even `NotEqual`; a null field is not missing.
/// Profile: full
pub async fn missing_field_matches_nothing(c: Context) -> Outcome {
    let data = [
        ("absent", Metadata::new()),
        ("null", Metadata::new().field("f", FieldValue::Null)),
        ("one", Metadata::new().field("f", 1)),
        ("other", Metadata::new().field("g", 1)),
    ];
    fill(&c.storage, data.map(|(key, metadata)| (key.to_owned(), metadata)).into()).await?;
    let cases: [(Comparison, FieldValue, &[&str]); 5] = [
        (Comparison::NotEqual, 2.into(), &["null", "one"]),
        (Comparison::NotEqual, 1.into(), &["null"]),
        (Comparison::NotEqual, FieldValue::Null, &["one"]),
        (Comparison::Equal, FieldValue::Null, &["null"]),
        (Comparison::LessOrEqual, 5.into(), &["one"]),
    ];
    for (comparison, value, expected) in cases {
        let what = format!("the keys with f {comparison:?} {value:?}");
        let seen = answer(&c.storage, Query::new().field("f", comparison, value)).await?;
        expect_eq(&what, names(&seen), expected)?;
    }
    Ok(())
}

/// Any of the tags, all of the tags; no tags match nothing, or everything.
/// Profile: full
pub async fn tags(c: Context) -> Outcome {
    let data = [
        ("none", Metadata::new()),
        ("a", Metadata::new().tag("a")),
        ("ab", Metadata::new().tag("a").tag("b")),
        ("abc", Metadata::new().tag("a").tag("b").tag("c")),
        ("A", Metadata::new().tag("A")),
        ("joined", Metadata::new().tag("a,b").tag("a b")),
        ("empty", Metadata::new().tag("")),
    ];
    let data = fill(&c.storage, data.map(|(key, metadata)| (key.to_owned(), metadata)).into()).await?;
    let sets: [&[&str]; 9] = [&[], &["a"], &["b"], &["a", "b"], &["c", "b"], &["A"], &["a,b"], &[""], &["x", "a"]];
    for set in sets {
        agrees(&c.storage, &data, Query::new().any_tag(set.iter().copied())).await?;
        agrees(&c.storage, &data, Query::new().all_tags(set.iter().copied())).await?;
    }
    Ok(())
}

/// The content type is this one, exactly; a value without one has none.
/// Profile: full
pub async fn content_type(c: Context) -> Outcome {
    let types = ["text/plain", "text/plain; charset=utf-8", "TEXT/PLAIN", "text/", "application/octet-stream", ""];
    let mut data: BTreeMap<String, Metadata> = BTreeMap::new();
    for media_type in types {
        data.insert(format!("k {media_type}"), Metadata::new().content_type(media_type));
    }
    data.insert("without".into(), Metadata::new());
    let data = fill(&c.storage, data).await?;
    for media_type in types {
        agrees(&c.storage, &data, Query::new().filter(Filter::ContentType(media_type.into()))).await?;
    }
    Ok(())
}

/// Sizes from and up to, both ends included.
/// Profile: full
pub async fn size_range(c: Context) -> Outcome {
    let mut data = Vec::new();
    for size in [0_usize, 1, 2, 10, 100, 1000] {
        let key = format!("{size}");
        c.storage.put(&key, vec![b'x'; size]).await?;
        data.push(entry(&c.storage, &key).await?);
    }
    for size in [0, 1, 5, 10, 1000, 1001, u64::MAX] {
        agrees(&c.storage, &data, Query::new().filter(Filter::MinSize(size))).await?;
        agrees(&c.storage, &data, Query::new().filter(Filter::MaxSize(size))).await?;
        let both = Query::new().filter(Filter::MinSize(2)).filter(Filter::MaxSize(size));
        agrees(&c.storage, &data, both).await?;
    }
    Ok(())
}

/// Written after and before, first written after and before: the moment itself is outside.
/// Profile: full
pub async fn dates(c: Context) -> Outcome {
    let mut data = Vec::new();
    for key in ["a", "b", "c", "b"] {
        c.storage.put(key, key).await?;
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    for key in ["a", "b", "c"] {
        data.push(entry(&c.storage, key).await?);
    }
    let dates: Vec<_> = data.iter().flat_map(|entry| [entry.modified, entry.created]).flatten().collect();
    if dates.is_empty() {
        return Err(Failure::NotRun("the target's entries have no dates".into()));
    }
    for date in dates {
        let filters = [
            Filter::ModifiedAfter(date),
            Filter::ModifiedBefore(date),
            Filter::CreatedAfter(date),
            Filter::CreatedBefore(date),
        ];
        for filter in filters {
            agrees(&c.storage, &data, Query::new().filter(filter)).await?;
        }
    }
    for by in [OrderBy::Modified, OrderBy::Created] {
        agrees(&c.storage, &data, Query::new().ascending(by.clone())).await?;
        agrees(&c.storage, &data, Query::new().descending(by)).await?;
    }
    Ok(())
}

/// Field names, texts, tags, prefixes and order-by are data: nothing in them is a program or a pattern.
/// Profile: full
pub async fn injection_is_literal(c: Context) -> Outcome {
    let weird = [
        "a",
        "' OR '1'='1",
        "'; DROP TABLE storage; --",
        "\" OR 1=1 --",
        "%",
        "_",
        ".*",
        "a%",
        "$ne",
        "a.b",
        "$.a",
        "a\"b",
        "a'b",
        "\\",
        "a[0]",
        "{\"$gt\":\"\"}",
        "?",
        ":1",
        "$1",
        "a/*",
        "--",
        "null",
        "é",
        "🦀",
    ];
    let mut data = BTreeMap::new();
    for text in weird {
        let metadata = Metadata::new().field(text, 1).field("text", text).tag(text);
        data.insert(format!("k{text}"), metadata.content_type(text));
    }
    let data = fill(&c.storage, data).await?;
    for text in weird {
        let filters = [
            Query::new().equals(text, 1),
            Query::new().equals("text", text),
            Query::new().any_tag([text]),
            Query::new().filter(Filter::ContentType(text.into())),
            Query::new().prefix(format!("k{text}")),
        ];
        for query in filters {
            agrees(&c.storage, &data, query).await?;
        }
        let by = OrderBy::Field(text.into());
        agrees(&c.storage, &data, Query::new().descending(by)).await?;
    }
    Ok(())
}

/// By key, size or field, ascending and descending: kinds in their order, ties by ascending key.
/// Profile: full
pub async fn order_and_ties(c: Context) -> Outcome {
    let data = fill(&c.storage, every_type()).await?;
    for by in [
        OrderBy::Key,
        OrderBy::Size,
        OrderBy::Field("f".into()),
        OrderBy::Field("tie".into()),
        OrderBy::Field("none".into()),
    ] {
        agrees(&c.storage, &data, Query::new().ascending(by.clone())).await?;
        agrees(&c.storage, &data, Query::new().descending(by.clone())).await?;
        agrees(&c.storage, &data, Query::new().descending(by).limit(4)).await?;
    }
    Ok(())
}

/// Texts and tags of any length are compared and ordered as a whole, also where they differ only at their end.
/// Profile: full
pub async fn long_texts_and_tags(c: Context) -> Outcome {
    // What is left of the limit is for names and punctuation.
    let most = c.info().limits.metadata - 200;
    let mut data: BTreeMap<String, Metadata> = BTreeMap::new();
    let mut texts = Vec::new();
    for len in [255, 256, 300, 800, 1100, 5000].into_iter().filter(|len| *len <= most) {
        for end in ["", "a", "b", "é"] {
            texts.push(format!("{}{end}", "x".repeat(len)));
        }
    }
    for (i, text) in texts.iter().enumerate() {
        // Neither the keys nor the sizes are in the order of the texts.
        let i = (i * 7) % texts.len();
        data.insert(format!("field {i:02}"), Metadata::new().field("f", text.as_str()));
        data.insert(format!("tag {i:02}"), Metadata::new().tag(text.as_str()));
    }
    let data = fill(&c.storage, data).await?;
    for text in &texts {
        for comparison in Comparison::ALL {
            agrees(&c.storage, &data, Query::new().field("f", comparison, text.as_str())).await?;
        }
        agrees(&c.storage, &data, Query::new().any_tag([text.as_str(), "x"])).await?;
        agrees(&c.storage, &data, Query::new().all_tags([text.as_str()])).await?;
    }
    let by = OrderBy::Field("f".into());
    agrees(&c.storage, &data, Query::new().ascending(by.clone())).await?;
    agrees(&c.storage, &data, Query::new().descending(by)).await
}

/// Pages of any size put together are the whole answer: a continuation goes on exactly behind the last entry.
/// Profile: full
pub async fn limits_and_continuation(c: Context) -> Outcome {
    let data = fill(&c.storage, every_type()).await?;
    for by in [OrderBy::Key, OrderBy::Size, OrderBy::Field("f".into()), OrderBy::Field("tie".into())] {
        for query in [Query::new().ascending(by.clone()), Query::new().descending(by)] {
            let whole = model::answer(&data, &query);
            for size in [1, 3, whole.len(), whole.len() + 1] {
                let (mut seen, mut next) = (Vec::new(), query.clone().limit(size));
                loop {
                    let page = c.storage.query_page(next.clone()).await?;
                    seen.extend(page.entries.iter().map(|entry| entry.key.to_string()));
                    match page.next {
                        Some(continuation) if seen.len() <= whole.len() => next = next.continuation(continuation),
                        _ => break,
                    }
                }
                expect_eq(&format!("the pages of {size} of {query:?}"), seen, names(&whole))?;
            }
        }
    }
    expect_eq("a limit of nothing", answer(&c.storage, Query::new().limit(0)).await?.len(), 0)
}

/// A prefix narrows the answer, literally.
/// Profile: full
pub async fn prefix(c: Context) -> Outcome {
    let keys = ["a", "a/1", "a/2", "a_1", "a%", "ab", "A/1", "b/1", "é/1"];
    let data = keys.iter().map(|key| ((*key).to_owned(), Metadata::new().tag("t")));
    let data = fill(&c.storage, data.collect()).await?;
    for prefix in ["", "a", "a/", "a_", "a%", "A", "é", "x", "a/1", "%"] {
        let query = Query::new().prefix(prefix).any_tag(["t"]);
        agrees(&c.storage, &data, query.clone()).await?;
        agrees(&c.storage, &data, query.descending(OrderBy::Key)).await?;
    }
    Ok(())
}

/// What has no meaning is `InvalidInput`: a float that is not finite, a continuation of another order.
/// Profile: full
pub async fn invalid_input(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("a", "v").await?;
    let ask = |query: Query| async move { s.query(query).await.map(|_| "an answer") };
    let nan = Query::new().equals("f", f64::NAN);
    expect_kind("a comparison with NaN", ask(nan).await, ErrorKind::InvalidInput)?;
    let nul = Query::new().equals("f", "a\0");
    expect_kind("a comparison with a NUL", ask(nul).await, ErrorKind::InvalidInput)?;
    let page = s.query_page(Query::new().descending(OrderBy::Size).limit(1)).await?;
    let other = page.next.map(|next| Query::new().continuation(next)).unwrap_or_default();
    expect_kind("a continuation of another order", ask(other).await, ErrorKind::InvalidInput)?;
    Ok(())
}

/// The answer to any query over any data is that of the reference evaluator.
/// Profile: full
pub async fn random_vs_oracle(c: Context) -> Outcome {
    let mut rng = c.rng();
    let mut data = BTreeMap::new();
    for i in 0..60 {
        let mut metadata = Metadata::new();
        for name in ["f", "g", "h"] {
            if rng.u8(0..3) > 0 {
                metadata = metadata.field(name, random_value(&mut rng));
            }
        }
        for tag in ["x", "y", "z"] {
            metadata = if rng.bool() { metadata.tag(tag) } else { metadata };
        }
        if rng.bool() {
            metadata = metadata.content_type(["text/plain", "image/png"][rng.usize(0..2)]);
        }
        data.insert(format!("{}{i}", ["a/", "b/", "c"][rng.usize(0..3)]), metadata);
    }
    let data = fill(&c.storage, data).await?;
    for _ in 0..80 {
        let query = random_query(&mut rng, &data);
        if let Err(failure) = agrees(&c.storage, &data, query.clone()).await {
            let (data, query) = shortest(&c.storage, data, query).await?;
            // A store that is wrong by chance may be right now.
            if let Err(failure) = agrees(&c.storage, &data, query.clone()).await {
                c.calls().show("calls, the fewest that were found", lines(&data, &query));
                return Err(failure);
            }
            return Err(failure);
        }
    }
    Ok(())
}

fn random_query(rng: &mut fastrand::Rng, data: &[Entry]) -> Query {
    let mut query = Query::new().prefix(["", "", "a/", "b", "c1"][rng.usize(0..5)]);
    for _ in 0..rng.usize(0..3) {
        let field = Filter::Field {
            name: ["f", "g", "h", "missing"][rng.usize(0..4)].into(),
            comparison: Comparison::ALL[rng.usize(0..6)],
            value: random_value(rng),
        };
        let tags = ["x", "y", "z"][..rng.usize(0..4)].iter().map(|tag| (*tag).to_owned()).collect();
        query = query.filter(match rng.u8(0..8) {
            0 => Filter::AnyTag(tags),
            1 => Filter::AllTags(tags),
            2 => Filter::MinSize(rng.u64(0..40)),
            3 => Filter::MaxSize(rng.u64(0..40)),
            4 => Filter::ContentType("text/plain".into()),
            _ => field,
        });
    }
    let by = [
        OrderBy::Key,
        OrderBy::Size,
        OrderBy::Field("f".into()),
        OrderBy::Field("g".into()),
        OrderBy::Modified,
        OrderBy::Created,
    ];
    let by = by[rng.usize(0..by.len())].clone();
    query = if rng.bool() { query.ascending(by) } else { query.descending(by) };
    if rng.bool() {
        query = query.limit(rng.usize(0..20));
    }
    if rng.bool() {
        let after = query.continuation_after(&data[rng.usize(0..data.len())]);
        query = query.continuation(after);
    }
    query
}

fn random_value(rng: &mut fastrand::Rng) -> FieldValue {
    match rng.u8(0..8) {
        0 => FieldValue::Null,
        1 => rng.bool().into(),
        2 => ["", "1", "a", "b"][rng.usize(0..4)].into(),
        3 => (f64::from(rng.i32(-4..4)) / 2.0).into(),
        4 => [f64::MAX, -0.0, 1e-300, 9_007_199_254_740_993.0][rng.usize(0..4)].into(),
        5 => [i64::MIN, i64::MAX, 9_007_199_254_740_993, 9_007_199_254_740_992][rng.usize(0..4)].into(),
        _ => rng.i64(-2..3).into(),
    }
}

/// Fields of every type under `f`, and many equal ones under `tie`.
fn every_type() -> BTreeMap<String, Metadata> {
    let values: [FieldValue; 18] = [
        FieldValue::Null,
        false.into(),
        true.into(),
        i64::MIN.into(),
        (-1).into(),
        0.into(),
        1.into(),
        i64::MAX.into(),
        (-1e300).into(),
        (-1.0).into(),
        0.0.into(),
        0.5.into(),
        1.0.into(),
        "".into(),
        "1".into(),
        "a".into(),
        "b".into(),
        "é".into(),
    ];
    let mut data: BTreeMap<String, Metadata> = BTreeMap::new();
    for (i, value) in values.into_iter().enumerate() {
        let metadata = Metadata::new().field("f", value).field("tie", (i % 3) as i64);
        data.insert(format!("k{:02}", (i * 7) % 18), metadata);
    }
    data.insert("without".into(), Metadata::new());
    data.insert("tie".into(), Metadata::new().field("f", 1).field("tie", 1));
    data
}

/// Puts a value under each key, of the size of its place in the list, and returns the entries with their dates.
pub(crate) async fn fill(s: &Storage, data: BTreeMap<String, Metadata>) -> Outcome<Vec<Entry>> {
    let items = data.iter().enumerate();
    let items = items.map(|(i, (key, metadata))| (key.clone(), vec![b'x'; i / 2], with(metadata.clone())));
    for result in s.put_batch_with(items, BatchOptions::new()).await? {
        result?;
    }
    // Some at once: on a store behind a network each takes its time.
    let described = data.into_iter().map(|(key, metadata)| async move {
        let mut entry = entry(s, &key).await?;
        entry.metadata = Some(Arc::new(metadata));
        Ok::<Entry, Failure>(entry)
    });
    stream::iter(described).buffered(16).try_collect().await
}

async fn answer(s: &Storage, query: Query) -> Outcome<Vec<Entry>> {
    Ok(s.query(query).await?.try_collect().await?)
}

/// Whether the store's answer is that of the reference evaluator.
pub(crate) async fn agrees(s: &Storage, data: &[Entry], query: Query) -> Outcome {
    let (seen, expected) = (answer(s, query.clone()).await?, model::answer(data, &query));
    expect_eq(&format!("the answer to {}", calls::query(&query)), names(&seen), names(&expected))?;
    for (seen, expected) in seen.iter().zip(&expected) {
        expect_eq("the metadata in the answer", &seen.metadata, &expected.metadata)?;
    }
    Ok(())
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}
