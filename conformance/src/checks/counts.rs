//! Many entries, items, tags and fields: around the numbers at which stores cut them into pages.

use futures_util::TryStreamExt;
use storage_core::{
    BatchOptions, Comparison, DeleteOptions, Entry, ListItem, ListOptions, Metadata, OrderBy, PutOptions, Query,
    Storage,
};

use crate::{
    Context, Outcome,
    assert::{brief, expect, expect_eq, expect_some},
    checks::query::agrees,
    numbers::{Pace, around},
    support::{entries, entry, positions, usable, with},
};

/// How many entries each prefix has, the most telling first, and what its keys are made of.
const COUNTS: [(usize, char); 14] = [
    (10, 'n'),
    (1001, 'é'),
    (1000, 'n'),
    (256, 'é'),
    (255, 'n'),
    (2, 'é'),
    (1, 'n'),
    (100, '字'),
    (500, 'n'),
    (999, '字'),
    (257, '🦀'),
    (512, 'é'),
    (128, '🦀'),
    (1024, 'é'),
];

/// The keys below one prefix, in their order.
struct Group {
    prefix: String,
    keys: Vec<String>,
}

/// Around a round number nothing is lost, repeated or cut: of the items of a batch, of a listing, whole, by `limit` and in one
/// level, of what `clear` and a batch delete, ASCII or not.
pub async fn of_entries(c: Context) -> Outcome {
    let (s, pace, mut rng) = (&c.storage, Pace::begin(), c.rng());
    let (mut groups, mut done, mut written) = (Vec::new(), 0, Vec::new());
    for (count, letter) in COUNTS {
        if usable(s, [letter.to_string()]).is_empty() {
            continue;
        }
        if done == 0 || pace.allows(done, count) {
            let group = Group::new(count, letter);
            written.extend(group.put(s, |_| PutOptions::new()).await?);
            groups.push(group);
            done += count;
        }
    }
    written.sort_by(|a, b| a.key.cmp(&b.key));
    let listing: Vec<Entry> = s.list("").await?.try_collect().await?;
    let of = |entries: &[Entry]| entries.iter().map(|entry| (entry.key.clone(), entry.size)).collect::<Vec<_>>();
    same("the keys and sizes listed", &of(&listing), &of(&written))?;
    let all: Vec<String> = written.iter().map(|entry| entry.key.to_string()).collect();
    for limit in around(2050).into_iter().filter(|n| *n > 4 && *n < all.len()).take_while(|_| pace.goes_on()) {
        let from = rng.usize(0..all.len() - limit);
        let options = ListOptions::new().start_after(all[from].as_str()).limit(limit);
        same(&format!("{limit} keys behind one"), &positions(s, options).await?, &all[from + 1..][..limit])?;
    }
    for Group { prefix, keys } in groups.iter().take_while(|_| pace.goes_on()) {
        let (count, options) = (keys.len(), ListOptions::new().prefix(prefix.as_str()));
        for limit in [count - 1, count, count + 1] {
            let what = format!("the keys with a prefix that {count} have, at a limit of {limit}");
            same(&what, &positions(s, options.clone().limit(limit)).await?, &keys[..limit.min(count)])?;
        }
        let what = format!("one level of {count}");
        same(&what, &positions(s, options.clone().delimited(true)).await?, keys)?;
        let found = s.get_batch(keys).await?;
        expect_eq(&format!("the number of values in a batch of {count}"), found.len(), count)?;
        let wrong = found.iter().find(|(key, value)| key.as_str().as_bytes() != &value[..]);
        expect(wrong.is_none(), || format!("expected each key's own value, saw {}", brief(&wrong)))?;
    }
    for (i, group) in groups.iter().enumerate() {
        let count = group.keys.len();
        // Either deletes them; of the larger ones both do.
        let mut ways = vec![i % 2 == 0];
        if count > 900 && pace.goes_on() {
            ways.push(i % 2 != 0);
        }
        for (again, by_batch) in ways.into_iter().enumerate() {
            if again > 0 {
                group.put(s, |_| PutOptions::new()).await?;
            }
            if by_batch {
                let items = group.keys.iter().map(|key| (key, DeleteOptions::new()));
                for result in s.delete_batch_with(items, BatchOptions::new()).await? {
                    result?;
                }
            } else {
                s.clear_prefix(&group.prefix).await?;
            }
            let what = if by_batch { "a batch" } else { "clear" };
            let seen = positions(s, ListOptions::new().prefix(group.prefix.as_str())).await?;
            same(&format!("the keys left by {what} of {count}"), &seen, &[])?;
        }
        if i == groups.len() / 2 {
            let mut left: Vec<String> = groups[i + 1..].iter().flat_map(|group| group.keys.iter().cloned()).collect();
            left.sort();
            same("the keys of which none was to be deleted", &positions(s, ListOptions::new()).await?, &left)?;
        }
    }
    same("the keys left at the end", &positions(s, ListOptions::new()).await?, &[])
}

/// Around a round number each entry has its metadata, and an answer is whole: written by a batch, listed, in one level too, and
/// queried, by `limit` and page by page.
/// Profile: full
pub async fn of_entries_with_metadata(c: Context) -> Outcome {
    let (s, pace) = (&c.storage, Pace::begin());
    let (mut groups, mut done) = (Vec::new(), 0);
    for (count, letter) in COUNTS {
        if done == 0 || pace.allows(done, count) {
            let group = Group::new(count, letter);
            group.put(s, |i| with(metadata(i, count))).await?;
            groups.push(group);
            done += count;
        }
    }
    groups.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    let listed = entries(s, "").await?;
    expect_eq("the number of entries listed", listed.len(), done)?;
    for (entry, (key, expected)) in listed.iter().zip(groups.iter().flat_map(Group::described)) {
        expect_eq("the key of a listed entry", entry.key.as_str(), key)?;
        described(&format!("the metadata listed of {key:?}"), entry, &expected)?;
    }
    for group in groups.iter().take_while(|_| pace.goes_on()) {
        let (Group { prefix, keys }, count) = (group, group.keys.len());
        let delimited = ListOptions::new().prefix(prefix.as_str()).delimited(true).metadata(true);
        let items: Vec<ListItem> = s.list_with(delimited).await?.try_collect().await?;
        expect_eq(&format!("the number of items in one level of {count}"), items.len(), count)?;
        for (entry, (key, expected)) in items.into_iter().filter_map(ListItem::into_entry).zip(group.described()) {
            described(&format!("the metadata of {key:?} in one level"), &entry, &expected)?;
        }
        let below = Query::new().prefix(prefix.as_str());
        let last = answer(s, below.clone().equals("last", true)).await?;
        same(&format!("the answer that is the last of {count}"), &last, &keys[count - 1..])?;
        for limit in [count - 1, count, count + 1] {
            let query = below.clone().any_tag(["all"]).limit(limit);
            same(
                &format!("the answer of {count} at a limit of {limit}"),
                &answer(s, query).await?,
                &keys[..limit.min(count)],
            )?;
        }
        let query = below.field("n", Comparison::GreaterOrEqual, 0).descending(OrderBy::Field("n".into()));
        let backwards: Vec<String> = keys.iter().rev().cloned().collect();
        same(&format!("the answer of {count} in descending order"), &answer(s, query).await?, &backwards)?;
    }
    let all: Vec<String> = groups.iter().flat_map(|group| group.keys.iter().cloned()).collect();
    same("the answer that is everything", &answer(s, Query::new().any_tag(["all", "none"])).await?, &all)?;
    let last: Vec<String> = groups.iter().filter_map(|group| group.keys.last().cloned()).collect();
    same("the answer that is the last of each prefix", &answer(s, Query::new().equals("last", true)).await?, &last)?;
    // Of the largest, since a store may look at everything for each page.
    let Some(Group { prefix, keys }) = groups.iter().max_by_key(|group| group.keys.len()) else { return Ok(()) };
    let (mut seen, mut next) = (Vec::new(), Query::new().prefix(prefix.as_str()).any_tag(["all"]).limit(1000));
    loop {
        let page = s.query_page(next.clone()).await?;
        seen.extend(page.entries.iter().map(|entry| entry.key.to_string()));
        match page.next {
            Some(continuation) if seen.len() <= keys.len() => next = next.continuation(continuation),
            _ => break,
        }
    }
    same("the answer by pages of 1,000", &seen, keys)
}

/// Any number of tags and of fields is kept, and so is a name, a tag or a text of any length.
/// Profile: full
pub async fn of_tags_and_fields(c: Context) -> Outcome {
    let (s, pace, limit) = (&c.storage, Pace::begin(), c.info().limits.metadata);
    let mut all: Vec<Metadata> = Vec::new();
    let mut counts = around(130);
    counts.extend([3, 5, 20, 24, 25, 40, 48, 50, 60, 75, 90, 100]);
    for count in counts {
        let tags = (0..count).fold(Metadata::new(), |metadata, i| metadata.tag(format!("{i:02}")));
        let fields = (0..count).fold(Metadata::new(), |metadata, i| metadata.field(format!("{i:02}"), i as i64));
        all.extend([tags, fields]);
    }
    let mut lens = around(1025);
    lens.extend([20, 30, 40, 50, 200, 250, 300, 400, 500, 600, 700, 767, 768, 769, 800, 900, 1500, 2000, 3000]);
    for len in lens {
        let text = |c: char| c.to_string().repeat(len);
        all.push(Metadata::new().field(text('n'), 1).field(format!("{}o", text('n')), 2));
        all.push(Metadata::new().field("f", text('f')).content_type("short"));
        all.push(Metadata::new().tag(text('t')).tag(format!("{}u", text('t'))));
        all.push(Metadata::new().content_type(text('c')));
        all.push(Metadata::new().field(text('é'), text('字')));
    }
    all.retain(|metadata| metadata.size() <= limit);
    let key = |i: usize| format!("k{i:03}");
    let items = all.iter().enumerate().map(|(i, metadata)| (key(i), "v", with(metadata.clone())));
    for result in s.put_batch_with(items, BatchOptions::new()).await? {
        result?;
    }
    let listed = entries(s, "").await?;
    expect_eq("the number of entries listed", listed.len(), all.len())?;
    for (entry, expected) in listed.iter().zip(&all) {
        described(&format!("the metadata listed, {} bytes", expected.size()), entry, expected)?;
    }
    for (i, metadata) in all.iter().enumerate().take_while(|_| pace.goes_on()) {
        s.put_with("one", "v", with(metadata.clone())).await?;
        described(&format!("the metadata by stat, {} bytes", metadata.size()), &entry(s, "one").await?, metadata)?;
        let mut query = Query::new().prefix("k").all_tags(metadata.tags.iter().cloned());
        for (name, value) in metadata.fields.iter().rev().take(20) {
            query = query.equals(name.as_str(), value.clone());
        }
        // Every third is enough where each takes a request.
        if i % 3 == 0 && !(metadata.tags.is_empty() && metadata.fields.is_empty()) {
            agrees(s, &listed, query).await?;
            if !metadata.tags.is_empty() {
                agrees(s, &listed, Query::new().prefix("k").any_tag(metadata.tags.iter().cloned())).await?;
            }
        }
    }
    Ok(())
}

impl Group {
    fn new(count: usize, letter: char) -> Self {
        let prefix = format!("{letter}{count:04}/");
        let keys = (0..count).map(|i| format!("{prefix}{letter}{i:04}")).collect();
        Self { prefix, keys }
    }

    /// Writes each key as its own value, all in one batch, and returns the entries.
    async fn put(&self, s: &Storage, options: impl Fn(usize) -> PutOptions) -> Outcome<Vec<Entry>> {
        let items = self.keys.iter().enumerate().map(|(i, key)| (key.clone(), key.clone(), options(i)));
        let results = s.put_batch_with(items.collect::<Vec<_>>(), BatchOptions::new()).await?;
        expect_eq("the number of results", results.len(), self.keys.len())?;
        let mut entries = Vec::with_capacity(results.len());
        for (result, key) in results.into_iter().zip(&self.keys) {
            let entry = result?;
            expect_eq("the key of a result", entry.key.as_str(), key.as_str())?;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The keys with their metadata.
    fn described(&self) -> impl Iterator<Item = (&str, Metadata)> {
        self.keys.iter().enumerate().map(|(i, key)| (key.as_str(), metadata(i, self.keys.len())))
    }
}

/// The metadata of one of so many.
fn metadata(i: usize, count: usize) -> Metadata {
    let metadata = Metadata::new().tag("all").field("n", i as i64);
    if i + 1 == count { metadata.field("last", true) } else { metadata }
}

fn described(what: &str, entry: &Entry, expected: &Metadata) -> Outcome {
    let seen = expect_some(what, entry.metadata.as_deref())?;
    if seen == expected { Ok(()) } else { expect_eq(what, seen, expected) }
}

/// The keys in the answer, each with metadata.
async fn answer(s: &Storage, query: Query) -> Outcome<Vec<String>> {
    let entries: Vec<Entry> = s.query(query).await?.try_collect().await?;
    let bare = entries.iter().find(|entry| entry.metadata.as_ref().is_none_or(|metadata| metadata.is_empty()));
    expect(bare.is_none(), || format!("expected metadata in an answer, saw {}", brief(&bare)))?;
    Ok(entries.iter().map(|entry| entry.key.to_string()).collect())
}

/// Fails unless the lists are equal, and says where they begin to differ.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &[T], expected: &[T]) -> Outcome {
    if seen == expected {
        return Ok(());
    }
    let at = seen.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let show = |list: &[T]| format!("{} and as number {} {:?}", list.len(), at + 1, list.get(at));
    Err(format!("{what}: expected {}, saw {}", show(expected), show(seen)).into())
}
