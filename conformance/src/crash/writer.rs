//! The process that is killed, and what it writes.

use std::fmt;

use futures_util::{future::select_all, stream};
use storage_core::{Body, Bytes, Error, Metadata, PutOptions, Result, Storage};

use crate::{
    Outcome,
    process::{Child, say},
};

/// How many write at the same time.
const WRITERS: u64 = 4;
/// How many keys each writer has for itself.
const KEYS: u64 = 5;
/// The least and the most bytes of a value. Most are small, and most of the time goes to large ones.
const SIZES: (f64, f64) = (100.0, 3e6);

/// The sequence number of a write within its writer and round. All else about it follows from that and the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) round: u64,
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

impl Write {
    /// No key belongs to two writers. Every second one has an empty segment, which not every store can hold under its name.
    pub(crate) fn key(self) -> String {
        key(self.writer, self.number % KEYS)
    }

    pub(crate) fn is_delete(self) -> bool {
        self.number % 8 == 7
    }

    /// Whether the value is written under the spare key of the writer first, and renamed.
    pub(crate) fn is_rename(self) -> bool {
        self.number % 8 == 3
    }

    /// Where a value lies before it is renamed.
    pub(crate) fn spare(self) -> String {
        spare(self.writer)
    }

    pub(crate) fn metadata(self) -> Metadata {
        Metadata::new().content_type("application/octet-stream").tag("written").field("write", self.to_string())
    }

    /// Numbers that count up from a random one, so that a mix, a part and a shift of values show.
    pub(crate) fn value(self, seed: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed ^ self.round << 40 ^ self.writer << 32 ^ self.number);
        let (least, most) = SIZES;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between the two sizes")]
        let size = (least * (most / least).powf(rng.f64())) as usize;
        let first = rng.u64(..);
        let mut value: Vec<u8> = Vec::with_capacity(size + 8);
        for word in 0..=size as u64 / 8 {
            value.extend_from_slice(&first.wrapping_add(word).to_le_bytes());
        }
        value.truncate(size);
        value
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { round: next()?, writer: next()?, number: next()? })
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.writer, self.number)
    }
}

/// The keys of all writers.
pub(crate) fn keys() -> impl Iterator<Item = String> {
    (0..WRITERS).flat_map(|writer| (0..KEYS).map(move |number| key(writer, number)).chain([spare(writer)]))
}

fn spare(writer: u64) -> String {
    format!("writer {writer}/spare")
}

fn key(writer: u64, number: u64) -> String {
    let separator = ["/", "//"][(number % 2) as usize];
    format!("writer {writer}{separator}{number}")
}

/// What the process that is to be killed does: several writers write until the end.
pub(crate) async fn write(child: Child) -> Outcome {
    let (seed, round) = (child.seed, child.argument);
    let storage = child.open().await?;
    say("ready");
    let writers = (0..WRITERS).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            // Elsewhere in the sequence every time, or deletes would be reached in long rounds only.
            for number in round * 3 % 40.. {
                write_one(&storage, seed, Write { round, writer, number }).await?;
            }
            Ok::<_, Error>(())
        })
    });
    let ended = select_all(writers).await.0;
    Err(format!("a writer ended: {ended:?}").into())
}

async fn write_one(storage: &Storage, seed: u64, write: Write) -> Result<()> {
    let value = (!write.is_delete()).then(|| write.value(seed));
    say(&format!("begin {write}"));
    match value {
        None => storage.delete(write.key()).await?,
        Some(value) => {
            let body = if write.number.is_multiple_of(2) {
                Body::from(value)
            } else {
                let pieces: Vec<_> = value.chunks(1 << 16).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                Body::stream(stream::iter(pieces))
            };
            let options = PutOptions::new().metadata(write.metadata());
            if write.is_rename() {
                storage.put_with(write.spare(), body, options).await?;
                storage.rename(write.spare(), write.key()).await?;
            } else {
                storage.put_with(write.key(), body, options).await?;
            }
        }
    }
    say(&format!("done {write}"));
    Ok(())
}
