//! An opened store: the root, what lies in its reserved directory, and where the value of a key is.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use rustix::{fs::OFlags, io::Errno};
use storage_core::{Entry, Error, ErrorKind, Key, Limits, Result};

use crate::{
    Config, Durability, error,
    lock::{Guard, Locks},
    name::{self, ANNEX, LOCKS, Naming, RESERVED, STAGING},
    probe::{Abilities, look, probe},
    record::{self, Record},
    stage::Staging,
    tree::{DIRECTORY, Identity, Tree},
};

/// What a store of this layout has in `.storage/format`.
const FORMAT: &[u8] = b"storage-fs 1\n";
/// How often to look again at a value that is renamed all the time.
const ATTEMPTS: usize = 100;
/// Neither a terminal nor a pipe under a value's name may stop the process that opens it.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) tree: Tree,
    pub(crate) naming: Naming,
    writing: Option<Writing>,
    pub(crate) limits: Limits,
    pub(crate) durable: bool,
}

/// What a store has that can be written to.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) locks: Locks,
    pub(crate) staging: Arc<Staging>,
    /// Of the staging directory.
    identity: Identity,
}

/// The file of a value, opened. It stays the same value whatever happens to the key.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) file: File,
    pub(crate) stat: fs::Metadata,
}

impl Store {
    /// Opens the store and, unless it is to be read only, makes it where nothing is and sweeps what dead processes left.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let durable = config.durability == Durability::Full;
        if config.create && !config.read_only {
            make_root(&config.root, durable).map_err(|e| root_error(e, &config.root))?;
        }
        let root = rustix::fs::open(&config.root, DIRECTORY, rustix::fs::Mode::empty())
            .map_err(|e| root_error(e.into(), &config.root))?;
        let tree = Tree::new(root, &config.root, durable).map_err(error::os)?;
        let mut limits = Limits::default();
        let (writing, naming) = if config.read_only {
            (None, look(&tree)?)
        } else {
            let writing = Writing::new(&tree)?;
            let Abilities { naming, metadata, granularity } = probe(&writing.staging)?;
            limits.metadata = metadata;
            limits.time_granularity = granularity;
            (Some(writing), naming)
        };
        let store = Self { tree, naming, writing, limits, durable };
        store.check_format()?;
        Ok(store)
    }

    /// What it takes to write.
    pub(crate) fn writing(&self) -> Result<&Writing> {
        self.writing.as_ref().ok_or_else(|| {
            let what = "the store was opened with the option `read_only`: connect without it to write";
            Error::new(ErrorKind::PermissionDenied, what)
        })
    }

    /// The value of a key, in its natural place or else in the annex.
    ///
    /// A value stays in its place as long as it exists: a write replaces it where it is. So one look at each place cannot miss
    /// a value that is there all the while.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<Found>> {
        if let Some(path) = self.naming.natural(key.as_str())
            && let Some(found) = self.open_value(path)?
        {
            return Ok(Some(found));
        }
        let found = self.open_value(&name::annex(key.as_str()))?;
        if found.is_none() {
            self.check_root()?;
        }
        Ok(found)
    }

    /// Fails when the root is no longer what others find under its path, so that nobody takes that for an empty store, or for
    /// one to write to.
    pub(crate) fn check_root(&self) -> Result<()> {
        if self.tree.is_there().map_err(error::os)? { Ok(()) } else { Err(error::another_root()) }
    }

    /// As `check_root`, and when what lies in the reserved directory is no longer what was opened.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_root()?;
        match self.tree.identity_of(STAGING) {
            Ok(identity) if identity == self.writing()?.identity => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(error::another_root()),
            Err(e) => Err(error::os(e)),
        }
    }

    /// The lock of a key, taken where others take theirs.
    pub(crate) fn lock(&self, key: &Key) -> Result<Guard<'_>> {
        let guard = self.writing()?.locks.lock(&self.tree, key);
        self.check_writable()?;
        guard
    }

    /// The locks of two keys.
    pub(crate) fn lock_both(&self, keys: [&Key; 2]) -> Result<(Guard<'_>, Option<Guard<'_>>)> {
        let guards = self.writing()?.locks.lock_both(&self.tree, keys);
        self.check_writable()?;
        guards
    }

    /// The value of a key and its entry, without the key's lock.
    pub(crate) fn look(&self, key: &Key) -> Result<Option<(Found, Entry)>> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.find(key)? else { return Ok(None) };
            let record = found.record();
            // The file may have been renamed, once and again, since it was opened: then what it says now is not said of this key.
            let renamed = match &record {
                Ok(Some(record)) if record.renamed.is_some() => {
                    // Renamed to and fro, it is at its place again, and its record is of another date than the one that was looked at.
                    if !record.is_of(&found.stat) && found.has_changed()? {
                        continue;
                    }
                    true
                }
                _ => false,
            };
            if !renamed || self.tree.identity_of(&found.path).is_ok_and(|now| now == found.identity()) {
                let entry = found.describe(key, record)?;
                return Ok(Some((found, entry)));
            }
        }
        Err(error::replaced())
    }

    /// Fails unless reading is possible and, if it was when the store was opened, writing.
    pub(crate) fn health(&self) -> Result<()> {
        if self.writing.is_none() {
            return self.check_root();
        }
        self.check_writable()?;
        [ANNEX, LOCKS].iter().try_for_each(|path| self.tree.directory(path).map(drop).map_err(error::os))
    }

    fn open_value(&self, path: &str) -> Result<Option<Found>> {
        let file = match self.tree.open(path, READ) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Ok(None),
            // What opening a socket comes to.
            Err(Errno::NXIO) => return Err(error::not_a_file()),
            Err(e) => return Err(error::os(e)),
        };
        let stat = file.metadata().map_err(error::os)?;
        if stat.is_dir() {
            return Ok(None);
        }
        if !stat.is_file() {
            return Err(error::not_a_file());
        }
        let path = path.to_owned();
        Ok(Some(Found { path, file, stat }))
    }

    fn check_format(&self) -> Result<()> {
        let path = format!("{RESERVED}/format");
        match self.tree.open(&path, READ) {
            Ok(fd) => {
                let mut found = Vec::new();
                let mut start = File::from(fd).take(FORMAT.len() as u64 + 1);
                start.read_to_end(&mut found).map_err(error::os)?;
                if found == FORMAT {
                    return Ok(());
                }
                let what = "the root holds a store of another format: open it with the release that wrote it";
                Err(Error::new(ErrorKind::Config, what))
            }
            // What other programs wrote can be read without a store.
            Err(Errno::NOENT) if self.writing.is_none() => Ok(()),
            Err(Errno::NOENT) => {
                let mut staged = self.writing()?.staging.stage()?;
                staged.append(&[Bytes::from_static(FORMAT)])?;
                staged.sync(self.durable)?;
                let directory = self.tree.directory(RESERVED).map_err(error::os)?;
                staged.place(&directory, "format").map_err(error::os)?;
                self.tree.sync(RESERVED, &directory).map_err(error::os)
            }
            Err(e) => Err(error::os(e)),
        }
    }
}

impl Writing {
    /// Makes what is missing, and sweeps what dead processes left.
    fn new(tree: &Tree) -> Result<Self> {
        let reserved = |path| {
            let directory = tree.make_directory(path).map_err(|e| match e {
                // So says /proc.
                Errno::NOENT => {
                    let what = "no directory can be made in the root: choose one on another filesystem";
                    Error::new(ErrorKind::Config, what).with_source(io::Error::from(e))
                }
                e => error::os(e),
            })?;
            tree.sync(path, &directory).map_err(error::os)?;
            Ok(directory)
        };
        reserved(LOCKS)?;
        let staging = Arc::new(Staging::new(reserved(STAGING)?)?);
        reserved(ANNEX)?;
        let left = tree.names(STAGING, |_, _| ());
        staging.sweep(&left.map_err(error::os)?);
        let identity = tree.identity_of(STAGING).map_err(error::os)?;
        Ok(Self { locks: Locks::new(), staging, identity })
    }
}

impl Found {
    /// What the value's entry says, which is damaged where the record cannot be read.
    pub(crate) fn entry(&self, key: &Key) -> Result<Entry> {
        self.describe(key, self.record())
    }

    fn record(&self) -> Result<Option<Record>> {
        Record::read(&self.file)
    }

    fn identity(&self) -> Identity {
        (self.stat.dev(), self.stat.ino())
    }

    fn describe(&self, key: &Key, record: Result<Option<Record>>) -> Result<Entry> {
        match record {
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(record::entry(key, &self.stat, None).into_damaged(e)),
            record => Ok(record::entry(key, &self.stat, record?)),
        }
    }

    /// What the file says by itself: size and date.
    pub(crate) fn bare_entry(&self, key: &Key) -> Entry {
        let mut entry = record::entry(key, &self.stat, None);
        (entry.etag, entry.metadata) = (None, None);
        entry
    }
}

/// Makes the root and its parents. The entry of each new directory is synced.
fn make_root(path: &Path, durable: bool) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    // Some filesystems (/proc) say of any new directory that it does not exist, although its parent does.
    if !parent.is_dir() {
        make_root(parent, durable)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        done => done?,
    }
    if durable {
        File::open(parent)?.sync_all().map_err(error::sync)?;
    }
    Ok(())
}

fn root_error(e: io::Error, path: &Path) -> Error {
    let path = path.display().to_string().escape_debug().to_string();
    let (kind, message) = match e.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            format!("the root directory {path} does not exist: create it, or set the option `create`"),
        ),
        io::ErrorKind::NotADirectory => (
            ErrorKind::Config,
            format!("the root {path} is not a directory, or lies below something that is not: choose another"),
        ),
        // A NUL, a name that is too long, links in a circle.
        _ if e.kind() == io::ErrorKind::InvalidInput
            || matches!(Errno::from_io_error(&e), Some(Errno::LOOP | Errno::NAMETOOLONG)) =>
        {
            (ErrorKind::Config, format!("the root {path} is no path on this system: choose another"))
        }
        _ => return error::os(e),
    };
    Error::new(kind, message).with_source(e)
}

#[cfg(test)]
mod tests {
    use storage_core::pending::Writes;

    use super::*;
    use crate::changes::Changes;

    #[test]
    fn names_that_the_filesystem_refuses_lie_in_the_annex() {
        let root = tempfile::tempdir().unwrap();
        let config = Config { root: root.path().to_owned(), ..Config::default() };
        let mut store = Store::open(&config).unwrap();
        // As where a filesystem encrypts names, which makes them longer, and does not say so.
        store.naming.max_segment = 1000;
        let (long, below) = ("n".repeat(300), format!("{}/below", "n".repeat(300)));
        let keys = [long.as_str(), &below, "short"].map(|key| Key::parse(key).unwrap());
        for key in &keys {
            let staged = store.append(None, &[Bytes::from_static(b"v")]).unwrap();
            let mut changes = Changes::default();
            let (_caller, commit) = Writes::new().begin(key);
            store.commit(key, staged, Default::default(), &mut changes, &commit).unwrap();
            changes.settle(&store.tree).unwrap();
            assert_eq!(store.stat(key).unwrap().unwrap().size, 1);
        }
        let store = Arc::new(store);
        let options = storage_core::ListOptions::new().prefix(&long);
        let listed = crate::list::Listing::new(store.clone(), options).page().unwrap().0;
        assert_eq!(listed.len(), 2);
        for key in &keys {
            let mut changes = Changes::default();
            let (_caller, commit) = Writes::new().begin(key);
            store.remove(key, None, &mut changes, &commit).unwrap();
            changes.settle(&store.tree).unwrap();
            assert_eq!(store.stat(key).unwrap(), None);
        }
    }
}
