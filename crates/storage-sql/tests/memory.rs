//! A value much larger than what may be held streams through, and others write meanwhile.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{Body, Bytes, GetOptions};
use support::Place;

const PIECE: usize = 1 << 20;
/// By how much memory may grow at its peak.
const MOST: u64 = 40 << 20;

/// How many pieces a value has; `STORAGE_SQL_TEST_MIB` says more.
fn pieces() -> usize {
    std::env::var("STORAGE_SQL_TEST_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(128)
}

/// The most bytes that this process ever had in memory, where the system tells.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_value_streams_in_bounded_memory_and_blocks_nobody() {
    for place in Place::all() {
        let storage = place.open().await;
        storage.put("small", "v").await.unwrap();
        let before = peak();
        let pieces = pieces();
        let body = stream::iter((0..pieces).map(|i| Ok(Bytes::from(vec![i as u8; PIECE]))));
        let body = Body::with_len((pieces * PIECE) as u64, body);
        let writing = tokio::spawn({
            let storage = storage.clone();
            async move { storage.put("large", body).await }
        });
        let (mut others, mut slowest) = (0, Duration::ZERO);
        while !writing.is_finished() {
            let begun = Instant::now();
            storage.put("small", "w").await.unwrap();
            slowest = slowest.max(begun.elapsed());
            others += 1;
            tokio::task::yield_now().await;
        }
        writing.await.unwrap().unwrap();
        let mut read = storage.open("large", GetOptions::new()).await.unwrap().unwrap().body.into_stream();
        let mut len = 0;
        while let Some(piece) = read.next().await.transpose().unwrap() {
            assert!(piece.iter().all(|byte| *byte == (len / PIECE) as u8), "at {len}");
            len += piece.len();
        }
        assert_eq!(len, pieces * PIECE);
        let end = (pieces * PIECE - 10) as u64..;
        let last: Vec<Bytes> = {
            let object = storage.open("large", GetOptions::new().range(end)).await.unwrap().unwrap();
            object.body.into_stream().try_collect().await.unwrap()
        };
        assert_eq!(last.concat(), vec![(pieces - 1) as u8; 10]);
        let grown = peak().zip(before).map(|(peak, before)| peak - before);
        eprintln!(
            "{:?}: {pieces} MiB, memory grew by {grown:?} bytes, {others} others, slowest {slowest:?}",
            place.engine
        );
        assert!(grown.is_none_or(|grown| grown < MOST), "{grown:?} on {:?}", place.engine);
        assert!(others > pieces / 4 && slowest < Duration::from_secs(3), "{others} others, slowest {slowest:?}");
    }
}
