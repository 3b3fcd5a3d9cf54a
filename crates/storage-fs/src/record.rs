//! What is kept beside a value: one extended attribute on its file.
//!
//! It holds, all numbers little-endian: the id of the write (16 bytes of owner, 8 of number), the size (8), the time of
//! modification and of creation (8 each, nanoseconds since 1970), and then the metadata as canonical JSON, or nothing. So short,
//! a record without metadata finds room in the inode of ext4, where JSON would take a block of its own for every file.
//!
//! Before the metadata of a value that was renamed stands what it is under its new key: a byte 1, another id (16 and 8), its time
//! of modification and of creation (8 each), the length of the key (2) and the key.

use std::{
    fmt,
    fs::{File, Metadata as Stat},
    io,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{XattrFlags, fgetxattr, fsetxattr},
    io::Errno,
};
use storage_core::{Entry, Error, ErrorKind, Etag, Key, Metadata, Result};

use crate::error;

/// The attribute's name, with the version of its format.
pub(crate) const ATTRIBUTE: &str = "user.storage.v1";
/// What a record takes beside the metadata.
pub(crate) const OVERHEAD: usize = 48;

/// Nanoseconds since 1970, as filesystems count them.
pub(crate) type Nanos = i64;

/// Names one write, and no other: writer id and per-writer sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteId {
    pub(crate) owner: u128,
    pub(crate) number: u64,
}

/// The attribute's content. Etag and size and time of modification belong together: a file of another size or time was
/// changed by another program, and then has another etag.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) id: WriteId,
    pub(crate) size: u64,
    pub(crate) modified: Nanos,
    pub(crate) created: Nanos,
    pub(crate) metadata: Arc<Metadata>,
    /// What differs under the key that the file is renamed to.
    pub(crate) renamed: Option<Renamed>,
}

/// A rename is a write: it has an id and dates of its own, from the moment on at which the file has its new name. So they are written
/// before, with the key for which they hold; under any other key the file is what it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Renamed {
    pub(crate) to: Key,
    pub(crate) id: WriteId,
    pub(crate) modified: Nanos,
    pub(crate) created: Nanos,
}

/// Stands before what a rename has written.
const RENAMED: u8 = 1;

impl Record {
    /// The id and the dates of the value under this key.
    pub(crate) fn under(&self, key: &Key) -> (WriteId, Nanos, Nanos) {
        match &self.renamed {
            Some(renamed) if renamed.to == *key => (renamed.id, renamed.modified, renamed.created),
            _ => (self.id, self.modified, self.created),
        }
    }

    /// Whether the file is still as we have left it: no other program has changed it. The date of a rename is set before the rename.
    pub(crate) fn is_of(&self, stat: &Stat) -> bool {
        let modified = modified(stat);
        let ours = self.modified == modified || self.renamed.as_ref().is_some_and(|to| to.modified == modified);
        ours && self.size == stat.len()
    }

    /// The record of a file; `None` when another program wrote it.
    pub(crate) fn read(file: &File) -> Result<Option<Self>> {
        let mut bytes = vec![0; 1024];
        let len = loop {
            match fgetxattr(file, ATTRIBUTE, &mut bytes[..]) {
                Ok(len) => break len,
                Err(Errno::RANGE) => bytes.resize(bytes.len() * 8, 0),
                // No such attribute, or a filesystem below the root that has none at all.
                Err(e) if e == NO_ATTRIBUTE || e == Errno::NOTSUP => return Ok(None),
                // Larger than an attribute can be, or not to be made out by the filesystem itself.
                Err(e @ (Errno::TOOBIG | Errno::BADMSG | Errno::IO)) => {
                    return Err(corrupt().with_source(io::Error::from(e)));
                }
                Err(e) => return Err(error::os(e)),
            }
        };
        Self::decode(&bytes[..len]).map(Some)
    }

    /// Puts the record on a file.
    pub(crate) fn write(&self, file: &File) -> Result<()> {
        fsetxattr(file, ATTRIBUTE, &self.encode(), XattrFlags::empty()).map_err(error::os)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(OVERHEAD);
        bytes.extend(self.id.owner.to_le_bytes());
        bytes.extend(self.id.number.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.modified.to_le_bytes());
        bytes.extend(self.created.to_le_bytes());
        if let Some(renamed) = &self.renamed {
            let key = renamed.to.as_str().as_bytes();
            bytes.push(RENAMED);
            bytes.extend(renamed.id.owner.to_le_bytes());
            bytes.extend(renamed.id.number.to_le_bytes());
            bytes.extend(renamed.modified.to_le_bytes());
            bytes.extend(renamed.created.to_le_bytes());
            // A key has at most 1,024 bytes.
            bytes.extend((key.len() as u16).to_le_bytes());
            bytes.extend(key);
        }
        if !self.metadata.is_empty() {
            bytes.extend(self.metadata.to_json().into_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (owner, rest) = bytes.split_first_chunk().ok_or_else(corrupt)?;
        let (numbers, json) = rest.split_at_checked(32).ok_or_else(corrupt)?;
        let [number, size, modified, created] = numbers.as_chunks::<8>().0 else {
            return Err(corrupt());
        };
        let (renamed, json) = match json.split_first() {
            Some((&RENAMED, rest)) => {
                let (renamed, json) = Renamed::decode(rest).ok_or_else(corrupt)?;
                (Some(renamed), json)
            }
            _ => (None, json),
        };
        let metadata = match json {
            [] => Metadata::new(),
            json => {
                let json = str::from_utf8(json).map_err(|e| corrupt().with_source(e))?;
                Metadata::from_json(json).map_err(|e| corrupt().with_source(e))?
            }
        };
        Ok(Self {
            id: WriteId { owner: u128::from_le_bytes(*owner), number: u64::from_le_bytes(*number) },
            size: u64::from_le_bytes(*size),
            modified: Nanos::from_le_bytes(*modified),
            created: Nanos::from_le_bytes(*created),
            metadata: metadata.into(),
            renamed,
        })
    }
}

impl Renamed {
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (owner, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (modified, rest) = rest.split_first_chunk()?;
        let (created, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        let renamed = Self {
            to: Key::parse(str::from_utf8(key).ok()?).ok()?,
            id: WriteId { owner: u128::from_le_bytes(*owner), number: u64::from_le_bytes(*number) },
            modified: Nanos::from_le_bytes(*modified),
            created: Nanos::from_le_bytes(*created),
        };
        Some((renamed, rest))
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.{:x}", self.owner, self.number)
    }
}

fn corrupt() -> Error {
    let what =
        format!("the extended attribute {ATTRIBUTE} is not readable: write the value again or remove the attribute");
    Error::new(ErrorKind::Corrupt, what)
}

/// The entry of a value, from what the filesystem says and what was recorded.
pub(crate) fn entry(key: &Key, stat: &Stat, record: Option<Record>) -> Entry {
    let mut entry = Entry::new(key.clone(), stat.len());
    let recorded = record.as_ref().map(|record| (record.is_of(stat), record.under(key)));
    let (etag, modified) = match recorded {
        Some((true, (id, modified, _))) => (Etag::new(id.to_string()), modified),
        _ => (foreign_etag(stat), modified(stat)),
    };
    entry.modified = Some(time(modified));
    entry.etag = Some(etag);
    entry.created = recorded.map(|(_, (.., created))| time(created));
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
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// The etag of a file that another program wrote or changed: everything that a change of the bytes changes.
fn foreign_etag(stat: &Stat) -> Etag {
    let changed = nanos(stat.ctime(), stat.ctime_nsec());
    Etag::new(format!("foreign-{:x}-{:x}-{:x}-{changed:x}", stat.ino(), stat.len(), modified(stat),))
}

fn nanos(seconds: i64, nanoseconds: i64) -> Nanos {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(target_vendor = "apple")]
const NO_ATTRIBUTE: Errno = Errno::NOATTR;
#[cfg(not(target_vendor = "apple"))]
const NO_ATTRIBUTE: Errno = Errno::NODATA;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_part_of_it_does_not() {
        let mut record = Record {
            id: WriteId { owner: 7, number: u64::MAX },
            size: 5,
            modified: -1,
            created: Nanos::MAX,
            metadata: Arc::default(),
            renamed: None,
        };
        assert_eq!(record.encode().len(), OVERHEAD);
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        record.metadata = Metadata::new().tag("t").field("f", 1.0).into();
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes).unwrap(), record);
        for end in (0..bytes.len()).filter(|end| *end != OVERHEAD) {
            assert_eq!(Record::decode(&bytes[..end]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let to = Key::parse("some/k\u{e9}y").unwrap();
        let id = WriteId { owner: u128::MAX, number: 3 };
        record.renamed = Some(Renamed { to: to.clone(), id, modified: 9, created: -8 });
        assert_eq!(record.under(&to), (id, 9, -8));
        assert_eq!(record.under(&Key::parse("other").unwrap()), (record.id, -1, Nanos::MAX));
        let (bytes, json) = (record.encode(), record.metadata.to_json().len());
        assert_eq!(Record::decode(&bytes).unwrap(), record);
        for end in (0..bytes.len()).filter(|end| ![OVERHEAD, bytes.len() - json].contains(end)) {
            assert_eq!(Record::decode(&bytes[..end]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
