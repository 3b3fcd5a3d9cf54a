//! Directories in which something was done, or seen, that may not be durable yet. A batch collects them, so each is synced once.

use std::{collections::BTreeMap, fs::File};

use storage_core::{Error, ErrorKind, Result};

use crate::{
    error,
    name::{ANNEX, RESERVED},
    tree::Tree,
};

/// How many directories are kept open. A batch may touch thousands; the others are opened again to be synced.
const OPEN: usize = 2;

#[derive(Debug, Default)]
pub(crate) struct Changes {
    directories: BTreeMap<String, Change>,
    open: usize,
}

#[derive(Debug, Default)]
struct Change {
    directory: Option<File>,
    /// Something was removed, so the directory may be empty now.
    removed: bool,
}

impl Changes {
    /// Notes that a file in this directory was written or, with `removed`, removed.
    pub(crate) fn note(&mut self, path: &str, directory: File, removed: bool) {
        let change = self.directories.entry(path.to_owned()).or_default();
        change.removed |= removed;
        // A directory noted before under this path is either the same or was removed, with all that was in it.
        if change.directory.is_some() || self.open < OPEN {
            self.open += usize::from(change.directory.replace(directory).is_none());
        }
    }

    /// Notes that an answer rests on what lies in this directory, or on its absence, which others may not have synced yet.
    pub(crate) fn note_seen(&mut self, path: &str) {
        self.directories.entry(path.to_owned()).or_default();
    }

    /// Makes everything durable, and then removes directories that became empty. What it fails with is ambiguous: the changes
    /// were made, and may or may not survive power loss.
    pub(crate) fn settle(self, tree: &Tree) -> Result<()> {
        self.sync(tree)?;
        for (path, change) in self.directories.iter().rev() {
            if change.removed {
                let in_annex = path.starts_with(RESERVED);
                tree.prune(path, if in_annex { ANNEX } else { "" });
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&self, tree: &Tree) -> Result<()> {
        let mut directories = self.directories.iter();
        directories.try_for_each(|(path, change)| {
            let synced = match &change.directory {
                Some(directory) => tree.sync(path, directory),
                None => tree.sync_path(path),
            };
            synced.map_err(|e| error::os(e).ambiguous())
        })
    }
}

/// What an item of a batch fails with when the batch could not be settled. One that failed by itself keeps its error, unless that
/// tells of a write that may not be durable.
pub(crate) fn unsettled(own: Option<Error>, e: &Error) -> Error {
    let rests = |own: &Error| matches!(own.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed);
    own.filter(|own| !rests(own)).unwrap_or_else(|| e.clone().ambiguous())
}
