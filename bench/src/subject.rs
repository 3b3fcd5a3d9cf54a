//! What is measured: the same six operations on every library, from a key as a string to a checked result.

use std::{fmt, future::Future, sync::LazyLock};

use bytes::Bytes;

use crate::Result;

/// How many values are listed, and read by `get` and `stat`.
pub(crate) const ENTRIES: usize = 10_000;
/// How many values are replaced again and again by `put`.
const REPLACED: usize = 64;
/// How many puts make a batch.
const BATCH: usize = 1000;
/// The most tasks at once; each streams a value of its own.
pub(crate) const TASKS: usize = 16;
const SMALL: usize = 4 << 10;
/// Large values are written, and where the reader can choose also read, in pieces of this size.
pub(crate) const PIECE: usize = 1 << 20;
const PIECES: usize = 16;
pub(crate) const LARGE: usize = PIECE * PIECES;
/// What is listed.
pub(crate) const LISTED: &str = "many/";

static READ: LazyLock<Vec<String>> = LazyLock::new(|| keys(LISTED, ENTRIES));
static WRITTEN: LazyLock<Vec<String>> = LazyLock::new(|| keys("put/", REPLACED));
static STREAMED: LazyLock<Vec<String>> = LazyLock::new(|| keys("big/", TASKS));
static VALUE: LazyLock<Bytes> = LazyLock::new(|| vec![7; SMALL].into());
static PIECE_BYTES: LazyLock<Bytes> = LazyLock::new(|| vec![7; PIECE].into());

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i:05}")).collect()
}

/// A library over one store. Clones share the store.
pub(crate) trait Subject: Clone + Send + Sync + 'static {
    fn put(&self, key: &str, value: Bytes) -> impl Future<Output = Result<()>> + Send;
    /// The value, as one piece.
    fn get(&self, key: &str) -> impl Future<Output = Result<Bytes>> + Send;
    /// The size of the value.
    fn stat(&self, key: &str) -> impl Future<Output = Result<u64>> + Send;
    /// How many entries there are.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<usize>> + Send;
    fn write(&self, key: &str, pieces: Vec<Bytes>) -> impl Future<Output = Result<()>> + Send;
    /// The length of the value, of which no more than a piece is held at once.
    fn read(&self, key: &str) -> impl Future<Output = Result<usize>> + Send;
    /// Writes all values at once.
    fn batch(&self, _: Vec<(String, Bytes)>) -> impl Future<Output = Result<()>> + Send {
        async { Err("batches are not measured here".into()) }
    }
    /// How many of the entries under `described/` have this number.
    fn query(&self, _: i64) -> impl Future<Output = Result<usize>> + Send {
        async { Err("queries are not measured here".into()) }
    }
}

/// What is done and timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    Get,
    Stat,
    List,
    Write,
    Read,
    Batch,
    Query,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put 4 KiB",
            Self::Get => "get 4 KiB",
            Self::Stat => "stat",
            Self::List => "list, per entry",
            Self::Write => "stream 16 MiB in",
            Self::Read => "stream 16 MiB out",
            Self::Batch => "batch of 1,000 puts of 4 KiB, per put",
            Self::Query => "query for one of 10,000",
        })
    }
}

impl Operation {
    pub(crate) const ALL: [Self; 8] =
        [Self::Put, Self::Get, Self::Stat, Self::List, Self::Write, Self::Read, Self::Batch, Self::Query];

    /// By how much the time of one run is divided.
    pub(crate) fn parts(self) -> usize {
        match self {
            Self::List => ENTRIES,
            Self::Batch => BATCH,
            _ => 1,
        }
    }

    /// The `i`th run by this task. Every result is checked, lest errors be measured.
    pub(crate) async fn run<S: Subject>(self, subject: &S, task: usize, i: usize) -> Result<()> {
        // Tasks never write the same key at the same time, and read all over the listing.
        let written = || &WRITTEN[(task * REPLACED / TASKS + i) % REPLACED];
        let read = || &READ[(task * 7_919 + i * 37) % ENTRIES];
        let streamed = &STREAMED[task];
        let (found, expected) = match self {
            Self::Put => {
                subject.put(written(), VALUE.clone()).await?;
                (0, 0)
            }
            Self::Get => (subject.get(read()).await?.len(), SMALL),
            Self::Stat => (usize::try_from(subject.stat(read()).await?)?, SMALL),
            Self::List => (subject.list(LISTED).await?, ENTRIES),
            Self::Write => {
                subject.write(streamed, vec![PIECE_BYTES.clone(); PIECES]).await?;
                (0, 0)
            }
            Self::Read => (subject.read(streamed).await?, LARGE),
            Self::Batch => {
                let keys = (0..BATCH).map(|i| format!("batch/{task:02}/{i:04}"));
                subject.batch(keys.map(|key| (key, VALUE.clone())).collect()).await?;
                (0, 0)
            }
            Self::Query => (subject.query(((task * 7_919 + i * 37) % ENTRIES) as i64).await?, 1),
        };
        if found == expected { Ok(()) } else { Err(format!("{self}: {found} instead of {expected}").into()) }
    }
}

/// Writes what `get`, `stat` and `list` read.
pub(crate) async fn fill_small<S: Subject>(subject: &S) -> Result<()> {
    for key in READ.iter() {
        subject.put(key, VALUE.clone()).await?;
    }
    Ok(())
}

/// Writes what `put` replaces.
pub(crate) async fn fill_replaced<S: Subject>(subject: &S) -> Result<()> {
    for key in WRITTEN.iter() {
        subject.put(key, Bytes::new()).await?;
    }
    Ok(())
}

/// Writes what is streamed out.
pub(crate) async fn fill_large<S: Subject>(subject: &S) -> Result<()> {
    for task in 0..TASKS {
        Operation::Write.run(subject, task, 0).await?;
    }
    Ok(())
}

/// Looks at what the measured writes left.
pub(crate) async fn check_written<S: Subject>(subject: &S) -> Result<()> {
    for key in WRITTEN.iter() {
        // A slow store is measured with fewer puts than there are keys.
        let value = subject.get(key).await?;
        if !value.is_empty() && value != *VALUE {
            return Err(format!("{key} is not what was put").into());
        }
    }
    for task in 0..TASKS {
        Operation::Read.run(subject, task, 0).await?;
    }
    Ok(())
}
