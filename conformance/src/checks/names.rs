//! Names that look like others, end like others, or are as long as others may be.

use std::collections::BTreeMap;

use storage_core::{BatchOptions, DeleteOptions, ListOptions, Metadata, OrderBy, Query};

use crate::{
    Context, Outcome,
    assert::expect_eq,
    checks::query::{agrees, fill},
    numbers::Pace,
    support::{expect_value, keys, positions, put_all, sorted, usable},
};

/// Texts that are equal to one another under a normal form of Unicode, under a folding of cases, or to the eye.
const ALIKE: &[&[&str]] = &[
    &["한", "\u{1112}\u{1161}\u{11ab}", "\u{314e}\u{314f}\u{3134}"],
    &["가", "\u{1100}\u{1161}"],
    &["Ω", "\u{2126}", "ω"],
    &["Å", "\u{212b}", "A\u{30a}", "å"],
    &["K", "\u{212a}", "k"],
    &["μ", "\u{b5}"],
    &["σ", "ς", "Σ"],
    &["ά", "\u{1f71}", "α\u{301}", "α"],
    &["é", "e\u{301}", "É", "E\u{301}", "e"],
    &["ß", "ss", "ẞ", "SS"],
    &["s", "ſ", "S"],
    &["ﬁ", "fi"],
    &["Ａ", "A", "a"],
    &["i", "İ", "I", "ı", "i\u{307}"],
    &["①", "1", "¹", "１"],
    &["Ⅳ", "IV"],
    &["が", "か\u{3099}", "ｶﾞ", "ガ"],
    &["ệ", "e\u{323}\u{302}", "e\u{302}\u{323}", "ẹ\u{302}"],
    &["q\u{323}\u{307}", "q\u{307}\u{323}"],
    &["豈", "\u{f900}"],
    &["क़", "क\u{93c}"],
    &["Ǆ", "ǅ", "ǆ"],
    &["а", "a\u{ad}", "a\u{200b}", "a\u{200d}", "a\u{fe0f}"],
    &["x y", "x\u{a0}y", "x\u{2003}y", "x  y", "xy"],
    &["t", "t ", "t  ", " t", "t\t", "t\n", "t\u{a0}", "t."],
    &["\u{feff}b", "b"],
    &["…", "..."],
    &["x-y", "x\u{2010}y", "x_y"],
];

fn alike() -> impl Iterator<Item = &'static str> {
    let mut all: Vec<&str> = ALIKE.iter().flat_map(|group| group.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

/// Keys are compared byte by byte: no normal form, no folding of cases, no trimming, in any script.
pub async fn alike_are_distinct_keys(c: Context) -> Outcome {
    let (s, pace) = (&c.storage, Pace::begin());
    let taken = usable(s, alike());
    let alike = || taken.iter().copied();
    put_all(s, alike()).await?;
    expect_eq("the keys", keys(s, "").await?, sorted(alike()))?;
    for key in alike().take_while(|_| pace.goes_on()) {
        expect_value(s, key, Some(key.as_bytes())).await?;
        expect_eq(
            "the keys with a prefix",
            keys(s, key).await?,
            sorted(alike().filter(|other| other.starts_with(key))),
        )?;
    }
    // The first of each group goes, the others stay.
    let mut left: Vec<&str> = alike().collect();
    for group in ALIKE.iter().filter(|group| taken.contains(&group[0])).take_while(|_| pace.goes_on()) {
        s.delete(group[0]).await?;
        left.retain(|key| *key != group[0]);
        for other in group[1..].iter().filter(|other| left.contains(other)) {
            expect_value(s, other, Some(other.as_bytes())).await?;
        }
    }
    expect_eq("the keys left", keys(s, "").await?, sorted(left))
}

/// Texts, tags, content types and names of fields are compared byte by byte too, when they are kept and in every query.
/// Profile: full
pub async fn alike_are_distinct_in_metadata(c: Context) -> Outcome {
    let (s, pace) = (&c.storage, Pace::begin());
    let mut data = BTreeMap::new();
    for (i, text) in alike().enumerate() {
        let metadata = Metadata::new().field("f", text).field(text, 1).tag(text).content_type(text);
        data.insert(format!("k{i:03}"), metadata);
    }
    for (i, group) in ALIKE.iter().enumerate() {
        let together = group.iter().fold(Metadata::new(), |metadata, text| metadata.tag(*text).field(*text, *text));
        data.insert(format!("together{i:02}"), together);
    }
    let data = fill(s, data).await?;
    agrees(s, &data, Query::new()).await?;
    for text in alike().take_while(|_| pace.goes_on()) {
        for query in [
            Query::new().equals("f", text),
            Query::new().equals(text, 1),
            Query::new().all_tags([text]).filter(storage_core::Filter::ContentType(text.into())),
            Query::new().any_tag([text]),
        ] {
            agrees(s, &data, query).await?;
        }
    }
    agrees(s, &data, Query::new().ascending(OrderBy::Field("f".into()))).await
}

/// A field may be called anything, also what an entry has already: it is kept beside it, and a query means the field.
/// Profile: full
pub async fn fields_may_be_called_anything(c: Context) -> Outcome {
    let names = [
        "content_type",
        "content-type",
        "Content-Type",
        "type",
        "tags",
        "tag",
        "fields",
        "field",
        "metadata",
        "key",
        "name",
        "entry_key",
        "size",
        "stored_size",
        "length",
        "etag",
        "version",
        "modified",
        "created",
        "created_at",
        "updated_at",
        "value",
        "data",
        "body",
        "id",
        "_id",
        "rowid",
        "prefix",
        "order",
        "limit",
        "continuation",
        "null",
        "true",
        "0",
        "x-amz-meta-a",
        "cache-control",
        "content-encoding",
        "storage",
        "format",
        "v",
        "f",
        "t",
        "c",
        "n",
        "digest",
        "checksum",
        "hash",
        "deleted",
    ];
    let (s, pace) = (&c.storage, Pace::begin());
    let mut data = BTreeMap::new();
    for (i, name) in names.iter().enumerate() {
        let other = Metadata::new().content_type("text/plain").tag("a").tag(*name);
        data.insert(format!("text {i:02}"), other.clone().field(*name, "other"));
        data.insert(format!("number {i:02}"), other.field(*name, i as i64));
        data.insert(format!("alone {i:02}"), Metadata::new().field(*name, "text/html"));
    }
    for (i, names) in names.chunks(8).enumerate() {
        data.insert(format!("all {i}"), names.iter().fold(Metadata::new(), |all, name| all.field(*name, *name)));
    }
    let data = fill(s, data).await?;
    agrees(s, &data, Query::new()).await?;
    for media_type in ["text/plain", "text/html", "other", "content_type"] {
        agrees(s, &data, Query::new().filter(storage_core::Filter::ContentType(media_type.into()))).await?;
    }
    for (i, name) in names.iter().enumerate().take_while(|_| pace.goes_on()) {
        agrees(s, &data, Query::new().equals(*name, "other")).await?;
        agrees(s, &data, Query::new().equals(*name, i as i64)).await?;
        agrees(s, &data, Query::new().any_tag([*name]).descending(OrderBy::Field((*name).into()))).await?;
    }
    Ok(())
}

/// What is deleted, copied or renamed is this key alone: none that begins with it, lies below it, or matches it.
pub async fn a_key_is_one_key(c: Context) -> Outcome {
    let s = &c.storage;
    let all = [
        "a", "a/", "a/b", "a/b/", "a/b/c", "a//", "a//b", "a b", "ab", "a*", "a%", "a_", "a?", "a.", "a.b", "a\\",
        "a\\b", "a~1", "b/", "b/c", "/", "/a", "c/d/e", "c/d/", "[ab]", "{a,b}", "^a", "a$",
    ];
    let all = usable(s, all);
    put_all(s, &all).await?;
    let mut left = all.clone();
    let gone = ["a/", "b/", "a*", "a%", "a_", "a?", "a", "c/d/", "/", "[ab]", "{a,b}", "a\\", "a//", "c/", "b"];
    for (i, key) in usable(s, gone).into_iter().enumerate() {
        left.retain(|other| *other != key);
        match i % 3 {
            0 => s.delete(key).await?,
            1 => drop(s.delete_batch_with([(key, DeleteOptions::new())], BatchOptions::new()).await?),
            _ => match all.contains(&key) {
                true => {
                    s.rename(key, "renamed").await?;
                    expect_value(s, "renamed", Some(key.as_bytes())).await?;
                    s.delete("renamed").await?;
                }
                false => s.delete(key).await?,
            },
        }
        expect_eq(&format!("the keys without {key:?}"), keys(s, "").await?, sorted(&left))?;
    }
    // Deleted alone they go all the same.
    put_all(s, &all).await?;
    for key in usable(s, ["a/", "a/b/", "a//", "/", "b/", "c/d/"]) {
        s.delete(key).await?;
        expect_value(s, key, None).await?;
    }
    let left = all.iter().filter(|key| !key.ends_with('/'));
    expect_eq("the keys that do not end in a slash", keys(s, "").await?, sorted(left))
}

/// A prefix reaches as far as keys begin with it, up to the last characters there are, in listings, queries and `clear`.
pub async fn a_prefix_reaches_to_its_end(c: Context) -> Outcome {
    let s = &c.storage;
    let ends = [
        "",
        "\u{1}",
        "/",
        "/x",
        "~",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{ffff}x",
        "\u{ffff}\u{ffff}",
        "\u{10000}",
        "🦀",
        "\u{10ffff}",
        "\u{10ffff}x",
        "\u{10ffff}\u{10ffff}",
    ];
    let prefixes = [
        "a",
        "a/",
        "a\u{7f}",
        "a\u{7ff}",
        "a\u{d7ff}",
        "a\u{ffff}",
        "a\u{10ffff}",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}",
    ];
    let mut all: Vec<String> = prefixes.iter().flat_map(|prefix| ends.map(|end| format!("{prefix}{end}"))).collect();
    all.extend(["b", "a0", "a\u{80}y", "b\u{10ffff}", "A\u{10ffff}", "\u{ffff}", "🦀"].map(str::to_owned));
    all.sort();
    all.dedup();
    let mut all = usable(s, all);
    put_all(s, &all).await?;
    for prefix in prefixes {
        let below: Vec<&String> = all.iter().filter(|key| key.starts_with(prefix)).collect();
        if below.is_empty() {
            continue;
        }
        expect_eq(&format!("the keys with the prefix {prefix:?}"), keys(s, prefix).await?, sorted(&below))?;
        let middle = below[below.len() / 2].as_str();
        let options = ListOptions::new().prefix(prefix).start_after(middle);
        let behind = below.iter().filter(|key| key.as_str() > middle);
        expect_eq(
            &format!("the keys with the prefix {prefix:?} after {middle:?}"),
            positions(s, options).await?,
            sorted(behind),
        )?;
        let query = Query::new().prefix(prefix);
        let answer = crate::support::keys_of(s.query(query).await?).await?;
        expect_eq(&format!("the answer with the prefix {prefix:?}"), answer, sorted(&below))?;
        let delimited = positions(s, ListOptions::new().prefix(prefix).delimited(true)).await?;
        let mut expected: Vec<String> = below
            .iter()
            .map(|key| match key[prefix.len()..].find('/') {
                Some(slash) => key[..prefix.len() + slash + 1].to_owned(),
                None => (*key).clone(),
            })
            .collect();
        expected.dedup();
        expect_eq(&format!("one level at {prefix:?}"), delimited, expected)?;
    }
    for prefix in prefixes.into_iter().rev() {
        s.clear_prefix(prefix).await?;
        all.retain(|key| !key.starts_with(prefix));
        expect_eq(&format!("the keys after clearing {prefix:?}"), keys(s, "").await?, sorted(&all))?;
    }
    Ok(())
}
