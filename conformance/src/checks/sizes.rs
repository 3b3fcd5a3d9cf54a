//! Values, pieces and ranges around the sizes at which stores change their ways.

use std::collections::BTreeSet;

use futures_util::stream;
use storage_core::{Body, ByteRange, Bytes, Entry, GetOptions, Key, Storage};

use crate::{
    Context, Outcome,
    assert::{expect_bytes, expect_eq, expect_some},
    numbers::{Pace, around, value_sizes},
    support::{entry, noise, pieces},
};

/// A value of any size comes back, however it was written: put whole, as a stream with and without a declared length, copied
/// and renamed.
pub async fn of_values(c: Context) -> Outcome {
    let (s, pace, sizes) = (&c.storage, Pace::begin(), value_sizes(&c));
    let all = noise(sizes.last().unwrap_or(&0) + sizes.len(), 21);
    for (i, size) in sizes.into_iter().enumerate().take_while(|_| pace.goes_on()) {
        // Each has other bytes than the one before, from the first on.
        let value = all.slice(i..i + size);
        let written = s.put("key", value.clone()).await?;
        is(s, &format!("put, of {size} bytes"), written, &value).await?;
        let written = s.copy("key", "copy").await?;
        is(s, &format!("copied, of {size} bytes"), written, &value).await?;
        let value = all.slice(i + 1..i + 1 + size);
        let parts = pieces(value.clone(), (size / 5).max(1));
        let written = s.put("key", Body::stream(parts)).await?;
        is(s, &format!("put as a stream, of {size} bytes"), written, &value).await?;
        let written = s.rename("key", "renamed").await?;
        is(s, &format!("renamed, of {size} bytes"), written, &value).await?;
        // Two streams of each large size would take their time.
        if size > 1 << 20 && i % 2 == 0 {
            continue;
        }
        let declared = Body::with_len(size as u64, pieces(value.clone(), (size / 3).max(1)));
        let written = s.put("declared", declared).await?;
        is(s, &format!("put as a stream of declared length, of {size} bytes"), written, &value).await?;
    }
    Ok(())
}

/// The items of a batch may be of any size, and so may be what a batch reads.
pub async fn of_items(c: Context) -> Outcome {
    let (s, mut sizes) = (&c.storage, value_sizes(&c));
    sizes.retain(|size| *size <= (1 << 20) + 1);
    let all = noise((1 << 20) + 2 + sizes.len(), 22);
    let value = |i: usize, size: usize| all.slice(i..i + size);
    let key = |size: usize| format!("{size:07}");
    let items = sizes.iter().enumerate().map(|(i, size)| (key(*size), value(i, *size)));
    let written = s.put_batch(items).await?;
    let seen: Vec<u64> = written.iter().map(|entry| entry.size).collect();
    expect_eq("the sizes in the results", seen, sizes.iter().map(|size| *size as u64).collect::<Vec<_>>())?;
    let found = s.get_batch(sizes.iter().map(|size| key(*size))).await?;
    for (i, size) in sizes.iter().enumerate() {
        let seen = expect_some(&format!("the item of {size} bytes"), found.get(&Key::parse(&key(*size))?))?;
        expect_bytes(&format!("the item of {size} bytes"), seen, &value(i, *size))?;
    }
    Ok(())
}

/// A stream may have pieces of any size.
pub async fn of_pieces(c: Context) -> Outcome {
    let (s, pace, mut sizes) = (&c.storage, Pace::begin(), around((1 << 20) + 1));
    sizes.extend([0xff << 10, 5 << 20, (5 << 20) + 1]);
    sizes.remove(&0);
    let all = noise(7 << 20, 23);
    for (i, piece) in sizes.into_iter().enumerate().take_while(|_| pace.goes_on()) {
        // Of most sizes there are two and a part of another.
        let len = c.size((piece * 2 + piece / 3).min(piece + (1 << 20)));
        let value = all.slice(i..i + len);
        let written = s.put("key", Body::stream(pieces(value.clone(), piece))).await?;
        is(s, &format!("put in pieces of {piece} bytes"), written, &value).await?;
    }
    Ok(())
}

/// A stream may have any number of pieces.
pub async fn of_streams_in_pieces(c: Context) -> Outcome {
    const EACH: usize = 3;
    let (s, pace) = (&c.storage, Pace::begin());
    let mut counts = around(4097);
    counts.extend([100, 500, 5000, 10_000, 10_001, 32_769, 65_536, 65_537, 2500]);
    for count in counts.into_iter().take_while(|_| pace.goes_on()) {
        let value = noise(c.size(count * EACH), count as u64);
        let cut: Vec<_> =
            (0..value.len()).step_by(EACH).map(|at| Ok(value.slice(at..value.len().min(at + EACH)))).collect();
        let written = s.put("key", Body::stream(stream::iter(cut))).await?;
        is(s, &format!("put in {count} pieces"), written, &value).await?;
    }
    Ok(())
}

/// A range may begin and end anywhere, also at the border of a block or part, and be of any length.
pub async fn of_ranges(c: Context) -> Outcome {
    const KIB: u64 = 1 << 10;
    let (s, pace, mut rng) = (&c.storage, Pace::begin(), c.rng());
    let len = c.size((8 << 20) + 100_003) as u64;
    let value = noise(len as usize, 24);
    s.put("key", Body::stream(pieces(value.clone(), 1 << 20))).await?;
    let mut borders = BTreeSet::new();
    for block in
        [4 * KIB, 64 * KIB, 100_000, 128 * KIB, 255 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB, 5120 * KIB, 8192 * KIB]
    {
        let any = (rng.u64(..) % (len / block).max(1)).max(1);
        for n in [1, 2, 3, any, len / block] {
            borders.extend([block * n - u64::from(n > 0), block * n, block * n + 1]);
        }
    }
    borders.extend(around(4097).into_iter().map(|n| n as u64));
    borders.extend([len - 1, len]);
    borders.retain(|border| *border <= len);
    let mut ranges: Vec<ByteRange> = Vec::new();
    for border in &borders {
        let before = rng.u64(1..5000).min(*border);
        ranges.push((border - before..*border).into());
        ranges.push((*border..(border + rng.u64(1..5000)).min(len)).into());
    }
    // From one border to another, and of any length from anywhere.
    for (i, border) in borders.iter().enumerate().step_by(3) {
        let end = borders.iter().nth(i + 7).unwrap_or(&len);
        if end - border <= 1 << 20 {
            ranges.push((*border..*end).into());
        }
    }
    for length in around(70_000) {
        let start = rng.u64(0..=len);
        ranges.push((start..start + length as u64).into());
    }
    for length in around(1025) {
        ranges.extend([ByteRange::Suffix(length as u64), (len.saturating_sub(length as u64)..).into()]);
    }
    // A few long ones, which cost time on a server.
    for border in [64 * KIB, 256 * KIB, 1024 * KIB, 5120 * KIB, 8192 * KIB] {
        ranges.extend([(0..border).into(), ByteRange::Suffix(border), (len.saturating_sub(border)..).into()]);
    }
    for (i, range) in ranges.into_iter().enumerate().take_while(|_| pace.goes_on()) {
        let part = range.resolve(len)?;
        let expected = value.slice(part.start as usize..part.end as usize);
        let options = GetOptions::new().range(range);
        let seen = if i % 2 == 0 { s.get_with("key", options).await? } else { streamed(s, options).await? };
        expect_bytes(&format!("{range:?} of {len} bytes"), &expect_some("the range", seen)?, &expected)?;
    }
    Ok(())
}

async fn streamed(s: &Storage, options: GetOptions) -> Outcome<Option<Bytes>> {
    match s.open("key", options).await? {
        Some(object) => Ok(Some(object.body.bytes(u64::MAX).await?)),
        None => Ok(None),
    }
}

/// Fails unless the key that was written has this value, by the answer to the write, by a stat and by a read.
async fn is(s: &Storage, what: &str, written: Entry, value: &[u8]) -> Outcome {
    let (key, size) = (written.key.as_str(), value.len() as u64);
    expect_eq(&format!("the size in the answer, {what}"), written.size, size)?;
    expect_eq(&format!("the size by stat, {what}"), entry(s, key).await?.size, size)?;
    let seen = expect_some(&format!("the value {what}"), s.get(key).await?)?;
    expect_bytes(&format!("the value {what}"), &seen, value)
}
