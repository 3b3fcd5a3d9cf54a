//! The contract, check by check.

use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, path::Path};

use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Error, ErrorKind};
use storage_fs::{Config, Fs};

storage_conformance::main!(
    Target::new("fs", |ns: Namespace| async move { Fs::open(ns.dir()).await })
        .requires(Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags())
        .foreign(|ns: Namespace| async move {
            strange(ns.dir())
                .map_err(|e| Error::new(ErrorKind::Other, "the strange names cannot be made").with_source(e))
        })
        .damage(|ns: Namespace, key| async move { damage(&ns.dir().join(key.as_str())).map_err(by_others) })
        .stored_by_others(|ns: Namespace, key, value| async move {
            store(&ns.dir().join(key.as_str()), &value).map_err(by_others)
        })
        .read_only(|ns: Namespace| async move {
            let mut config = Config::default();
            config.root = ns.dir().to_owned();
            config.read_only = true;
            Fs::connect(config).await
        })
        .leftovers(staged),
);

/// What others leave in directories, and what no key can name.
fn strange(root: &Path) -> io::Result<()> {
    fs::write(root.join(OsStr::from_bytes(b"not \xff UTF-8")), "")?;
    fs::create_dir(root.join(OsStr::from_bytes(b"nor \xfe this")))?;
    fs::write(root.join(OsStr::from_bytes(b"nor \xfe this/file")), "")?;
    fs::write(root.join("plain file"), "by hand")?;
    fs::create_dir_all(root.join("empty/directory"))?;
    std::os::unix::fs::symlink("/nowhere", root.join("dangling"))?;
    std::os::unix::fs::symlink("/etc", root.join("out of here"))?;
    drop(std::os::unix::net::UnixListener::bind(root.join("socket"))?);
    fs::create_dir_all(root.join(".storage/unknown"))?;
    fs::write(root.join(".storage/unknown/file"), "")
}

/// A record of which only the beginning is left.
fn damage(file: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(file, "user.storage.v1", b"damaged", rustix::fs::XattrFlags::empty())?)
}

fn store(file: &Path, value: &[u8]) -> io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    fs::write(file, value)
}

fn by_others(e: io::Error) -> Error {
    Error::new(ErrorKind::Other, "what others do cannot be done here").with_source(e)
}

/// What is staged, without the lock files of those that live.
fn staged(root: &Path) -> usize {
    let staging = fs::read_dir(root.join(".storage/staging")).into_iter().flatten().flatten();
    staging.filter(|name| !name.file_name().to_string_lossy().ends_with(".lock")).count()
}
