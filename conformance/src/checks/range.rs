//! Reading a part of a value.

use storage_core::{ByteRange, ErrorKind, GetOptions, Storage};

use crate::{
    Context, Outcome,
    assert::{expect_bytes, expect_eq, expect_kind, expect_some},
    support::noise,
};

/// The length of the value in most checks.
const LEN: u64 = 100;

/// `start..end` is exactly these bytes.
pub async fn bounded(c: Context) -> Outcome {
    parts(&c, &[(0..1).into(), (0..100).into(), (3..7).into(), (99..100).into(), (..5).into(), (98..99).into()]).await
}

/// `start..` is everything from there.
pub async fn open(c: Context) -> Outcome {
    parts(&c, &[(0..).into(), (1..).into(), (57..).into(), (99..).into()]).await
}

/// The last `n` bytes; all of a shorter value.
pub async fn suffix(c: Context) -> Outcome {
    let last = [1, 2, 99, 100, 101, u64::MAX].map(ByteRange::Suffix);
    parts(&c, &last).await
}

/// A value read in several ranges at once is that value; one that changes meanwhile is `Conflict`, never a mix.
pub async fn in_parallel(c: Context) -> Outcome {
    let (s, value) = (&c.storage, noise(c.size(700_000), 4));
    let (chunk, n) = (value.len() as u64 / 9 + 1, value.len() as u64);
    let parallel = || GetOptions::new().parallel(3, chunk);
    s.put("key", value.clone()).await?;
    let all = s.get_with("key", parallel()).await?;
    expect_bytes("all in parallel", &expect_some("the value", all)?, &value)?;
    let part = s.get_with("key", parallel().range(n / 5..n - 1)).await?;
    expect_bytes("a range in parallel", &expect_some("the value", part)?, &value[value.len() / 5..value.len() - 1])?;
    let last = s.get_with("key", parallel().range(ByteRange::Suffix(n / 2))).await?;
    expect_bytes(
        "the last half in parallel",
        &expect_some("the value", last)?,
        &value[value.len() - value.len() / 2..],
    )?;
    let object = expect_some("the value", s.open("key", parallel()).await?)?;
    s.put("key", noise(value.len(), 5)).await?;
    match object.body.bytes(u64::MAX).await {
        // A store without etags is read in one go.
        Ok(seen) => expect_bytes("the value that was opened", &seen, &value),
        Err(e) => expect_eq("the error of a value that changed meanwhile", e.kind(), ErrorKind::Conflict),
    }
}

/// An end beyond the end of the value is clamped.
pub async fn clamped(c: Context) -> Outcome {
    parts(&c, &[(90..101).into(), (0..1000).into(), (99..u64::MAX).into(), (..u64::MAX).into()]).await
}

/// A start at the very end is an empty range, and so is a range from a place to itself.
pub async fn at_end_is_empty(c: Context) -> Outcome {
    parts(
        &c,
        &[(100..).into(), (100..200).into(), (100..100).into(), (5..5).into(), (0..0).into(), ByteRange::Suffix(0)],
    )
    .await
}

/// A start beyond the end is `RangeNotSatisfiable`.
pub async fn beyond_end(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("key", noise(100, 7)).await?;
    s.put("empty", "").await?;
    for (key, range) in [
        ("key", ByteRange::from(101..)),
        ("key", (101..200).into()),
        ("key", (u64::MAX..).into()),
        ("empty", (1..).into()),
    ] {
        let result = s.get_with(key, GetOptions::new().range(range)).await;
        expect_kind(&format!("{range:?} of {key:?}"), result, ErrorKind::RangeNotSatisfiable)?;
    }
    let absent = s.get_with("absent", GetOptions::new().range(5..)).await?;
    expect_eq("a range of an absent key", absent, None)
}

/// Every range of an empty value that does not start beyond it is empty.
pub async fn of_an_empty_value(c: Context) -> Outcome {
    c.storage.put("key", "").await?;
    for range in [ByteRange::from(0..), (0..1).into(), (0..0).into(), ByteRange::Suffix(5), ByteRange::Suffix(0)] {
        part(&c.storage, range, b"").await?;
    }
    Ok(())
}

/// The entry reports the size of the whole value, whatever range is read.
pub async fn full_size_reported(c: Context) -> Outcome {
    c.storage.put("key", noise(100, 7)).await?;
    for range in [ByteRange::from(10..20), (90..).into(), ByteRange::Suffix(3), (100..).into()] {
        for whole in [false, true] {
            let options = GetOptions::new().range(range).prefer_buffered(whole);
            let object = expect_some("the object", c.storage.open("key", options).await?)?;
            expect_eq(&format!("the size in the entry for {range:?}"), object.entry.size, LEN)?;
        }
    }
    Ok(())
}

/// Any range of a large value is the slice of it, across whatever pieces it is stored in.
pub async fn random_of_a_large_value(c: Context) -> Outcome {
    let mut rng = c.rng();
    let len = c.size(3 << 20) as u64;
    let value = noise(len as usize, rng.u64(..));
    c.storage.put("key", value.clone()).await?;
    for i in 0..40 {
        // Near the borders of blocks is where mistakes are made.
        let near = (1 << rng.u32(8..22)) + rng.u64(0..3);
        let start = if i % 2 == 0 { near.saturating_sub(1).min(len) } else { rng.u64(0..=len) };
        let end = (start + rng.u64(0..300_000)).min(len);
        let slice = |start: u64, end: u64| value.slice(start as usize..end as usize);
        part(&c.storage, (start..end).into(), &slice(start, end)).await?;
        part(&c.storage, (start..).into(), &slice(start, len)).await?;
        part(&c.storage, ByteRange::Suffix(start), &slice(len - start, len)).await?;
    }
    Ok(())
}

async fn parts(c: &Context, ranges: &[ByteRange]) -> Outcome {
    let value = noise(LEN as usize, 7);
    c.storage.put("key", value.clone()).await?;
    for range in ranges {
        let expected = range.resolve(LEN)?;
        let expected = value.slice(expected.start as usize..expected.end as usize);
        part(&c.storage, *range, &expected).await?;
    }
    Ok(())
}

/// Reads the range both collected and as it comes.
async fn part(s: &Storage, range: ByteRange, expected: &[u8]) -> Outcome {
    let what = format!("{range:?}");
    let options = GetOptions::new().range(range);
    let seen = expect_some(&what, s.get_with("key", options.clone()).await?)?;
    expect_bytes(&what, &seen, expected)?;
    let object = expect_some(&what, s.open("key", options).await?)?;
    if let Some(len) = object.body.len() {
        expect_eq(&format!("the declared length of {range:?}"), len, expected.len() as u64)?;
    }
    expect_bytes(&format!("{range:?} as a stream"), &object.body.bytes(u64::MAX).await?, expected)
}
