//! What can be said about a value, and what the store says.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use storage_core::{BatchOptions, Body, Entry, ErrorKind, FieldValue, ListOptions, Metadata, Query, Storage};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq, expect_kind, expect_some},
    support::{entries, entry, expect_value, keeps_metadata, pieces, with},
};

/// Clocks of stores may be off by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// Metadata that a put accepts is kept, whichever way it is put. A store that keeps none refuses it with `Unsupported` and says so
/// beforehand: its `limits.metadata` is 0.
pub async fn accepted_is_kept(c: Context) -> Outcome {
    let s = &c.storage;
    let parts = [
        Metadata::new().content_type("text/plain"),
        Metadata::new().tag("t"),
        Metadata::new().field("f", "text"),
        Metadata::new().field("n", 1),
    ];
    for (i, metadata) in parts.into_iter().enumerate() {
        let key = |way: &str| format!("{way}{i}");
        let (stream, options) = (Body::stream(pieces("value".into(), 2)), with(metadata.clone()));
        let puts = [
            ("put", s.put_with(key("put"), "value", options.clone()).await),
            ("stream", s.put_with(key("stream"), stream, options.clone()).await),
            (
                "batch",
                match s.put_batch_with([(key("batch"), "value", options)], BatchOptions::new()).await {
                    Ok(results) => expect_some("the result of the item", results.into_iter().next())?,
                    Err(e) => Err(e),
                },
            ),
        ];
        for (way, result) in puts {
            if !keeps_metadata(s) {
                expect_kind(&format!("a {way} with metadata"), result, ErrorKind::Unsupported)?;
                expect_value(s, &key(way), None).await?;
                continue;
            }
            result?;
            let seen = entry(s, &key(way)).await?.metadata.unwrap_or_default();
            expect_eq(&format!("the metadata that a {way} has accepted"), &*seen, &metadata)?;
        }
    }
    Ok(())
}

/// Metadata comes back exactly, the types of its fields included.
/// Profile: full
pub async fn roundtrip_typed(c: Context) -> Outcome {
    let numbers = [0, 1, -1, i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1];
    let floats =
        [0.0, -0.0, 1.0, 1.5, -1e300, 1e300, f64::MIN_POSITIVE, 5e-324, f64::MAX, 0.1, 1e15, 1e16, 123_456_789.0];
    let texts = ["", "1", "1.0", "true", "null", "2024-01-01T00:00:00Z", "[]", "{\"a\":1}"];
    let mut all = vec![
        Metadata::new().content_type("text/plain; charset=utf-8").tag("b").tag("a").field("n", 1),
        Metadata::new().field("null", FieldValue::Null).field("yes", true).field("no", false),
        Metadata::new().tag("only a tag"),
        Metadata::new().content_type("application/x-only"),
    ];
    for (values, chunk) in [
        (numbers.map(FieldValue::from).to_vec(), 7),
        (floats.map(FieldValue::from).to_vec(), 5),
        (texts.map(FieldValue::from).to_vec(), 8),
    ] {
        for chunk in values.chunks(chunk) {
            let fields = chunk.iter().enumerate();
            all.push(fields.fold(Metadata::new(), |m, (i, value)| m.field(format!("f{i}"), value.clone())));
        }
    }
    for metadata in all {
        keeps(&c.storage, metadata).await?;
    }
    Ok(())
}

/// Names and texts are any UTF-8 without NUL: quotes, emoji, empty ones, ones that look like a path or a program.
/// Profile: full
pub async fn weird_names_and_values(c: Context) -> Outcome {
    let weird = [
        "",
        " ",
        "a b",
        "a.b",
        "$a",
        "a$b",
        "'",
        "\"",
        "\\",
        "\n",
        "\r\n",
        "\t",
        "\u{1}",
        "\u{7f}",
        "%",
        "é",
        "e\u{301}",
        "日本語",
        "🦀",
        "'); --",
        "$.a[0]",
        "a[0]",
        "a\":1,\"b",
        "__proto__",
        "_id",
        "Content-Type",
        "A",
        "a",
        ":",
        "=",
        ",",
        ";",
        " outer ",
        "\u{2028}",
        "\u{feff}",
        "=?utf-8?Q?a?=",
    ];
    for text in weird {
        keeps(&c.storage, Metadata::new().field(text, text).tag(text)).await?;
        keeps(&c.storage, Metadata::new().content_type(text)).await?;
    }
    for chunk in weird.chunks(18) {
        let metadata = chunk.iter().fold(Metadata::new(), |m, text| m.field(*text, *text));
        keeps(&c.storage, metadata).await?;
    }
    Ok(())
}

/// Any metadata up to `limits.metadata` bytes of canonical JSON is kept, 1,000 on every backend; more is `TooLarge`, and
/// nothing is stored.
/// Profile: full
pub async fn size_limit(c: Context) -> Outcome {
    let (s, limit) = (&c.storage, c.info().limits.metadata);
    expect(limit >= Metadata::MIN_LIMIT, || format!("expected limits.metadata of at least 1,000, saw {limit}"))?;
    // Where there is hardly a limit, a megabyte is as good as it.
    for size in [Metadata::MIN_LIMIT, limit.min(1 << 20)] {
        keeps(s, one_text(size)).await?;
        keeps(s, many_fields(size)).await?;
    }
    if limit > 1 << 24 {
        return Ok(());
    }
    for metadata in [one_text(limit + 1), many_fields(limit + 1)] {
        let result = s.put_with("over", "v", with(metadata)).await;
        expect_kind("a put with metadata over the limit", result, ErrorKind::TooLarge)?;
    }
    expect_eq("the entry", s.stat("over").await?, None)
}

/// A put replaces metadata as a whole; without metadata the value has none afterwards.
/// Profile: full
pub async fn replaced_on_overwrite(c: Context) -> Outcome {
    let s = &c.storage;
    let first = Metadata::new().content_type("text/plain").tag("t").field("a", 1).field("b", 2);
    s.put_with("key", "1", with(first)).await?;
    let second = Metadata::new().field("b", "two");
    s.put_with("key", "2", with(second.clone())).await?;
    expect_eq("the metadata", entry(s, "key").await?.metadata, Some(Arc::new(second)))?;
    s.put("key", "3").await?;
    expect_eq("the metadata", entry(s, "key").await?.metadata, Some(Arc::default()))
}

/// A value put without metadata has empty metadata, in a stat, a read and a listing.
/// Profile: full
pub async fn none_is_empty(c: Context) -> Outcome {
    let s = &c.storage;
    let written = s.put("key", "v").await?;
    expect_eq("the metadata by put", written.metadata.unwrap_or_default(), Arc::default())?;
    for (how, seen) in everywhere(s, "key").await? {
        expect_eq(&format!("the metadata by {how}"), seen.metadata, Some(Arc::default()))?;
    }
    Ok(())
}

/// `put`, `stat`, `get`, `list` and `query` say the same about a value.
/// Profile: full
pub async fn stat_list_get_agree(c: Context) -> Outcome {
    let s = &c.storage;
    let metadata = Metadata::new().content_type("text/plain").tag("t").field("n", 1).field("x", 1.5);
    for key in ["a", "b/c", "b/d"] {
        let written = s.put_with(key, key, with(metadata.clone())).await?;
        let stat = entry(s, key).await?;
        for (how, seen) in everywhere(s, key).await? {
            let mut expected = written.clone();
            expected.metadata = Some(Arc::new(metadata.clone()));
            // Whether a put knows the dates and a listing the version is left to the backend.
            expected.created = seen.created;
            expected.modified = written.modified.or(stat.modified);
            expected.version = seen.version.clone().and(expected.version);
            expected.stored_size = seen.stored_size;
            let mut seen = seen;
            seen.version = expected.version.clone().and(seen.version);
            expect_eq(&format!("the entry of {key:?} by {how}"), seen, expected)?;
        }
    }
    Ok(())
}

/// A listing loads metadata only when it is asked to, in one level too.
/// Profile: full
pub async fn listed_only_when_asked(c: Context) -> Outcome {
    let s = &c.storage;
    for key in ["a/b", "a/b/c", "key"] {
        s.put_with(key, "v", with(Metadata::new().tag(key))).await?;
    }
    for (prefix, delimited) in [("", false), ("", true), ("a/", true), ("k", true)] {
        for asked in [false, true] {
            let options = ListOptions::new().prefix(prefix).delimited(delimited).metadata(asked);
            let listed: Vec<_> = s.list_with(options).await?.try_collect().await?;
            let listed: Vec<Entry> = listed.into_iter().filter_map(storage_core::ListItem::into_entry).collect();
            expect(!listed.is_empty(), || format!("expected entries with the prefix {prefix:?}, saw none"))?;
            for entry in listed {
                let expected = asked.then(|| Arc::new(Metadata::new().tag(entry.key.as_str())));
                let what =
                    format!("the metadata of {:?}, one level: {delimited}, asked for: {asked}", entry.key.as_str());
                expect_eq(&what, entry.metadata, expected)?;
            }
        }
    }
    Ok(())
}

/// A float that is not finite and a text with a NUL are `InvalidInput`, and nothing is stored.
/// Profile: full
pub async fn nan_rejected(c: Context) -> Outcome {
    let s = &c.storage;
    let invalid = [
        Metadata::new().field("x", f64::NAN),
        Metadata::new().field("x", f64::INFINITY),
        Metadata::new().field("x", f64::NEG_INFINITY),
        Metadata::new().field("x", "a\0b"),
        Metadata::new().field("a\0b", 1),
        Metadata::new().tag("\0"),
        Metadata::new().content_type("text/\0"),
    ];
    for metadata in invalid {
        let result = s.put_with("key", "v", with(metadata)).await;
        expect_kind("a put with such metadata", result, ErrorKind::InvalidInput)?;
    }
    expect_eq("the entry", s.stat("key").await?, None)
}

/// An etag changes whenever the bytes change, also when their number does not.
/// Profile: full
pub async fn etag_changes_with_bytes(c: Context) -> Outcome {
    let mut seen = HashSet::new();
    for i in 0..100 {
        let written = c.storage.put("key", format!("{i:03}")).await?;
        let Some(etag) = written.etag else {
            return Err(Failure::NotRun("the target's entries have no etag".into()));
        };
        expect(seen.insert(etag.clone()), || format!("write {i}: expected a new etag, saw {etag:?} again"))?;
    }
    Ok(())
}

/// Every write, of equal bytes or of new metadata only, gets an etag never used before, also after a delete.
/// Needs: version_etags
pub async fn etag_changes_x1000(c: Context) -> Outcome {
    let mut seen = HashSet::new();
    for i in 0..1000 {
        let options = if i % 2 == 0 { with(Metadata::new()) } else { with(Metadata::new().field("n", 1)) };
        let written = c.storage.put_with("key", "the same bytes", options).await?;
        let etag = expect_some("the etag", written.etag)?;
        expect(seen.insert(etag.clone()), || format!("write {i}: expected a new etag, saw {etag:?} again"))?;
        if i % 10 == 9 {
            c.storage.delete("key").await?;
        }
    }
    Ok(())
}

/// `modified` is the store's time of the write and does not go backwards.
/// Profile: full
pub async fn modified_is_the_time_of_the_write(c: Context) -> Outcome {
    let (s, step) = (&c.storage, c.info().limits.time_granularity);
    let mut last = None;
    for i in 0..5 {
        let written = s.put("key", format!("{i}")).await?;
        let seen = entry(s, "key").await?.modified;
        let Some(modified) = written.modified.or(seen) else {
            return Err(Failure::NotRun("the target's entries have no date of modification".into()));
        };
        let now = SystemTime::now();
        let plausible = now - CLOCK_SKEW..=now + CLOCK_SKEW;
        expect(plausible.contains(&modified), || format!("expected a date near {now:?}, saw {modified:?}"))?;
        expect_eq("the date by stat", seen, Some(modified))?;
        expect(last <= Some(modified), || format!("expected a date not before {last:?}, saw {modified:?}"))?;
        last = Some(modified);
        tokio::time::sleep(Duration::from_millis(5).min(step)).await;
    }
    if step > Duration::from_secs(2) {
        return Ok(());
    }
    // Two steps later the clock has moved on, whatever the rounding.
    tokio::time::sleep(step * 2 + Duration::from_millis(2)).await;
    s.put("key", "later").await?;
    let modified = entry(s, "key").await?.modified;
    expect(modified > last, || format!("expected a date after {last:?} for a later write, saw {modified:?}"))
}

/// Where the store knows `created`, it is the time of the key's first write and stays when the value is replaced.
/// Profile: full
pub async fn created_stays(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("key", "first").await?;
    let first = entry(s, "key").await?;
    let Some(created) = first.created else {
        return Err(Failure::NotRun("the target's entries have no date of creation".into()));
    };
    expect(Some(created) <= first.modified, || format!("expected created up to modified, saw {first:?}"))?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    s.put("key", "second").await?;
    let second = entry(s, "key").await?;
    expect_eq("created after the second write", second.created, Some(created))
}

/// The entry as each operation that reports it gives it.
async fn everywhere(s: &Storage, key: &str) -> Outcome<Vec<(&'static str, Entry)>> {
    let object = expect_some("the object", s.open(key, storage_core::GetOptions::new()).await?)?;
    let listed = entries(s, key).await?.into_iter().find(|entry| entry.key.as_str() == key);
    let answer: Vec<Entry> = s.query(Query::new().prefix(key)).await?.try_collect().await?;
    let answered = answer.into_iter().find(|entry| entry.key.as_str() == key);
    Ok(vec![
        ("stat", entry(s, key).await?),
        ("get", object.entry),
        ("list", expect_some("the listed entry", listed)?),
        ("query", expect_some("the entry in the answer of a query", answered)?),
    ])
}

/// Puts the metadata, and sees it again by stat, in a read and in a listing.
async fn keeps(s: &Storage, metadata: Metadata) -> Outcome {
    let expected = Some(Arc::new(metadata.clone()));
    s.put_with("key", "v", with(metadata)).await?;
    for (how, seen) in everywhere(s, "key").await? {
        expect_eq(&format!("the metadata by {how}"), &seen.metadata, &expected)?;
        // -0.0 equals 0.0; the canonical text tells them apart.
        let text = |m: &Option<Arc<Metadata>>| m.as_ref().map(|m| m.to_json());
        expect_eq(&format!("the metadata by {how}"), text(&seen.metadata), text(&expected))?;
    }
    Ok(())
}

/// Metadata of exactly this size, in one field.
fn one_text(size: usize) -> Metadata {
    let empty = Metadata::new().field("f", "").size();
    Metadata::new().field("f", "x".repeat(size - empty))
}

/// Metadata of exactly this size, in fields of 100 bytes and a rest.
fn many_fields(size: usize) -> Metadata {
    let mut metadata = Metadata::new();
    for i in 0..size / 200 {
        metadata = metadata.field(format!("f{i:06}"), "é".repeat(40));
    }
    let rest = size - metadata.clone().field("rest", "").size();
    metadata.field("rest", "x".repeat(rest))
}
