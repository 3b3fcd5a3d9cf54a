//! The only place where an error of the operating system becomes an [`ErrorKind`].

use std::io;

use rustix::io::Errno;
use storage_core::{Error, ErrorKind};

/// The kind and what to do about it, by error number.
pub(crate) fn os(e: impl Into<io::Error>) -> Error {
    let e = e.into();
    let (kind, message) = match Errno::from_io_error(&e) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            (ErrorKind::Unavailable, "the disk is full or a quota is reached: free some space and try again")
        }
        Some(Errno::ROFS) => (
            ErrorKind::PermissionDenied,
            "the filesystem is mounted read-only: mount it for writing, choose another root, or set the option `read_only`",
        ),
        Some(Errno::ACCESS | Errno::PERM) => (
            ErrorKind::PermissionDenied,
            "the operating system denies access: check owner and mode of the root and what lies below",
        ),
        Some(Errno::LOOP) => (
            ErrorKind::PermissionDenied,
            "the key leads through a symbolic link, which is never followed: replace the link by what it points to",
        ),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            (ErrorKind::Unavailable, "too many open files or too little memory: raise the limit or do less at once")
        }
        Some(Errno::NOENT | Errno::NOTDIR) => {
            (ErrorKind::Unavailable, "the root directory, or `.storage` in it, is gone: put it back, or connect again")
        }
        Some(Errno::STALE) => {
            (ErrorKind::Unavailable, "the network filesystem lost the root: try again, or connect again")
        }
        Some(Errno::NAMETOOLONG) => {
            (ErrorKind::InvalidKey, "the filesystem takes no path of this length: use a shorter key")
        }
        Some(Errno::FBIG) => {
            (ErrorKind::TooLarge, "the value is larger than the filesystem or the process's limit allows")
        }
        Some(Errno::TOOBIG | Errno::RANGE) => (
            ErrorKind::TooLarge,
            "the metadata is larger than the filesystem takes as an extended attribute: make it smaller",
        ),
        Some(Errno::XDEV) => {
            (ErrorKind::Config, "another filesystem is mounted below the root: use it as a root of its own")
        }
        None if e.kind() == io::ErrorKind::Unsupported => (
            ErrorKind::Config,
            "the filesystem cannot sync directories, so a write would not survive power loss: \
             choose another root, or set `durability=relaxed`",
        ),
        Some(Errno::IO) => (ErrorKind::Other, "the disk reports an error: look at the system's log"),
        _ => (ErrorKind::Other, "the operating system reports an error: see its source"),
    };
    Error::new(kind, message).with_source(e)
}

/// What syncing a directory failed with. Some filesystems cannot do it at all.
pub(crate) fn sync(e: io::Error) -> io::Error {
    match Errno::from_io_error(&e) {
        Some(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::BADF) => {
            io::Error::new(io::ErrorKind::Unsupported, e)
        }
        _ => e,
    }
}

/// Under the path of the root lies something else than what was opened.
pub(crate) fn another_root() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the root directory was removed, moved, replaced or mounted over since the store was opened: \
         put it back under its path, or connect again to use what is there now",
    )
}

/// Something other than a file lies where the value of a key would.
pub(crate) fn not_a_file() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "a device, pipe or socket lies under the name of the key: move it out of the root",
    )
}

/// A value that is to be held in memory does not fit.
pub(crate) fn too_large_for_memory(size: u64) -> Error {
    let message = format!("{size} bytes do not fit into memory: read the value as a stream, or in ranges");
    Error::new(ErrorKind::TooLarge, message)
}

/// Between the answer and the first read, the value was replaced or removed.
pub(crate) fn replaced() -> Error {
    Error::new(ErrorKind::Conflict, "the value was replaced or deleted before it was read: get it again")
}

/// The bytes changed while they were read, which only another program can do.
pub(crate) fn changed() -> Error {
    Error::new(ErrorKind::Conflict, "another program changed the file while it was read: read it again")
}
