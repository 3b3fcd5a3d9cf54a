//! What the filesystem under a root can do, found out by trying.

use std::{
    fs::{File, FileTimes},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, XattrFlags, accessat, fsetxattr, fstatvfs, unlinkat},
    io::Errno,
};
use storage_core::{Error, ErrorKind, Metadata, Result};

use crate::{
    error,
    name::{Naming, RESERVED},
    record::{ATTRIBUTE, OVERHEAD},
    stage::{Staging, create},
    tree::Tree,
};

/// Sizes of an extended attribute that filesystems take: XFS and tmpfs, Btrfs, in between, ext4 (4 KiB less what access
/// control lists and labels take), and the least that is of use.
const ATTRIBUTE_SIZES: [usize; 5] = [65_536, 16_000, 8_000, 3_840, Metadata::MIN_LIMIT + OVERHEAD];

/// What was found.
#[derive(Debug)]
pub(crate) struct Abilities {
    pub(crate) naming: Naming,
    /// Bytes of metadata that fit.
    pub(crate) metadata: usize,
    /// The smallest step of times.
    pub(crate) granularity: Duration,
}

/// Tries it on a file in the staging directory, which is gone afterwards.
pub(crate) fn probe(staging: &Staging) -> Result<Abilities> {
    let directory = staging.directory();
    let name = format!("{}.probe", staging.owner());
    let accented = format!("{name}-\u{e9}");
    let file = create(directory, &name).map_err(error::os)?;
    // A filesystem that does not even take the accented name does not take every key as it is.
    let folds = create(directory, &accented).is_err()
        || exists(directory, &format!("{}.PROBE", staging.owner()))
        || exists(directory, &format!("{name}-e\u{301}"));
    let found = granularity(&file).and_then(|granularity| {
        let filesystem = fstatvfs(&file).map_err(error::os)?;
        let naming = Naming { max_segment: longest(filesystem.f_namemax), folds };
        Ok(Abilities { naming, metadata: metadata(&file, filesystem.f_bavail == 0)?, granularity })
    });
    for name in [name, accented] {
        // If it stays, the next sweep removes it.
        let _ = unlinkat(directory, name, AtFlags::empty());
    }
    found
}

/// What can be found out without writing. Where there is no store yet, the system tells whether its filesystems usually fold.
pub(crate) fn look(tree: &Tree) -> Result<Naming> {
    let root = tree.directory("").map_err(error::os)?;
    let is_store = exists(&root, RESERVED);
    let folds = if is_store { exists(&root, &RESERVED.to_uppercase()) } else { cfg!(target_vendor = "apple") };
    Ok(Naming { max_segment: longest(fstatvfs(&root).map_err(error::os)?.f_namemax), folds })
}

/// The longest name that is used.
fn longest(filesystem: u64) -> usize {
    usize::try_from(filesystem).unwrap_or(255).min(255)
}

fn exists(directory: &File, name: &str) -> bool {
    accessat(directory, name, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
}

fn metadata(file: &File, full: bool) -> Result<usize> {
    for size in ATTRIBUTE_SIZES {
        match fsetxattr(file, ATTRIBUTE, &vec![b' '; size], XattrFlags::empty()) {
            Ok(()) => return Ok(size - OVERHEAD),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::TOOBIG | Errno::RANGE) => {}
            Err(Errno::NOTSUP) => return Err(none()),
            Err(e) => return Err(error::os(e)),
        }
    }
    if full {
        // Nothing can be found out, but a store on a full disk must open, if only to delete something.
        return Ok(Metadata::MIN_LIMIT);
    }
    Err(none())
}

fn none() -> Error {
    Error::new(
        ErrorKind::Config,
        "the filesystem of the root has no extended attributes for metadata, or too small ones: \
         choose a root on ext4, XFS, Btrfs, ZFS, APFS or tmpfs (Linux 6.6), mounted with user attributes",
    )
}

fn granularity(file: &File) -> Result<Duration> {
    // A time with every digit set and an odd second, which coarser clocks round.
    let asked = Duration::new(1_700_000_001, 123_456_789);
    let times = FileTimes::new().set_modified(UNIX_EPOCH + asked);
    file.set_times(times).map_err(error::os)?;
    let kept = file.metadata().and_then(|stat| stat.modified());
    let kept = since_epoch(kept.map_err(error::os)?);
    let steps = [1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000];
    let exact = steps.into_iter().find(|step| {
        let nanos = asked.as_nanos();
        kept.as_nanos() == nanos - nanos % step
    });
    let nanos = exact.and_then(|step| u64::try_from(step).ok());
    Ok(Duration::from_nanos(nanos.unwrap_or(2_000_000_000)))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
