//! Where values are written before they are moved into place, and how those of dead processes are swept.
//!
//! Everyone who opens a store has an id of 128 random bits and holds a lock on `<id>.lock` in the staging directory for as
//! long as they live. What they stage is `<id>.<number>`; the same text is the value's etag, since it is never used again.

use std::{
    collections::BTreeSet,
    fs::{File, FileTimes},
    hash::{BuildHasher, RandomState},
    io::{BufWriter, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use storage_core::{Metadata, Result};

use crate::{
    error,
    record::{self, Nanos, Record, WriteId},
};

/// Pieces of a stream that are smaller than this are written together.
const BUFFER: usize = 64 << 10;

/// The staging directory, as one who has opened the store.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: File,
    owner: u128,
    number: AtomicU64,
    /// Locked as long as this lives.
    _alive: File,
}

impl Staging {
    /// Takes an id and its lock.
    pub(crate) fn new(directory: File) -> Result<Self> {
        loop {
            // The hash maps of the standard library are seeded by the system.
            let random = || u128::from(RandomState::new().hash_one(()));
            let owner = random() << 64 | random();
            let alive = create(&directory, &lock_name(owner)).map_err(error::os)?;
            alive.lock().map_err(error::os)?;
            // Between the two calls, a sweep may have taken it for one that was left behind.
            let stat = rustix::fs::fstat(&alive).map_err(error::os)?;
            if stat.st_nlink > 0 {
                return Ok(Self { directory, owner, number: AtomicU64::new(0), _alive: alive });
            }
        }
    }

    /// The directory, for probing.
    pub(crate) fn directory(&self) -> &File {
        &self.directory
    }

    /// What the names of this owner's files begin with.
    pub(crate) fn owner(&self) -> String {
        format!("{:032x}", self.owner)
    }

    /// A name for one write.
    pub(crate) fn id(&self) -> WriteId {
        WriteId { owner: self.owner, number: self.number.fetch_add(1, Ordering::Relaxed) }
    }

    /// An empty file to write a value to.
    pub(crate) fn stage(self: &Arc<Self>) -> Result<Staged> {
        let id = self.id();
        let file = create(&self.directory, &id.to_string()).map_err(error::os)?;
        Ok(Staged { staging: self.clone(), id, file, size: 0, placed: false })
    }

    /// Removes what dead owners left, given the names in the directory.
    pub(crate) fn sweep(&self, names: &[String]) {
        let owners: BTreeSet<u128> = names.iter().filter_map(|name| owner_of(name)).collect();
        for owner in owners.into_iter().filter(|owner| *owner != self.owner) {
            let lock = openat(
                &self.directory,
                lock_name(owner),
                OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                Mode::empty(),
            );
            // The lock is held until the end, so that nobody takes the owner for dead before its files are gone. Without a lock
            // file there is no owner.
            let lock = lock.map(File::from);
            if lock.as_ref().is_ok_and(|lock| lock.try_lock().is_err())
                || lock.is_err_and(|e| e != rustix::io::Errno::NOENT)
            {
                continue;
            }
            let left = names.iter().filter(|name| owner_of(name) == Some(owner));
            for name in left {
                // Somebody else may sweep at the same time.
                let _ = unlinkat(&self.directory, name, AtFlags::empty());
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // If it stays, the next sweep removes it.
        let _ = unlinkat(&self.directory, lock_name(self.owner), AtFlags::empty());
    }
}

/// A value on its way. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    staging: Arc<Staging>,
    id: WriteId,
    file: File,
    size: u64,
    placed: bool,
}

impl Staged {
    /// Appends pieces; small ones together.
    pub(crate) fn append(&mut self, pieces: &[Bytes]) -> Result<()> {
        if let [piece] = pieces {
            self.file.write_all(piece).map_err(error::os)?;
        } else {
            let mut out = BufWriter::with_capacity(BUFFER, &self.file);
            let written = pieces.iter().try_for_each(|piece| out.write_all(piece));
            written.and_then(|()| out.flush()).map_err(error::os)?;
        }
        self.size += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Appends all of another file and returns how much that was.
    pub(crate) fn append_file(&mut self, mut from: &File) -> Result<u64> {
        let copied = std::io::copy(&mut from, &mut self.file).map_err(error::os)?;
        self.size += copied;
        Ok(copied)
    }

    /// Completes the file: everything is on it, and on disk if `durable`.
    pub(crate) fn seal(
        &self,
        modified: Nanos,
        created: Nanos,
        metadata: Arc<Metadata>,
        durable: bool,
    ) -> Result<Record> {
        let times = FileTimes::new().set_modified(record::time(modified));
        self.file.set_times(times).map_err(error::os)?;
        let record = Record { id: self.id, size: self.size, modified, created, metadata, renamed: None };
        record.write(&self.file)?;
        self.sync(durable)?;
        Ok(record)
    }

    pub(crate) fn sync(&self, durable: bool) -> Result<()> {
        if durable {
            self.file.sync_all().map_err(error::os)?;
        }
        Ok(())
    }

    /// Moves the file into place, replacing what is there.
    pub(crate) fn place(&mut self, directory: &File, name: &str) -> rustix::io::Result<()> {
        renameat(&self.staging.directory, self.id.to_string(), directory, name)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // If it stays, the sweep after this process's end removes it.
            let _ = unlinkat(&self.staging.directory, self.id.to_string(), AtFlags::empty());
        }
    }
}

/// A new file in a directory. Its mode follows the process's umask.
pub(crate) fn create(directory: &File, name: &str) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::from_raw_mode(0o666)).map(File::from)
}

fn lock_name(owner: u128) -> String {
    format!("{owner:032x}.lock")
}

/// The owner of a staged file, or `None` if it is not a name of ours.
fn owner_of(name: &str) -> Option<u128> {
    let (owner, _) = name.split_once('.').filter(|(owner, _)| owner.len() == 32)?;
    u128::from_str_radix(owner, 16).ok()
}
