//! Directories in which something was done that is not yet durable. A batch collects them, so each is synced once.

use std::{collections::BTreeMap, fs::File};

use storage_core::{Error, Result};

use crate::{
    error,
    name::{ANNEX, RESERVED},
    tree::Tree,
};

#[derive(Debug, Default)]
pub(crate) struct Changes {
    directories: BTreeMap<String, Change>,
}

#[derive(Debug)]
struct Change {
    directory: File,
    /// Something was removed, so the directory may be empty now.
    removed: bool,
}

impl Changes {
    /// Notes that a file in this directory was written or, with `removed`, removed.
    pub(crate) fn note(&mut self, path: &str, directory: File, removed: bool) {
        // A directory noted before under this path is either the same or was removed, with all that was in it.
        let before = self.directories.get(path);
        let removed = removed || before.is_some_and(|change| change.removed);
        let change = Change { directory, removed };
        self.directories.insert(path.to_owned(), change);
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
            let synced = tree.sync(path, &change.directory);
            synced.map_err(|e| error::os(e).ambiguous())
        })
    }
}

/// What a batch's items fail with when the batch could not be settled.
pub(crate) fn unsettled(e: &Error) -> Error {
    e.clone().ambiguous()
}
