//! Many at once, on real threads.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use storage_core::{Condition, Consistency, Error, ErrorKind, GetOptions, Metadata, PutOptions, Storage};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq, expect_some},
    linearize::{Event, Operation, is_linearizable, shortest},
    process::{Child, say},
    support::{entry, expect_value, keeps_metadata, keys, looked_at_while, race, with_on},
};

/// Threads that race.
const THREADS: usize = 4;

/// Read, add one, write if unchanged: of such updates on four threads none is lost.
/// Needs: conditional
pub async fn counter_loses_no_update(c: Context) -> Outcome {
    const EACH: usize = 15;
    let handles = handles(&c).await?;
    c.storage.put("n", "0").await?;
    race(THREADS, move |i| {
        let s = handles[i].clone();
        async move { add(&s, EACH).await }
    })
    .await?;
    expect_value(&c.storage, "n", Some((THREADS * EACH).to_string().as_bytes())).await
}

/// Several processes that read, add one and write if unchanged lose no update.
/// Needs: conditional
pub async fn two_processes(c: Context) -> Outcome {
    const EACH: usize = 15;
    if c.info().consistency == Consistency::ProcessLocal {
        return Err(Failure::NotRun("what another instance writes need not be seen".into()));
    }
    c.storage.put("n", "0").await?;
    let mut others = [c.process("count", EACH as u64)?, c.process("count", EACH as u64)?];
    for other in &mut others {
        other.expect("ready").await?;
    }
    for other in &mut others {
        other.say("go")?;
    }
    add(&c.storage, EACH).await?;
    for other in &mut others {
        other.expect("done").await?;
    }
    // An instance that promises to see only its own writes may not know yet what the others made of it.
    let reader = match c.info().consistency {
        Consistency::ProcessLocal => c.open_again().await?,
        _ => c.storage.clone(),
    };
    expect_value(&reader, "n", Some((3 * EACH).to_string().as_bytes())).await
}

/// The other processes' part.
pub(crate) async fn count(child: Child) -> Outcome {
    let s = child.open().await?;
    say("ready");
    child.hear().await;
    add(&s, child.argument as usize).await?;
    say("done");
    Ok(())
}

/// Writes of different keys at the same time all land, each with its own value.
pub async fn writers_all_land(c: Context) -> Outcome {
    const EACH: usize = 40;
    let handles = handles(&c).await?;
    race(THREADS, move |i| {
        let s = handles[i].clone();
        async move {
            for n in 0..EACH {
                let key = format!("{}/{i}-{n}", n % 5);
                s.put(&key, key.clone()).await?;
            }
            Ok(())
        }
    })
    .await?;
    let seen = keys(&c.storage, "").await?;
    expect_eq("the number of keys", seen.len(), THREADS * EACH)?;
    for key in seen {
        expect_value(&c.storage, &key, Some(key.as_bytes())).await?;
    }
    Ok(())
}

/// A reader sees the old value with the old metadata or the new with the new, never a mix or a part.
/// Needs: atomic
pub async fn no_torn_reads(c: Context) -> Outcome {
    let handles = handles(&c).await?;
    // A mix of two versions of the same size looks like one of them.
    let sizes = [c.size(200_000), c.size(200_000), c.size(70_000), c.size(70_000)];
    write(&c.storage, 0, &sizes).await?;
    let replace = move |s: Storage, n| async move { write(&s, n, &sizes).await.map(drop) };
    looked_at_while(handles, replace, |s| async move {
        let object = expect_some("the value while it is replaced", s.open("key", GetOptions::new()).await?)?;
        let entry = object.entry;
        let bytes = match object.body.bytes(u64::MAX).await {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::Conflict => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let metadata = entry.metadata.unwrap_or_default();
        let kept = keeps_metadata(&s);
        expect(bytes.windows(2).all(|pair| pair[0] == pair[1]), || "expected bytes of one write, saw a mix".into())?;
        expect_eq("the size in the entry", entry.size, bytes.len() as u64)?;
        let first = bytes.first().copied().unwrap_or_default();
        let expected = if kept { Metadata::new().field("n", i64::from(first)) } else { Metadata::new() };
        expect_eq("the metadata beside the bytes", &*metadata, &expected)
    })
    .await
}

/// A value is never absent while it is replaced, neither to a read nor to a stat nor to a listing.
/// Needs: atomic
pub async fn read_during_replace(c: Context) -> Outcome {
    let handles = handles(&c).await?;
    let sizes = [c.size(100_000), 10, c.size(30_000), c.size(3000)];
    write(&c.storage, 0, &sizes).await?;
    let replace = move |s: Storage, n| async move { write(&s, n, &sizes).await.map(drop) };
    looked_at_while(handles, replace, |s| async move {
        let read = s.open("key", GetOptions::new()).await?;
        expect(read.is_some(), || "expected a value while it is replaced, saw none".into())?;
        expect_some("the entry while it is replaced", s.stat("key").await?)?;
        expect_eq("the keys while one is replaced", keys(&s, "").await?, ["key"])
    })
    .await
}

/// Puts of one key that race leave the value and metadata of one of them.
pub async fn racing_puts_leave_one_whole(c: Context) -> Outcome {
    let handles = handles(&c).await?;
    for round in 0..10 {
        let handles = handles.clone();
        let sizes = [c.size(100_000), 10, c.size(60_000), c.size(2000)];
        let entries = race(THREADS, move |i| {
            let s = handles[i].clone();
            async move { write(&s, i, &sizes).await }
        });
        let etags: BTreeSet<_> = entries.await?.into_iter().collect();
        let bytes = expect_some("the value", c.storage.get("key").await?)?;
        let first = bytes.first().copied().unwrap_or_default();
        expect(bytes.iter().all(|byte| *byte == first), || {
            format!("round {round}: expected the bytes of one put, saw a mix")
        })?;
        expect_eq("the number of bytes", bytes.len(), sizes[usize::from(first)])?;
        let seen = entry(&c.storage, "key").await?;
        expect_eq("the size", seen.size, bytes.len() as u64)?;
        expect(etags.contains(&seen.etag.map(|etag| etag.to_string())), || {
            format!("round {round}: expected the etag of one of the puts, saw another")
        })?;
    }
    Ok(())
}

/// Reads, writes and deletes of one key, seen from outside, have an order in which each takes effect at one moment
/// between its beginning and its end.
/// Needs: atomic
pub async fn linearizable_history(c: Context) -> Outcome {
    let handles = handles(&c).await?;
    let clock = Arc::new(AtomicUsize::new(0));
    let mut rng = c.rng();
    for round in 0..12 {
        let key = format!("register{round}");
        let (racing, time, seed) = (handles.clone(), clock.clone(), rng.u64(..));
        let contested = key.clone();
        let history = race(THREADS, move |i| {
            let (s, clock, key) = (racing[i].clone(), time.clone(), contested.clone());
            let mut rng = fastrand::Rng::with_seed(seed ^ i as u64);
            async move {
                let mut events = Vec::new();
                for n in 0..5 {
                    let write = match rng.u8(0..8) {
                        0 => Some(0),
                        1..4 => Some((i * 100 + n + 1) as u32),
                        _ => None,
                    };
                    events.push(event(&s, &clock, &key, write).await?);
                }
                Ok(events)
            }
        });
        let mut history: Vec<Event> = history.await?.into_iter().flatten().collect();
        // What the race has left behind is what everybody sees then, and so is a write that nobody disturbs.
        for (i, write) in [(0, None), (1, None), (1, Some(1000)), (0, None), (0, Some(1001)), (1, None)] {
            history.push(event(&handles[i], &clock, &key, write).await?);
        }
        expect(is_linearizable(&history), || {
            let mut least = shortest(&history);
            least.sort_by_key(|event| event.started);
            let lines = least.iter().map(|event| format!("\n    {event}"));
            c.calls().show("calls on one key, the fewest that have no order", lines.collect());
            "expected an order in which each call takes effect between its begin and its end, saw none".into()
        })?;
    }
    Ok(())
}

/// Writes the number under the key, where 0 deletes it, or reads the number there.
async fn event(s: &Storage, clock: &AtomicUsize, key: &str, write: Option<u32>) -> storage_core::Result<Event> {
    let started = clock.fetch_add(1, Ordering::SeqCst);
    let operation = match write {
        Some(0) => s.delete(key).await.map(|()| Operation::Write(0))?,
        Some(value) => s.put(key, value.to_string()).await.map(|_| Operation::Write(value))?,
        None => match s.get(key).await? {
            None => Operation::Read(0),
            Some(bytes) => Operation::Read(number(&bytes)? as u32),
        },
    };
    let ended = Some(clock.fetch_add(1, Ordering::SeqCst));
    Ok(Event { started, ended, operation })
}

/// Adds one to the counter, so many times.
async fn add(s: &Storage, times: usize) -> Outcome {
    let mut done = 0;
    while done < times {
        let object = expect_some("the counter", s.open("n", GetOptions::new()).await?)?;
        let etag = expect_some("the etag", object.entry.etag)?;
        let seen = number(&object.body.bytes(100).await?)?;
        // Others have read it too by then.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let options = PutOptions::new().condition(Condition::IfMatch(etag));
        match s.put_with("n", (seen + 1).to_string(), options).await {
            Ok(_) => done += 1,
            Err(e) if e.kind() == ErrorKind::PreconditionFailed => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Handles for the threads, every second one of another instance.
async fn handles(c: &Context) -> Outcome<Vec<Storage>> {
    let other = c.second_handle().await?;
    Ok((0..THREADS).map(|i| if i % 2 == 0 { c.storage.clone() } else { other.clone() }).collect())
}

/// Puts as many bytes as the writer's number says, all of which are that number, which is also in the metadata.
async fn write(s: &Storage, number: usize, sizes: &[usize; 4]) -> Outcome<Option<String>> {
    let byte = (number % sizes.len()) as u8;
    let value = vec![byte; sizes[usize::from(byte)]];
    let metadata = Metadata::new().field("n", i64::from(byte));
    let written = s.put_with("key", value, with_on(s, metadata)).await?;
    Ok(written.etag.map(|etag| etag.to_string()))
}

fn number(bytes: &[u8]) -> storage_core::Result<usize> {
    let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, format!("expected a number, saw {:?}", bytes.escape_ascii().to_string()))
    })
}
