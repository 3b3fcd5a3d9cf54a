//! A large value that is written and read as a stream, by a process that does nothing else, so that its memory can be measured.

use std::{env, fs, future::Future, time::Instant};

use bytes::Bytes;

use crate::Result;

/// What the writer has at once.
pub(crate) const PIECE: usize = 64 << 10;
/// In what the value is sent, and how many of them at once.
pub(crate) const PART: usize = 5 << 20;
pub(crate) const PARTS: usize = 4;
/// Says where the bucket is: `http://KEY:SECRET@host:port/bucket`. The environment of a process is seen by fewer than its arguments.
pub(crate) const BUCKET: &str = "STORAGE_BENCH_BUCKET";

/// A library over a bucket.
pub(crate) trait Transfer {
    fn up(&self, key: &str, pieces: Pieces) -> impl Future<Output = Result<()>>;
    /// The length of the value, of which no more than what has come from the network is held at once.
    fn down(&self, key: &str) -> impl Future<Output = Result<u64>>;
}

/// What is written: how many pieces, of how many bytes. Every piece has memory of its own, as behind a network.
pub(crate) struct Pieces(u64, usize);

impl Pieces {
    pub(crate) fn new(count: u64, size: usize) -> Self {
        Self(count, size)
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.0 = self.0.checked_sub(1)?;
        Some(vec![7; self.1].into())
    }
}

/// Where the bucket is.
pub(crate) struct Bucket {
    pub(crate) endpoint: String,
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl Bucket {
    pub(crate) fn parse(address: &str) -> Result<Self> {
        let unusable = "expected http://KEY:SECRET@host:port/bucket";
        let (credentials, place) =
            address.strip_prefix("http://").and_then(|rest| rest.split_once('@')).ok_or(unusable)?;
        let ((key, secret), (host, name)) = credentials.split_once(':').zip(place.split_once('/')).ok_or(unusable)?;
        let [name, key, secret] = [name, key, secret].map(str::to_owned);
        Ok(Self { endpoint: format!("http://{host}"), name, key, secret })
    }

    /// That of [`BUCKET`].
    pub(crate) fn given() -> Result<Self> {
        Self::parse(&env::var(BUCKET)?)
    }
}

/// Does what the arguments `up|down KEY MIB` say, and answers with the nanoseconds and the KiB by which the process grew meanwhile.
pub(crate) async fn run(library: &impl Transfer, arguments: &[String]) -> Result<String> {
    run_in_pieces(library, arguments, PIECE).await
}

/// The same from pieces of this size.
pub(crate) async fn run_in_pieces(library: &impl Transfer, arguments: &[String], piece: usize) -> Result<String> {
    let [direction, key, mib] = arguments else {
        return Err("it takes `up` or `down`, a key and a size in MiB".into());
    };
    let size = mib.parse::<u64>()? << 20;
    // What a first write and read need in any case.
    let small = format!("{key}-small");
    library.up(&small, Pieces::new((1_u64 << 20).div_ceil(piece as u64), piece.min(1 << 20))).await?;
    library.down(&small).await?;
    let before = memory("VmRSS:")?;
    // Forgets how much memory the process had at most before.
    fs::write("/proc/self/clear_refs", "5")?;
    let begun = Instant::now();
    if direction == "up" {
        library.up(key, Pieces::new(size / piece as u64, piece)).await?;
    } else {
        let len = library.down(key).await?;
        if len != size {
            return Err(format!("{len} bytes were read instead of {size}").into());
        }
    }
    let nanoseconds = begun.elapsed().as_nanos();
    Ok(format!("{nanoseconds} {}", memory("VmHWM:")?.saturating_sub(before)))
}

/// In KiB.
fn memory(what: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(what)?.split_whitespace().next());
    Ok(value.ok_or("this system does not say how much memory a process has")?.parse()?)
}
