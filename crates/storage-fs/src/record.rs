//! What is kept beside a value: one extended attribute on its file, in JSON.

use std::{
    fs::{File, Metadata as Stat},
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{XattrFlags, fgetxattr, fsetxattr},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use storage_core::{Entry, Error, ErrorKind, Etag, Key, Metadata, Result};

use crate::error;

/// The attribute's name, with the version of its format.
pub(crate) const ATTRIBUTE: &str = "user.storage.v1";
/// More than a record takes beside the metadata.
pub(crate) const OVERHEAD: usize = 256;

/// Nanoseconds since 1970, as filesystems count them.
pub(crate) type Nanos = i64;

/// The attribute's content. Etag and size and time of modification belong together: a file of another size or time was
/// changed by another program, and then has another etag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) etag: String,
    pub(crate) size: u64,
    pub(crate) modified: Nanos,
    pub(crate) created: Nanos,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub(crate) metadata: Arc<Metadata>,
}

impl Record {
    /// The record of a file; `None` when another program wrote it.
    pub(crate) fn read(file: &File) -> Result<Option<Self>> {
        let mut json = vec![0; 1024];
        let len = loop {
            match fgetxattr(file, ATTRIBUTE, &mut json[..]) {
                Ok(len) => break len,
                Err(Errno::RANGE) => json.resize(json.len() * 8, 0),
                // No such attribute, or a filesystem below the root that has none at all.
                Err(e) if e == NO_ATTRIBUTE || e == Errno::NOTSUP => return Ok(None),
                Err(e) => return Err(error::os(e)),
            }
        };
        serde_json::from_slice(&json[..len]).map(Some).map_err(|e| {
            let what = format!(
                "the extended attribute {ATTRIBUTE} is not readable: write the value again or remove the attribute"
            );
            Error::new(ErrorKind::Corrupt, what).with_source(e)
        })
    }

    /// Puts the record on a file.
    pub(crate) fn write(&self, file: &File) -> Result<()> {
        // Serialising numbers, strings and maps with string keys cannot fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        fsetxattr(file, ATTRIBUTE, &json, XattrFlags::empty()).map_err(error::os)
    }
}

/// The entry of a value, from what the filesystem says and what was recorded.
pub(crate) fn entry(key: &Key, stat: &Stat, record: Option<Record>) -> Entry {
    let mut entry = Entry::new(key.clone(), stat.len());
    let modified = modified(stat);
    entry.modified = Some(time(modified));
    let intact = record
        .as_ref()
        .is_some_and(|record| (record.size, record.modified) == (stat.len(), modified));
    entry.etag = Some(match &record {
        Some(record) if intact => Etag::new(record.etag.as_str()),
        _ => foreign_etag(stat),
    });
    entry.created = record.as_ref().map(|record| time(record.created));
    entry.metadata = Some(record.map(|record| record.metadata).unwrap_or_default());
    entry
}

/// When the file was last modified.
pub(crate) fn modified(stat: &Stat) -> Nanos {
    nanos(stat.mtime(), stat.mtime_nsec())
}

/// The time on the machine's clock, in steps of `granularity`.
pub(crate) fn now(granularity: Duration) -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_or(0, |since| Nanos::try_from(since.as_nanos()).unwrap_or(0));
    now - now % Nanos::try_from(granularity.as_nanos()).unwrap_or(1)
}

pub(crate) fn time(nanos: Nanos) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// The etag of a file that another program wrote or changed: everything that a change of the bytes changes.
fn foreign_etag(stat: &Stat) -> Etag {
    let changed = nanos(stat.ctime(), stat.ctime_nsec());
    Etag::new(format!(
        "foreign-{:x}-{:x}-{:x}-{changed:x}",
        stat.ino(),
        stat.len(),
        modified(stat),
    ))
}

fn nanos(seconds: i64, nanoseconds: i64) -> Nanos {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(target_vendor = "apple")]
const NO_ATTRIBUTE: Errno = Errno::NOATTR;
#[cfg(not(target_vendor = "apple"))]
const NO_ATTRIBUTE: Errno = Errno::NODATA;
