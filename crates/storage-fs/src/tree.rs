//! The opened root: every path is resolved below it, and no symbolic link is ever followed.

#[cfg(not(target_os = "linux"))]
use std::os::unix::fs::MetadataExt;
#[cfg(target_os = "linux")]
use std::time::Duration;
use std::{
    collections::BTreeMap,
    fs::File,
    ops::Bound,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

#[cfg(target_os = "linux")]
use rustix::fs::{StatxFlags, makedev, statx};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, statat, unlinkat},
    io::{Errno, Result},
};

use crate::{error, name::split};

/// How a directory is opened.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// How many directories are remembered as synced up to the root.
const REMEMBERED: usize = 10_000;

/// Device and inode.
pub(crate) type Identity = (u64, u64);

/// The root, and all that is done to directories below it. Paths are relative; the root itself is the empty path.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// Where the root was opened, as an absolute path.
    path: PathBuf,
    identity: Identity,
    /// Whether the kernel resolves whole paths safely (`openat2`); otherwise they are walked segment by segment.
    whole_paths: bool,
    durable: bool,
    /// Directories whose own entries, up to the root, are known to be on disk: by path, inode and birth, since a directory
    /// that is removed and made again is another one, and one that was moved has other entries above it.
    rooted: Mutex<BTreeMap<String, (u64, SystemTime)>>,
}

impl Tree {
    /// The root that was opened under this path.
    pub(crate) fn new(root: OwnedFd, path: &Path, durable: bool) -> std::io::Result<Self> {
        // Kernels before 5.6, other systems and some sandboxes do not have the call.
        let whole_paths = open_whole(&root, ".", DIRECTORY, Mode::empty()).is_ok();
        let path = std::path::absolute(path)?;
        let identity = look(&root, ".", AtFlags::empty())?;
        Ok(Self { root, path, identity, whole_paths, durable, rooted: Mutex::default() })
    }

    /// Whether the root still lies under its path, so that others who open the store there see what is written.
    pub(crate) fn is_there(&self) -> Result<bool> {
        match look(CWD, &self.path, AtFlags::empty()) {
            Ok(found) => Ok(found == self.identity),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Which file or directory lies under a path.
    pub(crate) fn identity_of(&self, path: &str) -> Result<Identity> {
        look(&self.root, path, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Opens what is there. `LOOP` is the sign of a symbolic link anywhere in the path.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        self.open_or_create(path, flags, Mode::empty())
    }

    /// Opens what is there, or with the flag `CREATE` makes a file.
    pub(crate) fn open_or_create(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        if self.whole_paths {
            return open_whole(&self.root, path, flags, mode);
        }
        let (parents, name) = split(path);
        let mut directory = None;
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            let above = directory.as_ref().unwrap_or(&self.root);
            directory = Some(open_name(above, parent, DIRECTORY, Mode::empty())?);
        }
        open_name(directory.as_ref().unwrap_or(&self.root), name, flags, mode)
    }

    pub(crate) fn directory(&self, path: &str) -> Result<File> {
        self.open(path, DIRECTORY).map(File::from)
    }

    /// Opens a directory, making it and its parents where they are missing.
    pub(crate) fn make_directory(&self, path: &str) -> Result<File> {
        match self.directory(path) {
            Err(Errno::NOENT) => {}
            done => return done,
        }
        let ends = path.match_indices('/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let (parent, name) = split(&path[..end]);
            match mkdirat(self.directory(parent)?, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        self.directory(path)
    }

    /// Removes a directory and its parents as long as they are empty, but nothing at or above `keep`.
    pub(crate) fn prune(&self, mut path: &str, keep: &str) {
        while path.len() > keep.len() {
            let (parent, name) = split(path);
            let removed = self.directory(parent).and_then(|parent| unlinkat(parent, name, AtFlags::REMOVEDIR));
            // Not empty, or another process was faster: an empty directory that stays does no harm.
            if removed.is_err() {
                return;
            }
            // A directory made anew at once could get inode and birth of this one.
            let mut rooted = self.rooted();
            let from = rooted.range::<str, _>((Bound::Included(path), Bound::Unbounded));
            let gone: Vec<String> = from.map(|(known, _)| known.clone()).take_while(|k| k.starts_with(path)).collect();
            for known in gone {
                rooted.remove(&known);
            }
            drop(rooted);
            path = parent;
        }
    }

    /// The names in a directory, those of directories with a `/` behind, sorted. Neither files nor directories are handed to
    /// `skip`, as is what is not UTF-8.
    pub(crate) fn names(&self, path: &str, skip: impl Fn(&str, &str)) -> Result<Vec<String>> {
        let directory = match self.open(path, DIRECTORY) {
            // It was pruned, or something else took its place, after its name was read; or no filesystem has such a path.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let mut name = match entry.file_name().to_str() {
                Ok("." | "..") => continue,
                Ok(name) => name.to_owned(),
                Err(_) => {
                    skip(&entry.file_name().to_string_lossy(), "its name is not UTF-8");
                    continue;
                }
            };
            let file_type = match entry.file_type() {
                FileType::Unknown => match type_of(&directory, &name) {
                    Ok(file_type) => file_type,
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e),
                },
                known => known,
            };
            match file_type {
                FileType::RegularFile => {}
                FileType::Directory => name.push('/'),
                FileType::Symlink => {
                    skip(&name, "symbolic links are not followed");
                    continue;
                }
                _ => {
                    skip(&name, "it is neither a file nor a directory");
                    continue;
                }
            }
            names.push(name);
        }
        names.sort_unstable();
        // Some filesystems show a file twice that is replaced while the directory is read.
        names.dedup();
        Ok(names)
    }

    /// Makes what was done in a directory survive power loss, where that is configured.
    pub(crate) fn sync(&self, path: &str, directory: &File) -> std::io::Result<()> {
        if !self.durable {
            return Ok(());
        }
        // Another process may have made the parents and not synced them yet, so it is not enough to sync what one made.
        let mut synced = Vec::new();
        let (mut path, mut whole) = (path, true);
        let mut parent = None;
        loop {
            let directory = parent.as_ref().unwrap_or(directory);
            directory.sync_all().map_err(error::sync)?;
            let identity = birth(directory)?;
            if path.is_empty() || identity.is_some() && self.rooted().get(path) == identity.as_ref() {
                break;
            }
            synced.extend(identity.filter(|_| whole).map(|identity| (path.to_owned(), identity)));
            parent = loop {
                path = split(path).0;
                match self.directory(path) {
                    Ok(parent) => break Some(parent),
                    // All that was in it was deleted meanwhile. What lies above shows that.
                    Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => whole = false,
                    Err(e) => return Err(e.into()),
                }
            };
        }
        let mut rooted = self.rooted();
        if rooted.len() >= REMEMBERED {
            rooted.clear();
        }
        if whole {
            rooted.extend(synced);
        }
        Ok(())
    }

    /// Makes what a directory holds, or that it is not there, survive power loss, where that is configured.
    pub(crate) fn sync_path(&self, mut path: &str) -> std::io::Result<()> {
        if !self.durable {
            return Ok(());
        }
        loop {
            match self.directory(path) {
                Ok(directory) => return self.sync(path, &directory),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) if !path.is_empty() => path = split(path).0,
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn rooted(&self) -> MutexGuard<'_, BTreeMap<String, (u64, SystemTime)>> {
        self.rooted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which file or directory lies under a path.
///
/// Its times are not asked for: Linux 6.13 and later note that somebody has seen them and give the next change a time of its own, so
/// that the next `fsync` has more to write.
#[cfg(target_os = "linux")]
fn look(directory: impl AsFd, path: impl AsRef<Path>, flags: AtFlags) -> Result<Identity> {
    match statx(&directory, path.as_ref(), flags, StatxFlags::INO) {
        Ok(found) => Ok((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino)),
        // As containers may answer that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => by_stat(directory, path, flags),
        Err(e) => Err(e),
    }
}

#[cfg(not(target_os = "linux"))]
use by_stat as look;

#[allow(clippy::unnecessary_cast, reason = "they are narrower on some systems")]
fn by_stat(directory: impl AsFd, path: impl AsRef<Path>, flags: AtFlags) -> Result<Identity> {
    statat(directory, path.as_ref(), flags).map(|stat| (stat.st_dev as u64, stat.st_ino as u64))
}

/// The inode of a directory and when it was made, where the system tells.
#[cfg(target_os = "linux")]
fn birth(directory: &File) -> std::io::Result<Option<(u64, SystemTime)>> {
    let found = match statx(directory, ".", AtFlags::empty(), StatxFlags::INO | StatxFlags::BTIME) {
        Ok(found) => found,
        Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let time = u64::try_from(found.stx_btime.tv_sec).ok().filter(|_| found.stx_mask & StatxFlags::BTIME.bits() != 0);
    Ok(time.map(|seconds| (found.stx_ino, SystemTime::UNIX_EPOCH + Duration::new(seconds, found.stx_btime.tv_nsec))))
}

#[cfg(not(target_os = "linux"))]
fn birth(directory: &File) -> std::io::Result<Option<(u64, SystemTime)>> {
    let found = directory.metadata()?;
    Ok(found.created().ok().map(|birth| (found.ino(), birth)))
}

#[cfg(target_os = "linux")]
fn open_whole(root: &OwnedFd, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, flags, mode, beneath)
}

#[cfg(not(target_os = "linux"))]
fn open_whole(_: &OwnedFd, _: &str, _: OFlags, _: Mode) -> Result<OwnedFd> {
    Err(Errno::NOSYS)
}

/// Opens one name, which is not a path, without following it.
fn open_name(directory: &OwnedFd, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    match openat(directory, name, flags | OFlags::NOFOLLOW, mode) {
        // A link where a directory is expected is reported as what it is not.
        Err(Errno::NOTDIR) if type_of(directory, name) == Ok(FileType::Symlink) => Err(Errno::LOOP),
        done => done,
    }
}

fn type_of(directory: impl AsFd, name: &str) -> Result<FileType> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_paths_and_segments_resolve_alike() {
        for whole_paths in [true, false] {
            let temporary = tempfile::tempdir().unwrap();
            let root = rustix::fs::open(temporary.path(), DIRECTORY, Mode::empty()).unwrap();
            let mut tree = Tree::new(root, temporary.path(), true).unwrap();
            tree.whole_paths &= whole_paths;
            let made = tree.make_directory("a/b/c").unwrap();
            tree.sync("a/b/c", &made).unwrap();
            std::fs::write(temporary.path().join("a/file"), "x").unwrap();
            std::os::unix::fs::symlink("b", temporary.path().join("a/link")).unwrap();
            for (path, expected) in [
                ("", None),
                ("a/b", None),
                ("a/none", Some(Errno::NOENT)),
                ("none/b", Some(Errno::NOENT)),
                ("a/file", Some(Errno::NOTDIR)),
                ("a/file/b", Some(Errno::NOTDIR)),
                ("a/link", Some(Errno::LOOP)),
                ("a/link/c", Some(Errno::LOOP)),
            ] {
                assert_eq!(tree.directory(path).err(), expected, "{path:?}, whole {whole_paths}");
            }
            assert_eq!(tree.make_directory("a/link/d").err(), Some(Errno::LOOP));
            assert_eq!(tree.make_directory("a/file/d").err(), Some(Errno::NOTDIR));
            assert_eq!(tree.names("a", |_, _| ()).unwrap(), ["b/", "file"]);
            tree.prune("a/b/c", "");
            assert_eq!(tree.names("a", |_, _| ()).unwrap(), ["file"]);
        }
    }
}
