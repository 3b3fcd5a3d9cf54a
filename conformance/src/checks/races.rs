//! Calls that meet: in one task, where every await of the store lets others in, and on threads.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use storage_core::{
    BatchOptions, Body, Bytes, Error, ErrorKind, GetOptions, ListOptions, PutOptions, Query, Result, Storage,
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_bytes, expect_eq, expect_some},
    clients::{If, KEYS, Op, Verb, every_op},
    interleave::{Pace, breathe, interleaved},
    meet::{Round, calls, in_one_task, on_threads, there_for},
    support::{entry, expect_value, joined, keys, noise, pieces, put_all},
};

/// In one task, where every await of the store lets others in, calls of every kind beside calls of every other take effect
/// as a whole, each at one moment.
/// Needs: atomic
pub async fn every_call_beside_every_other(c: Context) -> Outcome {
    in_one_task(&c, "task", &pairs(&c, &mut c.rng()), 400).await
}

/// On threads too, calls of every kind beside calls of every other take effect as a whole, each at one moment.
/// Needs: atomic
pub async fn every_call_beside_every_other_on_threads(c: Context) -> Outcome {
    on_threads(&c, "threads", pairs(&c, &mut c.rng()), 400).await
}

/// A round for every pair of calls of which one writes, in an order that the seed decides.
fn pairs(c: &Context, rng: &mut Rng) -> Vec<Round> {
    let every = every_op(&c.storage);
    let mut pairs = Vec::new();
    for (i, first) in every.iter().enumerate() {
        let others = every[i..].iter().filter(|second| !first.0.is_read() || !second.0.is_read());
        pairs.extend(others.map(|second| (*first, *second)));
    }
    rng.shuffle(&mut pairs);
    let reads = [Verb::Get, Verb::GetPieces, Verb::List, Verb::Stat];
    let round = |(first, second)| {
        let (first, second) = (on_a(rng, first), on_a(rng, second));
        let there = there_for(rng, &[first, second]);
        let mut any = || {
            let pick = every[rng.usize(0..every.len())];
            on_a(rng, pick)
        };
        let (after_first, after_second, others) = (any(), any(), [any(), any()]);
        // Somebody looks while the two are under way.
        let look = Op { verb: reads[rng.usize(0..reads.len())], when: If::Always, key: first.key };
        let programs =
            vec![calls([first, after_first]), calls([second, after_second]), calls([look, others[0], others[1]])];
        Round::new(rng, there, programs)
    };
    pairs.into_iter().map(round).collect()
}

/// The call on the key that all contend for, mostly.
fn on_a(rng: &mut Rng, (verb, when): (Verb, If)) -> Op {
    Op { verb, when, key: usize::from(rng.u8(0..4) == 0) }
}

/// Of creators that race one wins, whichever way each takes: put, stream, batch, copy or rename.
/// Needs: conditional
pub async fn one_creator_wins_whatever_the_way(c: Context) -> Outcome {
    contended(&c, If::Absent, [false, true]).await
}

/// Of updates and deletes of one etag that race one wins, whichever way each takes.
/// Needs: conditional
pub async fn one_updater_wins_whatever_the_way(c: Context) -> Outcome {
    contended(&c, If::Match, [true, true]).await
}

/// Every way to write the first key under the condition against every other, in one task and on threads.
async fn contended(c: &Context, when: If, there: [bool; KEYS]) -> Outcome {
    let mut rng = c.rng();
    let ways: Vec<_> = every_op(&c.storage).into_iter().filter(|way| way.1 == when).collect();
    let mut rounds = |times: usize| {
        let mut all = Vec::new();
        for _ in 0..times {
            for (i, first) in ways.iter().enumerate() {
                for second in &ways[i..] {
                    let op = |way: &(Verb, If)| Op { verb: way.0, when, key: 0 };
                    let look = Op { verb: Verb::Get, when: If::Always, key: 0 };
                    let programs = vec![calls([op(first)]), calls([op(second)]), calls([look])];
                    all.push(Round::new(&mut rng, there, programs));
                }
            }
        }
        rng.shuffle(&mut all);
        all
    };
    let (first, second) = (rounds(2), rounds(12));
    in_one_task(c, "task", &first, 200).await?;
    on_threads(c, "threads", second, 200).await
}

/// A rename never removes a source that was written meanwhile: it is `Conflict`, and both are kept.
/// Needs: conditional_delete
pub async fn rename_spares_what_was_written_meanwhile(c: Context) -> Outcome {
    let mut rng = c.rng();
    let writes: Vec<_> = every_op(&c.storage).into_iter().filter(|(verb, _)| !verb.is_read()).collect();
    let mut rounds = |times: usize| {
        let mut all = Vec::new();
        for _ in 0..times {
            for (verb, when) in &writes {
                let rename = Op { verb: Verb::Rename, when: If::Always, key: 1 };
                let write = Op { verb: *verb, when: *when, key: 0 };
                let programs = vec![calls([rename]), calls([write])];
                all.push(Round::new(&mut rng, [true, matches!(verb, Verb::Copy | Verb::Rename)], programs));
            }
        }
        all
    };
    let (first, second) = (rounds(4), rounds(20));
    in_one_task(&c, "task", &first, 200).await?;
    on_threads(&c, "threads", second, 200).await
}

/// Two streams at the same time do not mix, be it of one key, of keys that begin alike, or of two items of a batch.
pub async fn streams_at_once_keep_apart(c: Context) -> Outcome {
    let (s, other, mut rng) = (&c.storage, c.second_handle().await?, c.rng());
    let long = "long/".repeat(60);
    let (long_a, long_b) = (format!("{long}a"), format!("{long}b"));
    let names = [("same", "same"), ("a", "b"), ("a/b", "a-b"), ("A", "a"), (long_a.as_str(), long_b.as_str())];
    let mut pace = Pace::new(250, 4, 30);
    for round in 0.. {
        if !pace.goes_on(round) {
            break;
        }
        let (first, second) = names[round % names.len()];
        let size = c.size([24, 5000, 300_000][round / names.len() % 3]);
        let values = [noise(size, round as u64), noise(size, round as u64 + 1000)];
        let handles = [s, if round % 2 == 0 { s } else { &other }];
        let body = |i: usize| Body::stream(pieces(values[i].clone(), size / 5 + 1));
        if round % 6 == 5 && first != second {
            let items = [(first, body(0), PutOptions::new()), (second, body(1), PutOptions::new())];
            s.put_batch_with(items, BatchOptions::new()).await?.into_iter().collect::<Result<Vec<_>>>()?;
        } else {
            let put = |i: usize| {
                let (s, key, body) = (handles[i], [first, second][i], body(i));
                async move { s.put(key, body).await.map(drop) }.boxed()
            };
            let puts: Vec<BoxFuture<'_, Result<()>>> = vec![put(0), put(1)];
            interleaved(rng.u64(..), puts).await.into_iter().collect::<Result<Vec<()>>>()?;
        }
        if first == second {
            let seen = expect_some("the value", s.get(first).await?)?;
            let whole = values.contains(&seen);
            expect(whole, || {
                format!("two streams of {size} bytes to one key: expected the bytes of one, saw {} others", seen.len())
            })?;
        } else {
            expect_value(s, first, Some(&values[0])).await?;
            expect_value(s, second, Some(&values[1])).await?;
        }
    }
    Ok(())
}

/// Of a stream that broke off nothing is left in what is written next, nor in what was there.
pub async fn broken_streams_leave_nothing_behind(c: Context) -> Outcome {
    let s = &c.storage;
    let mut pace = Pace::new(250, 6, 72);
    for round in 0.. {
        if !pace.goes_on(round) {
            break;
        }
        // One byte more is declared than there are.
        let size = c.size([24, 5000, 300_000, 1_200_000][round / 18 % 4] + 1) - 1;
        let (value, lost) = (noise(size, round as u64), noise(size, 7000 + round as u64));
        s.put("key", value.clone()).await?;
        let piece = size / 3 + 1;
        let error = Error::new(ErrorKind::InvalidInput, "the check's own broken body");
        let broken = match round % 3 {
            0 => Body::stream(pieces(lost, piece).chain(stream::iter([Err(error)]))),
            1 => Body::with_len(size as u64 + 1, pieces(lost, piece)),
            _ => Body::stream(pieces(lost, piece).chain(stream::pending())),
        };
        // The last one is dropped when its pieces are taken, wherever the store has put them by then.
        match timeout(Duration::from_millis(3), s.put("key", broken)).await {
            Ok(Ok(_)) => return Err("a put of a broken body: expected an error, saw success".into()),
            Ok(Err(e)) => expect_eq("the error", e.kind(), ErrorKind::InvalidInput)?,
            Err(_) => {}
        }
        expect_value(s, "key", Some(&value)).await?;
        let next = noise(size / 2 + 3, 9000 + round as u64);
        let key = if round % 2 == 0 { "key" } else { "other" };
        let body = match round / 3 % 3 {
            0 => Body::stream(pieces(next.clone(), piece)),
            1 => Body::with_len(next.len() as u64, pieces(next.clone(), piece)),
            _ => next.clone().into(),
        };
        if round / 9 % 2 == 0 {
            s.put(key, body).await?;
        } else {
            s.put_batch([(key, body)]).await?;
        }
        expect_value(s, key, Some(&next)).await?;
        expect_eq("the size", entry(s, key).await?.size, next.len() as u64)?;
        s.delete(key).await?;
        expect_eq("the keys", keys(s, "").await?, if key == "key" { vec![] } else { vec!["key"] })?;
    }
    Ok(())
}

/// While a listing, an answer, versions or a value are being read, the same task can write and read, and what is being read
/// goes on.
pub async fn open_streams_block_nobody(c: Context) -> Outcome {
    let s = c.storage.clone();
    put_all(&s, (0..40).map(|i| format!("l/{i:02}"))).await?;
    let large = noise(c.size(600_000), 1);
    s.put("large", large.clone()).await?;
    let begun = Instant::now();
    s.put("w/a", "value").await?;
    // A store that waits for itself waits for ever.
    let limit = Duration::from_secs(6) + 20 * begun.elapsed();
    let (told, mut hears) = mpsc::unbounded_channel();
    let reading = tokio::spawn(async move { read_and_write(&s, &large, |what| _ = told.send(what)).await });
    let mut what = String::from("a listing");
    loop {
        match timeout(limit, hears.recv()).await {
            Ok(Some(next)) => what = next,
            Ok(None) => return joined(reading).await,
            Err(_) => {
                reading.abort();
                let limit = limit.as_secs_f32();
                return Err(Failure::Failed(format!("{what}: expected an end within {limit:.0} seconds, saw none")));
            }
        }
    }
}

/// Every kind of stream, and in the midst of each every kind of call. Says before each call which comes.
async fn read_and_write(s: &Storage, large: &Bytes, say: impl Fn(String)) -> Outcome {
    let versions = s.info().capabilities.versioning;
    for (i, opened) in ["a listing", "one level", "an answer", "versions", "a value"].iter().enumerate() {
        if *opened == "versions" && !versions {
            continue;
        }
        say(format!("the beginning of {opened}"));
        let listing = |delimited| s.list_with(ListOptions::new().prefix("l/").delimited(delimited).metadata(delimited));
        let mut stream = match i {
            0 | 1 => listing(i == 1).await?.map(|item| item.map(|_| 1)).boxed(),
            2 => s.query(Query::new().prefix("l/")).await?.map(|item| item.map(|_| 1)).boxed(),
            3 => s.versions("l/00").await?.map(|item| item.map(|_| 1)).boxed(),
            _ => {
                let object = expect_some("the value", s.open("large", GetOptions::new()).await?)?;
                object.body.into_stream().map(|piece| piece.map(|piece| piece.len())).boxed()
            }
        };
        let mut seen = stream.next().await.transpose()?.unwrap_or(0);
        for call in CALLS {
            say(format!("{call} while {opened} is being read in the same task"));
            amid(s, call).await?;
        }
        say(format!("the end of {opened}"));
        while let Some(more) = stream.next().await {
            seen += more?;
            breathe().await;
        }
        let expected = [40, 40, 40, 1, large.len()][i];
        expect_eq(&format!("{opened} that went on"), seen, expected)?;
    }
    expect_bytes("the value", &s.get("large").await?.unwrap_or_default(), large)
}

/// What is called in the midst of a stream.
const CALLS: [&str; 12] = [
    "a put",
    "a put of a new key",
    "a put of a stream",
    "a copy",
    "a rename",
    "a delete",
    "a batch of puts",
    "a batch of deletes",
    "a clear",
    "a get",
    "a stat",
    "a listing",
];

async fn amid(s: &Storage, call: &str) -> Outcome {
    match call {
        "a put" => drop(s.put("w/a", "value").await?),
        "a put of a new key" => drop(s.put("w/new", "value").await?),
        "a put of a stream" => drop(s.put("w/stream", Body::stream(pieces("value".into(), 2))).await?),
        "a copy" => drop(s.copy("w/a", "w/copy").await?),
        "a rename" => drop(s.rename("w/copy", "w/renamed").await?),
        "a delete" => s.delete("w/new").await?,
        "a batch of puts" => drop(s.put_batch([("w/1", "value"), ("w/2", "value")]).await?),
        "a batch of deletes" => s.delete_batch(["w/1", "w/2"]).await?,
        "a clear" => s.clear_prefix("w/r").await?,
        "a get" => drop(expect_some("the value", s.get("w/a").await?)?),
        "a stat" => drop(expect_some("the entry", s.stat("w/a").await?)?),
        _ => drop(keys(s, "w/").await?),
    }
    Ok(())
}
