//! Values in pieces.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{Body, Bytes, Condition, Error, ErrorKind, GetOptions, Storage};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_bytes, expect_eq, expect_kind, expect_some},
    process::{Child, say},
    selection::variable,
    support::{all, entry, expect_value, keys, noise, pieces},
};

/// Bytes of the values here: several parts of whatever size a store splits them into.
const LARGE: usize = 11 << 20;

/// A value written in pieces of any size is the same value.
pub async fn chunked_equals_whole(c: Context) -> Outcome {
    let s = &c.storage;
    for (len, piece) in [(1000, 1), (100_000, 7777), (LARGE, 1 << 20), (LARGE, 100_003)] {
        let value = noise(c.size(len), len as u64);
        let written = s.put("key", Body::stream(pieces(value.clone(), piece))).await?;
        expect_eq("the size put", written.size, value.len() as u64)?;
        expect_eq("the size", entry(s, "key").await?.size, value.len() as u64)?;
        expect_value(s, "key", Some(&value)).await?;
    }
    Ok(())
}

/// A declared length changes nothing when it is right.
pub async fn declared_length(c: Context) -> Outcome {
    let s = &c.storage;
    for len in [0, 1, 5000, LARGE] {
        let value = noise(c.size(len), len as u64);
        let body = Body::with_len(value.len() as u64, pieces(value.clone(), 300_000));
        expect_eq("the size put", s.put("key", body).await?.size, value.len() as u64)?;
        expect_value(s, "key", Some(&value)).await?;
    }
    Ok(())
}

/// A stream without pieces is an empty value, and empty pieces do not end a stream.
pub async fn empty_pieces(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("empty", Body::stream(stream::empty())).await?;
    expect_value(s, "empty", Some(b"")).await?;
    let parts = ["", "a", "", "", "b", ""].map(|part| Ok(Bytes::from(part)));
    s.put("key", Body::stream(stream::iter(parts))).await?;
    expect_value(s, "key", Some(b"ab")).await
}

/// Read as a stream, a value is the same bytes in order.
pub async fn read_in_pieces(c: Context) -> Outcome {
    let value = noise(c.size(LARGE), 5);
    c.storage.put("key", value.clone()).await?;
    let mut seen = Vec::with_capacity(value.len());
    let object = expect_some("the object", c.storage.open("key", GetOptions::new()).await?)?;
    if let Some(len) = object.body.len() {
        expect_eq("the declared length", len, value.len() as u64)?;
    }
    let mut body = object.body.into_stream();
    while let Some(piece) = body.try_next().await? {
        seen.extend_from_slice(&piece);
    }
    expect_bytes("the value", &seen, &value)
}

/// The body of a large value is a stream of pieces that are small in comparison.
/// Needs: streaming
pub async fn pieces_are_bounded(c: Context) -> Outcome {
    let value = noise(c.size(4 * LARGE), 6);
    c.storage.put("key", Body::stream(pieces(value.clone(), 1 << 20))).await?;
    let object = expect_some("the object", c.storage.open("key", GetOptions::new()).await?)?;
    expect(!object.body.is_in_memory(), || "expected a stream as the body of a large value, saw it whole".into())?;
    let mut body = object.body.into_stream();
    let (mut largest, mut total) = (0, 0);
    while let Some(piece) = body.try_next().await? {
        largest = largest.max(piece.len());
        total += piece.len();
    }
    expect_eq("the number of bytes", total, value.len())?;
    expect(largest <= value.len() / 4, || format!("expected pieces of up to a quarter, saw one of {largest} bytes"))
}

/// A stream goes in and out in bounded memory, whatever its size: 64 MiB in a process that may grow by less than that. The
/// variable `STORAGE_CONFORMANCE_STREAM_MIB` asks for more.
/// Needs: streaming
pub async fn bounded_memory(c: Context) -> Outcome {
    /// Parts in flight and the like, for which the size of the stream does not matter.
    const BOUND_MIB: u64 = 40;
    let asked = variable("STREAM_MIB")?.map(|text| text.parse::<u64>());
    let asked = asked.transpose().map_err(|e| format!("STORAGE_CONFORMANCE_STREAM_MIB: {e}"))?.unwrap_or(64);
    if c.info().limits.value < asked << 20 {
        return Err(Failure::NotRun(format!("its values are smaller than {asked} MiB")));
    }
    let mut other = c.process("stream", asked)?;
    let started = peak(&other.hear().await?)?;
    for step in ["written", "read"] {
        let mut line = other.hear().await?;
        while line == MORE {
            line = other.hear().await?;
        }
        let grown = peak(&line)? - started;
        expect(grown <= BOUND_MIB << 10, || {
            format!(
                "{asked} MiB {step}: expected a process to grow by at most {BOUND_MIB} MiB, saw {} MiB",
                grown >> 10
            )
        })?;
    }
    other.expect("done").await
}

/// Said from time to time, so that a slow process does not count as hung.
const MORE: &str = "more";

/// The most KiB that the other process had in memory up to now, as it says.
fn peak(line: &str) -> Outcome<u64> {
    if line == "unknown" {
        return Err(Failure::NotRun("this system does not say how much memory a process has".into()));
    }
    line.parse().map_err(|_| format!("expected a number of KiB, saw {line:?}").into())
}

/// The other process's part: writes and reads that many MiB, and says how much memory it had.
pub(crate) async fn measure(child: Child) -> Outcome {
    let say_peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        say(peak.unwrap_or("unknown"));
    };
    let s = child.open().await?;
    // What a first write and read need in any case.
    s.put("small", noise(1 << 20, 1)).await?;
    s.get("small").await?;
    say_peak();
    let (pieces, piece) = (child.argument * 16, noise(64 << 10, 2));
    let body = {
        let piece = piece.clone();
        stream::iter(0..pieces).then(move |n| {
            if n % 512 == 0 {
                say(MORE);
            }
            // Behind a network every piece has memory of its own.
            let piece = Bytes::copy_from_slice(&piece);
            async move {
                tokio::task::yield_now().await;
                Ok(piece)
            }
        })
    };
    s.put("large", Body::stream(body)).await?;
    say_peak();
    let mut body = expect_some("the value", s.open("large", GetOptions::new()).await?)?.body.into_stream();
    let mut at = 0;
    let mut told = 0;
    while let Some(bytes) = body.try_next().await? {
        if at / (32 << 20) > told {
            told = at / (32 << 20);
            say(MORE);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let expected = &piece[at % piece.len()..];
            let n = rest.len().min(expected.len());
            expect_bytes(&format!("the bytes from {at} on"), &rest[..n], &expected[..n])?;
            (at, rest) = (at + n, &rest[n..]);
        }
    }
    expect_eq("the bytes read", at, pieces as usize * piece.len())?;
    say_peak();
    say("done");
    Ok(())
}

/// A body that ends in an error stores nothing, not even a part, and its error is the error.
pub async fn body_error_stores_nothing(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("old", "the old value").await?;
    for len in [0, 10, 100_000, LARGE] {
        for key in ["old", "new"] {
            let error = Error::new(ErrorKind::InvalidInput, "the check's own broken body");
            let body = pieces(noise(c.size(len), 8), 200_000).chain(stream::iter([Err(error)]));
            let result = s.put(key, Body::stream(body)).await;
            let error = expect_kind("a put of a body that breaks off", result, ErrorKind::InvalidInput)?;
            expect_eq("the message", error.message(), "the check's own broken body")?;
        }
        untouched(s).await?;
    }
    Ok(())
}

/// A body shorter or longer than it declares is `InvalidInput` and stores nothing.
pub async fn wrong_length_stores_nothing(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("old", "the old value").await?;
    for (declared, len) in
        [(11, 10), (9, 10), (1, 0), (0, 1), (100_000, 99_999), (3 << 20, (3 << 20) + 1), (6 << 20, (6 << 20) - 1)]
    {
        for key in ["old", "new"] {
            let (declared, value) = (c.size(declared), noise(c.size(len), 9));
            let body = Body::with_len(declared as u64, pieces(value, 250_000));
            if declared == c.size(len) {
                continue;
            }
            let what = format!("a put of {len} bytes declared as {declared}");
            expect_kind(&what, s.put(key, body).await, ErrorKind::InvalidInput)?;
        }
        untouched(s).await?;
    }
    Ok(())
}

/// A read stream delivers one version of the value or fails with `Conflict`, never a mix.
pub async fn one_version_per_stream(c: Context) -> Outcome {
    let (s, len) = (&c.storage, c.size(LARGE));
    for round in 0..4_u8 {
        s.put("key", vec![round; len]).await?;
        let object = expect_some("the object", s.open("key", GetOptions::new()).await?)?;
        let mut body = object.body.into_stream();
        let first = expect_some("the first piece", body.next().await)??;
        match round {
            0 => drop(s.put("key", vec![b'n'; len]).await?),
            1 => drop(s.put("key", vec![b'n'; len / 3]).await?),
            2 => s.delete("key").await?,
            _ => {
                s.delete("key").await?;
                s.put("key", vec![b'n'; len]).await?;
            }
        }
        let mut seen = first.to_vec();
        let mut failure = None;
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => seen.extend_from_slice(&piece),
                Err(e) => failure = Some(e),
            }
        }
        let of_one_version = seen == vec![round; seen.len()];
        expect(of_one_version, || {
            let at = seen.iter().position(|byte| *byte != round);
            format!("round {round}: expected bytes of one version, saw another's from {at:?} on")
        })?;
        match failure {
            Some(e) => expect_eq("the kind of a broken read", e.kind(), ErrorKind::Conflict)?,
            None => expect_eq(&format!("round {round}: the number of bytes"), seen.len(), len)?,
        }
    }
    Ok(())
}

/// Dropping a read stream midway frees what it holds: a hundred of them leave a store that works.
pub async fn consumer_drop_releases(c: Context) -> Outcome {
    let (s, value) = (&c.storage, noise(c.size(2 << 20), 10));
    s.put("key", value.clone()).await?;
    let reads = (0..8).map(|_| {
        let s = s.clone();
        async move {
            for _ in 0..13 {
                let object = expect_some("the object", s.open("key", GetOptions::new()).await?)?;
                let mut body = object.body.into_stream();
                expect_some("the first piece", body.next().await)??;
                let listing = s.list("").await?;
                drop((body, listing));
            }
            Ok(())
        }
    });
    let reads = tokio::time::timeout(Duration::from_secs(30), all(reads)).await;
    reads.map_err(|_| "expected dropped streams to free what they hold, saw a later read wait for 30 seconds")??;
    s.put("key", "new").await?;
    expect_value(s, "key", Some(b"new")).await?;
    s.delete("key").await?;
    expect_value(s, "key", None).await
}

/// Values can be read and written as streams at the same time, also one into another.
pub async fn pipe(c: Context) -> Outcome {
    let (s, value) = (&c.storage, noise(c.size(LARGE), 11));
    s.put("a", value.clone()).await?;
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let object = expect_some("the object", s.open(from, GetOptions::new()).await?)?;
        s.put(to, object.body).await?;
        expect_value(s, to, Some(&value)).await?;
    }
    let small = expect_some("the object", s.open("a", GetOptions::new().range(5..25)).await?)?;
    s.put("part", small.body).await?;
    expect_value(s, "part", Some(&value[5..25])).await
}

/// A condition holds for a streamed put too, at the moment it becomes visible.
/// Needs: conditional
pub async fn conditional(c: Context) -> Outcome {
    let (s, value) = (&c.storage, noise(c.size(3 << 20), 12));
    let absent = || storage_core::PutOptions::new().condition(Condition::IfAbsent);
    let body = || Body::stream(pieces(value.clone(), 500_000));
    let written = s.put_with("key", body(), absent()).await?;
    expect_value(s, "key", Some(&value)).await?;
    let again = s.put_with("key", body(), absent()).await;
    expect_kind("a streamed put if absent of what exists", again, ErrorKind::AlreadyExists)?;
    let etag = expect_some("the etag", written.etag)?;
    let matching = storage_core::PutOptions::new().condition(Condition::IfMatch(etag));
    // Another writer is faster while the body arrives.
    let (faster, tail) = (s.clone(), value.clone());
    let slow = stream::once(async move {
        faster.put("key", "faster").await?;
        Ok(tail)
    });
    let stale = s.put_with("key", Body::stream(slow), matching).await;
    expect_kind("a streamed put that was overtaken", stale, ErrorKind::PreconditionFailed)?;
    expect_value(s, "key", Some(b"faster")).await
}

async fn untouched(s: &Storage) -> Outcome {
    expect_value(s, "old", Some(b"the old value")).await?;
    expect_value(s, "new", None).await?;
    expect_eq("the keys", keys(s, "").await?, ["old"])
}
