//! The files as their paths show them. SQLite goes on writing a file that was moved or removed, and nobody who opens the path
//! would find what it has written; so each write looks whether the files are those that were opened. Here no file is ever
//! opened: to close one would drop all locks that this process has on it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use storage_core::{Error, ErrorKind, Result};

/// How long the log may become before it is cut: four times what SQLite lets it become between two checkpoints.
pub(crate) const LOG: u64 = 16 << 20;
/// How long after an attempt to cut the log the next is made at the earliest.
const PAUSE: Duration = Duration::from_secs(1);

/// A file, whatever it is called.
type Identity = (u64, u64);

/// The database, its log and the index of that.
#[derive(Debug)]
pub(crate) struct Files {
    /// As it was configured; a link may lead elsewhere one day.
    path: PathBuf,
    opened: OnceLock<Identity>,
    /// The log and its index, which lie beside the file itself.
    beside: OnceLock<[(PathBuf, Identity); 2]>,
    /// How long the log was when it was last looked at, in bytes.
    log: AtomicU64,
    /// When it was last tried to cut the log.
    cut: Mutex<Option<Instant>>,
}

impl Files {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, opened: OnceLock::new(), beside: OnceLock::new(), log: AtomicU64::new(0), cut: Mutex::default() }
    }

    /// Remembers the file, which was just opened.
    ///
    /// # Errors
    /// `Unavailable` if it is not there any more.
    pub(crate) fn opened(&self) -> Result<()> {
        let (found, _) = look(&self.path).map_err(|e| gone(&self.path, Some(e)))?;
        self.opened.get_or_init(|| found);
        Ok(())
    }

    /// Remembers the log, which a connection that stays open keeps there.
    ///
    /// # Errors
    /// `Unavailable` if a file is not there any more.
    pub(crate) fn logging(&self) -> Result<()> {
        let real = fs::canonicalize(&self.path).map_err(|e| gone(&self.path, Some(e)))?;
        let beside = |end: &str| {
            let mut name = real.clone().into_os_string();
            name.push(end);
            let path = PathBuf::from(name);
            let (found, _) = look(&path).map_err(|e| gone(&path, Some(e)))?;
            Ok::<_, Error>((path, found))
        };
        let both = [beside("-wal")?, beside("-shm")?];
        self.beside.get_or_init(|| both);
        self.check()
    }

    /// Looks whether the paths lead to the files that were opened, and how long the log is.
    ///
    /// # Errors
    /// `Unavailable` if not.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(opened) = self.opened.get() {
            is_same(&self.path, opened)?;
        }
        if let Some([(log, its), (index, other)]) = self.beside.get() {
            is_same(index, other)?;
            self.log.store(is_same(log, its)?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the log was so long when it was last looked at that it is to be cut now; `anew` if somebody who kept it from that
    /// has just ended.
    pub(crate) fn is_long(&self, anew: bool) -> bool {
        if self.log.load(Ordering::Relaxed) <= LOG {
            return false;
        }
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let due = anew || cut.is_none_or(|cut| cut.elapsed() >= PAUSE);
        if due {
            *cut = Some(Instant::now());
        }
        due
    }
}

/// The length of what the path leads to, if that is the file that was opened.
fn is_same(path: &Path, opened: &Identity) -> Result<u64> {
    match look(path) {
        Ok((found, length)) if found == *opened => Ok(length),
        Ok(_) => Err(gone(path, None)),
        Err(e) => Err(gone(path, Some(e))),
    }
}

/// Which file the path leads to, and its length.
///
/// Its times are not asked for: Linux 6.13 and later note that somebody has seen them and give the next write a time of its own,
/// which makes the next `fsync` half as slow again, for it has a changed inode to write as well.
#[cfg(target_os = "linux")]
fn look(path: &Path) -> io::Result<(Identity, u64)> {
    use rustix::{
        fs::{AtFlags, CWD, StatxFlags, statx},
        io::Errno,
    };

    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE) {
        Ok(found) => {
            let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
            Ok(((device, found.stx_ino), found.stx_size))
        }
        // As containers may answer that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => by_metadata(path),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn look(path: &Path) -> io::Result<(Identity, u64)> {
    by_metadata(path)
}

#[cfg(unix)]
fn by_metadata(path: &Path) -> io::Result<(Identity, u64)> {
    use std::os::unix::fs::MetadataExt;

    fs::metadata(path).map(|found| ((found.dev(), found.ino()), found.len()))
}

/// Elsewhere an open file can be neither moved nor removed.
#[cfg(not(unix))]
fn by_metadata(path: &Path) -> io::Result<(Identity, u64)> {
    fs::metadata(path).map(|found| ((0, 0), found.len()))
}

fn gone(path: &Path, cause: Option<io::Error>) -> Error {
    let message = format!(
        "{} was moved, removed or replaced while the database was open; put back the database with its `-wal` and `-shm`, \
         or connect again to use what is there now",
        path.display()
    );
    let e = Error::new(ErrorKind::Unavailable, message);
    match cause {
        Some(cause) => e.with_source(cause),
        None => e,
    }
}
