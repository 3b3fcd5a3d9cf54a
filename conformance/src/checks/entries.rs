//! What a write returns and what an entry says, whichever way the value was written.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use storage_core::{
    BatchOptions, Body, Bytes, CopyOptions, Entry, Etag, GetOptions, Metadata, PutOptions, Query, Storage, VersionId,
};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq, expect_some},
    numbers::{Pace, around},
    support::{entry, expect_value, noise, pieces, with},
};

/// A way to write a value under the key `to`, of which there is a copy under `from`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Put,
    Streamed,
    Declared,
    InBatch,
    Copied,
    CopiedWithMetadata,
    Renamed,
}

const WAYS: [Way; 7] =
    [Way::Put, Way::Streamed, Way::Declared, Way::InBatch, Way::Copied, Way::CopiedWithMetadata, Way::Renamed];

/// Every kind of write returns the entry that it wrote, as a stat says it afterwards: over nothing, over another value, and the
/// same once more.
/// Profile: full
pub async fn every_write_returns_its_entry(c: Context) -> Outcome {
    let (s, pace) = (&c.storage, Pace::begin());
    let mut seen = Seen::default();
    let metadata = Metadata::new().content_type("text/plain").field("n", 1);
    for size in [5, 70_000, (5 << 20) + 1] {
        let value = noise(c.size(size), 31);
        for way in WAYS.into_iter().take_while(|_| pace.goes_on()) {
            for over in ["nothing", "another", "the same"] {
                let what = format!("{way:?} of {size} bytes over {over}");
                if over != "nothing" && size > 1 << 20 {
                    continue;
                }
                match over {
                    "nothing" => s.delete("to").await?,
                    "another" => drop(s.put("to", "another").await?),
                    _ => {}
                }
                let written = write(s, way, &value, &metadata).await?;
                let stat = entry(s, "to").await?;
                expect_eq(&format!("the metadata by stat, {what}"), stat.metadata.as_deref(), Some(&metadata))?;
                agree(&what, &written, &stat)?;
                seen.is_new(&c, &what, &stat)?;
                expect_value(s, "to", Some(&value)).await?;
            }
        }
    }
    Ok(())
}

/// What the answer to a write may lack is in every entry that is read afterwards, after a read of the bytes alone, too.
/// Profile: full
pub async fn reads_are_dated(c: Context) -> Outcome {
    let s = &c.storage;
    let (value, metadata) = (Bytes::from("value"), Metadata::new());
    for way in [Way::Put, Way::Streamed, Way::InBatch] {
        for reads_first in [false, true] {
            write(s, way, &value, &metadata).await?;
            if reads_first {
                expect_value(s, "to", Some(&value)).await?;
            }
            let listed: Vec<Entry> = s.list("to").await?.try_collect().await?;
            let listed = expect_some("the listed entry", listed.into_iter().next())?;
            let Some(modified) = listed.modified else {
                return Err(Failure::NotRun("the target's entries have no date of modification".into()));
            };
            let queried: Vec<Entry> = s.query(Query::new().prefix("to")).await?.try_collect().await?;
            let object = expect_some("the object", s.open("to", GetOptions::new()).await?)?;
            let collected = expect_some("the value", s.get_with_entry("to", GetOptions::new()).await?)?;
            let stat = entry(s, "to").await?;
            let again = entry(s, "to").await?;
            let queried = expect_some("the entry in the answer of a query", queried.into_iter().next())?;
            let reads = [
                ("query", queried),
                ("open", object.entry),
                ("get_with_entry", collected.1),
                ("stat", stat.clone()),
                ("the next stat", again),
            ];
            for (how, read) in reads {
                let what = format!("by {how} after {way:?}, the bytes read before: {reads_first}");
                expect_eq(&format!("the date {what}"), read.modified, Some(modified))?;
                if how != "query" {
                    expect_eq(&format!("created {what}"), read.created, stat.created)?;
                }
            }
        }
    }
    Ok(())
}

/// In a transaction too, every kind of write returns the entry that a stat says, within and after the commit.
/// Profile: full
/// Needs: transactions
pub async fn of_writes_in_a_transaction(c: Context) -> Outcome {
    let s = &c.storage;
    let metadata = Metadata::new().tag("t").field("n", 1);
    for way in WAYS {
        for over in ["nothing", "another"] {
            s.delete("to").await?;
            if over == "another" {
                s.put("to", "another").await?;
            }
            let value = noise(c.size(3000), 32);
            let tx = s.begin().await?;
            let written = write(&tx, way, &value, &metadata).await?;
            let within = entry(&tx, "to").await?;
            tx.commit().await?;
            let after = entry(s, "to").await?;
            for (when, stat) in [("within", within), ("after the commit", after)] {
                let what = format!("{way:?} in a transaction over {over}, seen {when}");
                expect_eq(&format!("the metadata by stat, {what}"), stat.metadata.as_deref(), Some(&metadata))?;
                agree(&what, &written, &stat)?;
            }
            expect_value(s, "to", Some(&value)).await?;
        }
    }
    Ok(())
}

/// Where `created` is known, no kind of write over a value changes it, and what the write returns says no other.
/// Profile: full
pub async fn created_stays_whatever_writes(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("to", "first").await?;
    let Some(created) = entry(s, "to").await?.created else {
        return Err(Failure::NotRun("the target's entries have no date of creation".into()));
    };
    for way in WAYS {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let written = write(s, way, &"value".into(), &Metadata::new().tag("t")).await?;
        let returned = written.created.unwrap_or(created);
        expect_eq(&format!("created in what {way:?} returned"), returned, created)?;
        expect_eq(&format!("created by stat after {way:?}"), entry(s, "to").await?.created, Some(created))?;
    }
    Ok(())
}

/// Writing equal bytes with equal metadata again is a write: where the store tells writes apart it has an etag, a version and a
/// date of its own.
/// Profile: full
pub async fn an_equal_write_is_a_write(c: Context) -> Outcome {
    let (s, step) = (&c.storage, c.info().limits.time_granularity);
    for way in WAYS {
        let (value, metadata) = (Bytes::from("equal"), Metadata::new().tag("equal"));
        let mut seen = Seen::default();
        for round in 0..3 {
            let before = s.stat("to").await?.and_then(|entry| entry.modified).filter(|_| round > 0);
            if step <= Duration::from_millis(5) {
                tokio::time::sleep(step * 2 + Duration::from_millis(2)).await;
            }
            write(s, way, &value, &metadata).await?;
            let stat = entry(s, "to").await?;
            let what = format!("{way:?} of equal bytes, time {}", round + 1);
            seen.is_new(&c, &what, &stat)?;
            let later = stat.modified > before || before.is_none() || step > Duration::from_millis(5);
            expect(later, || format!("{what}: expected a date after {before:?}, saw {:?}", stat.modified))?;
        }
    }
    Ok(())
}

/// An etag changes with any byte of a value, wherever it is, and with the number of them.
/// Profile: full
pub async fn etag_sees_every_byte(c: Context) -> Outcome {
    let (s, pace, mut rng) = (&c.storage, Pace::begin(), c.rng());
    for (len, streamed) in
        [(20, false), (9000, false), (200_000, false), (200_000, true), ((1 << 20) + 5, false), ((6 << 20) + 5, true)]
    {
        let len = c.size(len);
        let mut value = noise(len, 33).to_vec();
        let mut places: Vec<usize> = around(len).into_iter().filter(|at| *at >= 4095).collect();
        places.extend([0, 1, len / 2, len - 1, rng.usize(0..len), rng.usize(0..len)]);
        // Of a large value each write takes its time.
        let most = if len > 2 << 20 { 6 } else { 60 };
        places.drain(..places.len().saturating_sub(most));
        places.retain(|at| *at < len);
        let mut last = None;
        for at in std::iter::once(None).chain(places.into_iter().map(Some)).take_while(|_| pace.goes_on()) {
            if let Some(at) = at {
                value[at] ^= 1 << (at % 8);
            }
            let bytes = Bytes::copy_from_slice(&value);
            let body = if streamed { Body::stream(pieces(bytes, 300_000)) } else { bytes.into() };
            let etag = s.put("key", body).await?.etag;
            differs(&format!("byte {at:?} of {len} changed"), &mut last, etag)?;
        }
        for (what, changed) in [
            ("the last byte gone", value[..len - 1].to_vec()),
            ("two bytes exchanged", {
                value.swap(0, len - 1);
                value.rotate_left(1);
                value.clone()
            }),
            ("a zero more", [&value[..], &[0]].concat()),
        ] {
            if changed.len() <= c.size(usize::MAX) {
                differs(&format!("{what}, of {len} bytes"), &mut last, s.put("key", changed).await?.etag)?;
            }
        }
    }
    Ok(())
}

fn differs(what: &str, last: &mut Option<Etag>, etag: Option<Etag>) -> Outcome {
    let Some(etag) = etag else {
        return Err(Failure::NotRun("the target's entries have no etag".into()));
    };
    expect(last.as_ref() != Some(&etag), || format!("{what}: expected another etag, saw {etag} again"))?;
    *last = Some(etag);
    Ok(())
}

/// Writes the value with the metadata under `to`.
async fn write(s: &Storage, way: Way, value: &Bytes, metadata: &Metadata) -> Outcome<Entry> {
    let options = || with(metadata.clone());
    let size = (value.len() / 3).max(1);
    let written = match way {
        Way::Put => s.put_with("to", value.clone(), options()).await?,
        Way::Streamed => s.put_with("to", Body::stream(pieces(value.clone(), size)), options()).await?,
        Way::Declared => {
            let body = Body::with_len(value.len() as u64, pieces(value.clone(), size));
            s.put_with("to", body, options()).await?
        }
        Way::InBatch => {
            let items = [("beside", "v".into(), PutOptions::new()), ("to", value.clone(), options())];
            let results = s.put_batch_with(items, BatchOptions::new()).await?;
            expect_some("the result of an item", results.into_iter().nth(1))??
        }
        Way::Copied => {
            s.put_with("from", value.clone(), options()).await?;
            s.copy("from", "to").await?
        }
        Way::CopiedWithMetadata => {
            s.put_with("from", value.clone(), with(Metadata::new().tag("other"))).await?;
            s.copy_with("from", "to", CopyOptions::new().metadata(metadata.clone())).await?
        }
        Way::Renamed => {
            s.put_with("from", value.clone(), options()).await?;
            s.rename("from", "to").await?
        }
    };
    Ok(written)
}

/// What a write returned, and what a stat says. A write need not know dates and metadata, but what it says is so.
fn agree(what: &str, written: &Entry, stat: &Entry) -> Outcome {
    expect_eq(&format!("the key returned, {what}"), written.key.as_str(), stat.key.as_str())?;
    expect_eq(&format!("the size returned, {what}"), written.size, stat.size)?;
    expect_eq(&format!("the etag returned, {what}"), &written.etag, &stat.etag)?;
    expect_eq(&format!("the version returned, {what}"), &written.version, &stat.version)?;
    let modified = written.modified.or(stat.modified);
    expect_eq(&format!("the date returned, {what}"), modified, stat.modified)?;
    let created = written.created.or(stat.created);
    expect_eq(&format!("created returned, {what}"), created, stat.created)?;
    let metadata = written.metadata.clone().or(stat.metadata.clone());
    expect_eq(&format!("the metadata returned, {what}"), metadata, stat.metadata.as_ref().map(Arc::clone))
}

/// Etags and versions that were there, and of what.
#[derive(Default)]
struct Seen {
    etags: BTreeMap<Etag, String>,
    versions: BTreeMap<VersionId, String>,
}

impl Seen {
    fn is_new(&mut self, c: &Context, what: &str, entry: &Entry) -> Outcome {
        let capabilities = c.info().capabilities;
        if capabilities.version_etags {
            let etag = expect_some(&format!("the etag, {what}"), entry.etag.clone())?;
            if let Some(earlier) = self.etags.insert(etag.clone(), what.to_owned()) {
                return Err(format!("{what}: expected a new etag, saw {etag}, which was that of {earlier}").into());
            }
        }
        if capabilities.versioning {
            let version = expect_some(&format!("the version, {what}"), entry.version.clone())?;
            if let Some(earlier) = self.versions.insert(version.clone(), what.to_owned()) {
                return Err(
                    format!("{what}: expected a new version, saw {version}, which was that of {earlier}").into()
                );
            }
        }
        Ok(())
    }
}
