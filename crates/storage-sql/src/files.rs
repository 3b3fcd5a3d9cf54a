//! The files as their paths show them. SQLite goes on writing a file that was moved or removed, and nobody who opens the path
//! would find what it has written; so each write looks whether the files are those that were opened. Here no file is ever
//! opened: to close one would drop all locks that this process has on it.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
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
    /// When it was last tried to cut the log.
    cut: Mutex<Option<Instant>>,
}

impl Files {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, opened: OnceLock::new(), beside: OnceLock::new(), cut: Mutex::default() }
    }

    /// Remembers the file, which was just opened.
    ///
    /// # Errors
    /// `Unavailable` if it is not there any more.
    pub(crate) fn opened(&self) -> Result<()> {
        let found = fs::metadata(&self.path).map_err(|e| gone(&self.path, Some(e)))?;
        self.opened.get_or_init(|| identity(&found));
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
            let found = fs::metadata(&path).map_err(|e| gone(&path, Some(e)))?;
            Ok::<_, Error>((path, identity(&found)))
        };
        let both = [beside("-wal")?, beside("-shm")?];
        self.beside.get_or_init(|| both);
        self.check().map(drop)
    }

    /// Looks whether the paths lead to the files that were opened. Returns how long the log is, in bytes.
    ///
    /// # Errors
    /// `Unavailable` if not.
    pub(crate) fn check(&self) -> Result<u64> {
        let is_same = |path: &Path, opened: &Identity| match fs::metadata(path) {
            Ok(found) if identity(&found) == *opened => Ok(found.len()),
            Ok(_) => Err(gone(path, None)),
            Err(e) => Err(gone(path, Some(e))),
        };
        if let Some(opened) = self.opened.get() {
            is_same(&self.path, opened)?;
        }
        let mut log = 0;
        for (path, opened) in self.beside.get().into_iter().flatten().rev() {
            log = is_same(path, opened)?;
        }
        Ok(log)
    }

    /// Whether the log is to be cut now; `anew` if somebody who kept it from that has just ended.
    pub(crate) fn is_long(&self, anew: bool) -> bool {
        if !self.check().is_ok_and(|log| log > LOG) {
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

#[cfg(unix)]
fn identity(found: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;

    (found.dev(), found.ino())
}

/// Elsewhere an open file can be neither moved nor removed.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    (0, 0)
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
