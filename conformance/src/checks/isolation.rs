//! What transactions see of one another, and what becomes of all that was done in one.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::TryStreamExt;
use storage_core::{
    BatchOptions, Body, Condition, CopyOptions, DeleteOptions, Entry, ErrorKind, Etag, GetOptions, Isolation, ListItem,
    ListOptions, PutOptions, Query, RenameOptions, Result, Storage, Tx,
};

use tokio::time::timeout;

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_bytes, expect_eq, expect_kind, expect_some},
    clients::{If, Op, Verb, every_op},
    interleave::Pace,
    meet::{Round, Turn, calls, in_one_task, on_threads, there_for},
    support::{entry, expect_value, keys, keys_of, noise, pieces, positions, put_all},
};

/// Transactions that read in one way and write in another have an order, whichever the ways are: none sees half of another,
/// and what was read still holds when what follows from it is written. (Of snapshots: at one moment for all reads.)
/// Needs: transactions
pub async fn every_read_before_every_write(c: Context) -> Outcome {
    let mut rng = c.rng();
    in_one_task(&c, "task", &transactions(&c, &mut rng, 2), 400).await?;
    on_threads(&c, "threads", transactions(&c, &mut rng, 1), 250).await
}

/// A round for every way to read before every way to write, some of them several times, in an order that the seed decides.
fn transactions(c: &Context, rng: &mut Rng, times: usize) -> Vec<Round> {
    let every = every_op(&c.storage);
    let within: Vec<_> = every.iter().copied().filter(|(verb, _)| !verb.is_atomic()).collect();
    let (reads, writes): (Vec<_>, Vec<_>) = within.iter().copied().partition(|(verb, _)| verb.is_read());
    let mut pairs = Vec::new();
    for _ in 0..times {
        pairs.extend(reads.iter().flat_map(|read| writes.iter().map(move |write| (*read, *write))));
    }
    rng.shuffle(&mut pairs);
    let round = |(read, write): ((Verb, If), (Verb, If))| {
        let pick = |rng: &mut Rng, from: &[(Verb, If)]| from[rng.usize(0..from.len())];
        let (other_read, other_write) = (pick(rng, &reads), pick(rng, &writes));
        let on = |(verb, when): (Verb, If), key: usize| Op { verb, when, key };
        // Each writes what the other has read; or both what both have read; or one creates, and each has seen that it is not there.
        let (first, second) = if rng.bool() { ([1, 0], [0, 1]) } else { ([0, 0], [0, 0]) };
        let mut mine = vec![on(read, first[0]), on(write, first[1])];
        let mut theirs = vec![on(other_read, second[0]), on(other_write, second[1])];
        let mut there = there_for(rng, &[mine[1], theirs[1]]);
        if rng.u8(0..4) == 0 {
            there[0] = false;
        }
        for ops in [&mut mine, &mut theirs] {
            match rng.u8(0..6) {
                0 => ops.push(on(pick(rng, &reads), rng.usize(0..2))),
                1 => ops.push(on(pick(rng, &writes), rng.usize(0..2))),
                2 => drop(ops.remove(0)),
                _ => {}
            }
        }
        let mine = vec![Turn::Transaction(mine, rng.u8(0..6) > 0)];
        // What is no transaction need not have a place in the order of several: one write has one beside a single one.
        if rng.u8(0..3) == 0 {
            let write = loop {
                let write = on(pick(rng, &writes), rng.usize(0..2));
                if !matches!(write.verb, Verb::PutBatch | Verb::DeleteBatch | Verb::Clear | Verb::Copy | Verb::Rename) {
                    break write;
                }
            };
            return Round::new(rng, there, vec![mine, calls([write])]);
        }
        let theirs = vec![Turn::Transaction(theirs, rng.u8(0..6) > 0)];
        let look = vec![on(pick(rng, &reads), 0), on(pick(rng, &reads), 1)];
        let programs = vec![mine, theirs, vec![Turn::Transaction(look, true)]];
        Round::new(rng, there, programs)
    };
    pairs.into_iter().map(round).collect()
}

/// Whatever a transaction has found, in whichever way, still holds when it commits, if others have relied on what it has not yet
/// written: of two that each change what the other has found one gives way, or comes after the other.
/// Needs: transactions
pub async fn what_was_found_still_holds(c: Context) -> Outcome {
    if c.info().isolation < Isolation::Serializable {
        return Err(Failure::NotRun("the target's isolation is not serializable".into()));
    }
    let (s, other) = (&c.storage, c.second_handle().await?);
    for (what, there) in FINDS {
        s.clear().await?;
        put_all(s, ["source", "d/1"]).await?;
        if there {
            put_all(s, ["d/x"]).await?;
        }
        let first = s.begin().await?;
        find(&first, what).await?;
        // It relies on what the first has not yet written, and changes what the first has found.
        let other = other.clone();
        let mut second = tokio::spawn(async move {
            let tx = other.begin().await?;
            let saw = tx.get("mine").await?.is_some();
            if there {
                tx.delete("d/x").await?;
            } else {
                tx.put("d/x", "new").await?;
            }
            tx.commit().await.map(|()| saw)
        });
        let waited = timeout(Duration::from_millis(60), &mut second).await;
        let committed = async {
            first.put("mine", "new").await?;
            first.commit().await
        };
        let committed = gave_way(what, committed.await)?.is_some();
        let second = match waited {
            Ok(ended) => ended,
            Err(_) => second.await,
        };
        let second = second.map_err(|e| format!("a task of the check ended early: {e}"))?;
        let saw = gave_way(what, second)?;
        expect(!committed || saw != Some(false), || {
            let change = if there { "deleted" } else { "created" };
            format!(
                "{what}: expected a conflict for a transaction that found \"d/x\" before another {change} it, saw both commit"
            )
        })?;
    }
    Ok(())
}

/// Ways to find out about `d/x`, and whether it is there.
const FINDS: [(&str, bool); 25] = [
    ("a get", true),
    ("a get", false),
    ("a stat", true),
    ("a stat", false),
    ("has", true),
    ("has", false),
    ("a range", true),
    ("a range", false),
    ("a batch of gets", true),
    ("a batch of gets", false),
    ("a listing", true),
    ("a listing", false),
    ("a listing of everything", false),
    ("one level", true),
    ("one level", false),
    ("keys behind another", false),
    ("a query", true),
    ("a query", false),
    ("a copy", true),
    ("a refused creation", true),
    ("a refused copy", true),
    ("a delete", false),
    ("a batch of deletes", false),
    ("a clear", false),
    ("a get among a thousand writes", true),
];

async fn find(tx: &Tx, what: &str) -> Outcome {
    let absent = || Condition::IfAbsent;
    match what {
        "a get" => drop(tx.get("d/x").await?),
        "a stat" => drop(tx.stat("d/x").await?),
        "has" => drop(tx.has("d/x").await?),
        "a range" => drop(tx.get_with("d/x", GetOptions::new().range(0..1)).await?),
        "a batch of gets" => drop(tx.get_batch(["d/1", "d/x"]).await?),
        "a listing" => drop(keys(tx, "d/").await?),
        "a listing of everything" => drop(keys(tx, "").await?),
        "one level" => drop(positions(tx, ListOptions::new().prefix("d/").delimited(true)).await?),
        "keys behind another" => drop(positions(tx, ListOptions::new().start_after("d/1").limit(5)).await?),
        "a query" => drop(keys_of(tx.query(Query::new().prefix("d/")).await?).await?),
        "a copy" => drop(tx.copy("d/x", "copy").await?),
        "a refused creation" => {
            let options = PutOptions::new().condition(absent());
            expect_kind("a creation of what exists", tx.put_with("d/x", "v", options).await, ErrorKind::AlreadyExists)?;
        }
        "a refused copy" => {
            let options = CopyOptions::new().condition(absent());
            let refused = tx.copy_with("source", "d/x", options).await;
            expect_kind("a copy over what exists", refused, ErrorKind::AlreadyExists)?;
        }
        "a delete" => tx.delete("d/x").await?,
        "a batch of deletes" => tx.delete_batch(["d/x"]).await?,
        "a clear" => tx.clear_prefix("d/x").await?,
        _ => {
            expect_value(tx, "d/x", Some(b"d/x")).await?;
            put_all(tx, (0..1050).map(|i| format!("many/{i:04}"))).await?;
        }
    }
    Ok(())
}

/// What a transaction returned; `None` for one that met a conflict.
fn gave_way<T>(what: &str, result: Result<T>) -> Outcome<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(e) if e.kind() == ErrorKind::Conflict => Ok(None),
        Err(e) => Err(format!("{what}: expected success or a conflict, saw {e:?}").into()),
    }
}

/// Whatever is done in a transaction, nobody outside sees it before its end, and after a rollback nobody ever does.
/// Needs: transactions
pub async fn nothing_gets_out_before_the_end(c: Context) -> Outcome {
    let (s, other) = (&c.storage, c.second_handle().await?);
    put_all(s, ["a", "b"]).await?;
    let before = picture(s).await?;
    let ways: [(&str, usize); 9] = [
        ("put", 0),
        ("stream", 1),
        ("copy", 2),
        ("rename", 3),
        ("delete", 4),
        ("batch of puts", 5),
        ("batch of deletes", 6),
        ("clear", 7),
        ("rename of what it wrote", 8),
    ];
    for (what, way) in ways {
        let tx = s.begin().await?;
        match way {
            0 => drop(tx.put("a", "new").await?),
            1 => drop(tx.put("new", Body::stream(pieces("new".into(), 1))).await?),
            2 => drop(tx.copy("a", "b").await?),
            3 => drop(tx.rename("a", "new").await?),
            4 => tx.delete("a").await?,
            5 => drop(tx.put_batch([("a", "new"), ("new", "new")]).await?),
            6 => tx.delete_batch(["a", "b"]).await?,
            7 => tx.clear_prefix("a").await?,
            _ => {
                tx.put("new", "new").await?;
                tx.rename("new", "b").await?;
            }
        }
        expect_eq(
            &format!("what is outside while a transaction has done a {what}"),
            picture(&other).await?,
            &before[..],
        )?;
        tx.rollback().await?;
        expect_eq(&format!("what is left of a {what} that was rolled back"), picture(s).await?, &before[..])?;
    }
    Ok(())
}

/// Keys, values, etags and versions.
async fn picture(s: &Storage) -> Outcome<Vec<String>> {
    let mut seen = Vec::new();
    for key in keys(s, "").await? {
        let entry = entry(s, &key).await?;
        seen.push(format!("{key} = {:?}, {:?}", s.get(&key).await?, entry.etag));
    }
    if s.info().capabilities.versioning {
        for key in ["a", "b", "new"] {
            seen.push(format!("versions of {key}: {:?}", versions(s, key).await?));
        }
    }
    Ok(seen)
}

async fn versions(s: &Storage, key: &str) -> Outcome<Vec<Option<Etag>>> {
    let versions: Vec<Entry> = s.versions(key).await?.try_collect().await?;
    Ok(versions.into_iter().map(|entry| entry.etag).collect())
}

/// A transaction sees the versions that it has made itself, and reads them.
/// Needs: transactions, versioning
pub async fn own_versions_are_seen(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a", "b"]).await?;
    let tx = s.begin().await?;
    let before = versions(&tx, "a").await?;
    let written = tx.put("a", "new").await?;
    let expected: Vec<_> = [written.etag.clone()].into_iter().chain(before).collect();
    expect_eq("the versions within", versions(&tx, "a").await?, &expected[..])?;
    let id = expect_some("the version put", written.version)?;
    let read = tx.get_with("a", GetOptions::new().version(id)).await?;
    expect_eq("the version that was written within", read, Some("new".into()))?;
    let copied = tx.copy("a", "b").await?;
    expect_eq("the newest version of a copy", versions(&tx, "b").await?.first(), Some(&copied.etag))?;
    tx.delete("a").await?;
    expect_eq("the versions of a key deleted within", versions(&tx, "a").await?, &expected[..])?;
    tx.commit().await?;
    expect_eq("the versions afterwards", versions(s, "a").await?, &expected[..])
}

/// Within a transaction every way to write heeds its condition, deletes included.
/// Needs: transactions, conditional
pub async fn conditions_hold_in_every_way(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["a", "b"]).await?;
    let old = expect_some("the etag", entry(s, "a").await?.etag)?;
    s.put("a", "a").await?;
    // Only where etags are unique does one change when equal bytes are written.
    s.put("a", "newer").await?;
    for own in [false, true] {
        let tx = s.begin().await?;
        let mut stale = old.clone();
        if own {
            stale = expect_some("the etag", entry(&tx, "a").await?.etag)?;
            tx.put("a", "newest").await?;
        }
        let stale = Condition::IfMatch(stale);
        let put = |condition: &Condition| PutOptions::new().condition(condition.clone());
        let stream = Body::stream(pieces("never".into(), 2));
        let mut refused = vec![
            ("a put", tx.put_with("a", "never", put(&stale)).await.err()),
            ("a put of a stream", tx.put_with("a", stream, put(&stale)).await.err()),
            ("a copy", tx.copy_with("b", "a", CopyOptions::new().condition(stale.clone())).await.err()),
            ("a rename", tx.rename_with("b", "a", RenameOptions::new().condition(stale.clone())).await.err()),
        ];
        refused
            .push(("an item of a batch", of_batch(tx.put_batch_with([("a", "never", put(&stale))], batch()).await)?));
        if s.info().capabilities.conditional_delete {
            let delete = || DeleteOptions::new().condition(stale.clone());
            refused.push(("a delete", tx.delete_with("a", delete()).await.err()));
            refused.push(("a delete in a batch", of_batch(tx.delete_batch_with([("a", delete())], batch()).await)?));
            let nothing = || DeleteOptions::new().condition(stale.clone());
            refused.push(("a delete of an absent key", tx.delete_with("absent", nothing()).await.err()));
        }
        for (what, error) in refused {
            let error = error.map_or(Ok(()), Err);
            expect_kind(
                &format!("{what} within a transaction with a stale etag"),
                error,
                ErrorKind::PreconditionFailed,
            )?;
        }
        let absent = Condition::IfAbsent;
        let refused = [
            ("a put", tx.put_with("a", "never", put(&absent)).await.err()),
            ("a copy", tx.copy_with("b", "a", CopyOptions::new().condition(absent.clone())).await.err()),
            ("a rename", tx.rename_with("b", "a", RenameOptions::new().condition(absent.clone())).await.err()),
            ("an item of a batch", of_batch(tx.put_batch_with([("a", "never", put(&absent))], batch()).await)?),
        ];
        for (what, error) in refused {
            let error = error.map_or(Ok(()), Err);
            expect_kind(&format!("{what} within a transaction, if absent"), error, ErrorKind::AlreadyExists)?;
        }
        if s.info().capabilities.conditional_delete {
            let current = expect_some("the etag", entry(&tx, "a").await?.etag)?;
            tx.delete_with("a", DeleteOptions::new().condition(Condition::IfMatch(current))).await?;
            expect_value(&tx, "a", None).await?;
            tx.put("a", "again").await?;
        }
        tx.commit().await?;
        let seen = s.get("b").await?;
        expect_eq("the source of refused copies and renames", seen, Some("b".into()))?;
    }
    Ok(())
}

fn batch() -> BatchOptions {
    BatchOptions::new()
}

/// The error of a batch of one item.
fn of_batch<T>(results: Result<Vec<Result<T>>>) -> Outcome<Option<storage_core::Error>> {
    let result = expect_some("the result of a batch of one", results?.pop())?;
    Ok(result.err())
}

/// Any range of a large value that was streamed within a transaction is that part of it, within and afterwards.
/// Needs: transactions
pub async fn ranges_of_large_values_within(c: Context) -> Outcome {
    let (s, value) = (&c.storage, noise(c.size(1_100_000), 4));
    let len = value.len();
    let tx = s.begin().await?;
    tx.put("large", Body::stream(pieces(value.clone(), 100_003))).await?;
    tx.copy("large", "copy").await?;
    let mut rng = c.rng();
    let mut ranges = vec![(0, 1), (0, len), (len - 1, len), (len / 2, len / 2 + 1)];
    for boundary in [1 << 16, 1 << 18, 1 << 19, 1 << 20, 100_003].into_iter().filter(|at| at + 2 < len) {
        ranges.extend([(boundary - 1, boundary + 1), (boundary, boundary + 2), (0, boundary), (boundary, len)]);
    }
    for _ in 0..8 {
        let start = rng.usize(0..len);
        ranges.push((start, rng.usize(start..=len)));
    }
    for (start, end) in &ranges {
        let range = *start as u64..*end as u64;
        for key in ["large", "copy"] {
            let seen = expect_some("the value", tx.get_with(key, GetOptions::new().range(range.clone())).await?)?;
            expect_bytes(&format!("the range {range:?} within a transaction"), &seen, &value[*start..*end])?;
        }
    }
    let last = GetOptions::new().range(storage_core::ByteRange::Suffix(1000.min(len as u64)));
    let seen = expect_some("the value", tx.get_with("large", last).await?)?;
    expect_bytes("the last 1,000 bytes within a transaction", &seen, &value[len - 1000.min(len)..])?;
    tx.commit().await?;
    for (start, end) in ranges {
        let range = start as u64..end as u64;
        let seen = expect_some("the value", s.get_with("large", GetOptions::new().range(range.clone())).await?)?;
        expect_bytes(&format!("the range {range:?} after the commit"), &seen, &value[start..end])?;
    }
    Ok(())
}

/// A listing goes on behind any number of keys that were deleted, within a transaction and afterwards.
/// Needs: transactions
pub async fn listings_pass_over_deleted_keys(c: Context) -> Outcome {
    let s = &c.storage;
    let all: Vec<String> = (0..1400).map(|i| format!("k{:02}/{i:04}", i / 100)).collect();
    put_all(s, &all).await?;
    let tx = s.begin().await?;
    // Holes of 600 by one batch, of 300 by a clear, and of 2 by one delete each.
    tx.delete_batch(&all[50..650]).await?;
    for decade in ["k08/", "k09/", "k10/"] {
        tx.clear_prefix(decade).await?;
    }
    tx.delete(&all[1200]).await?;
    tx.delete(&all[1202]).await?;
    let gone = |i: usize| (50..650).contains(&i) || (800..1100).contains(&i) || i == 1200 || i == 1202;
    let left: Vec<&String> = all.iter().enumerate().filter(|(i, _)| !gone(*i)).map(|(_, key)| key).collect();
    listed(&tx, &left, "within").await?;
    tx.commit().await?;
    listed(s, &left, "after the commit").await
}

async fn listed(s: &Storage, left: &[&String], when: &str) -> Outcome {
    expect_eq(&format!("the number of keys {when}"), keys(s, "").await?.len(), left.len())?;
    expect(keys(s, "").await?.iter().eq(left.iter().copied()), || {
        format!("expected the keys that are left {when}, saw others")
    })?;
    let after = positions(s, ListOptions::new().start_after(left[49].as_str()).limit(3)).await?;
    expect_eq(&format!("three keys behind the hole {when}"), after.iter().collect::<Vec<_>>(), &left[50..53])?;
    let within: Vec<ListItem> = s.list_with(ListOptions::new().delimited(true)).await?.try_collect().await?;
    let mut prefixes: Vec<&str> = left.iter().map(|key| &key[..4]).collect();
    prefixes.dedup();
    let seen: Vec<&str> = within.iter().map(ListItem::position).collect();
    expect_eq(&format!("one level {when}"), seen, prefixes)
}

/// `created` of a key that a transaction writes is that of its first write, as outside.
/// Needs: transactions
pub async fn created_stays(c: Context) -> Outcome {
    let s = &c.storage;
    put_all(s, ["put", "copy", "rename", "batch", "source", "other"]).await?;
    let Some(first) = entry(s, "put").await?.created else {
        return Err(Failure::NotRun("the time of the first write is not known".into()));
    };
    let created = |s: Storage| async move {
        let mut all = Vec::new();
        for key in ["put", "copy", "rename", "batch"] {
            all.push(entry(&s, key).await?.created);
        }
        Outcome::Ok(all)
    };
    let before = created(s.clone()).await?;
    // The clock has moved on by then, whatever its steps.
    tokio::time::sleep(c.info().limits.time_granularity.min(Duration::from_secs(1)) * 11 / 10).await;
    let tx = s.begin().await?;
    tx.put("put", "new").await?;
    tx.copy("source", "copy").await?;
    tx.rename("other", "rename").await?;
    tx.put_batch([("batch", "new"), ("fresh", "new")]).await?;
    let within = entry(&tx, "put").await?.created;
    expect_eq("created within", within, Some(first))?;
    tx.commit().await?;
    expect_eq("created after the commit", created(s.clone()).await?, before)?;
    let fresh = expect_some("created of a new key", entry(s, "fresh").await?.created)?;
    expect(fresh >= first, || format!("created of a new key: expected {first:?} or later, saw {fresh:?}"))
}

/// However much a transaction has written is committed, put by put, in batches and in deletes.
/// Needs: transactions
pub async fn all_of_many_writes_is_committed(c: Context) -> Outcome {
    /// More than any round number at which a store may begin a new page.
    const MANY: usize = 1100;
    let s = &c.storage;
    let begun = Instant::now();
    s.put("d0000", "").await?;
    // Of a slow store fewer are asked.
    let writes = if begun.elapsed() < Duration::from_millis(50) { MANY } else { 520 };
    let all: Vec<String> = (0..writes).map(|i| format!("k{i:04}")).collect();
    let doomed: Vec<String> = (0..writes).map(|i| format!("d{i:04}")).collect();
    put_all(s, &doomed).await?;
    let tx = s.begin().await?;
    let (mut pace, mut single) = (Pace::new(300, 8, writes), 0);
    while pace.goes_on(single) {
        tx.put(&all[single], all[single].clone()).await?;
        tx.delete(&doomed[single]).await?;
        single += 1;
    }
    // A slow store gets the rest in batches.
    if single < writes {
        put_all(&tx, &all[single..]).await?;
        tx.delete_batch(&doomed[single..]).await?;
    }
    expect_eq("the number of keys within", keys(&tx, "").await?.len(), writes)?;
    tx.commit().await?;
    expect(keys(s, "").await? == all, || {
        "expected the keys that were put and none that was deleted, saw others".into()
    })?;
    for key in [0, 255, 256, 499, 500, 511, 512, 999, 1000, 1023, 1024, MANY - 1].into_iter().filter_map(|i| all.get(i))
    {
        expect_value(s, key, Some(key.as_bytes())).await?;
    }
    Ok(())
}
