//! Putting, copying and deleting: stage, lock, check, move into place, sync.

use std::sync::Arc;

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, unlinkat},
    io::Errno,
};
use storage_core::{
    Condition, CopyOptions, Entry, Error, ErrorKind, Key, Metadata, PutOptions, Result, pending::Commit,
};

use crate::{
    changes::Changes,
    error,
    name::{self, split},
    record::{self, Nanos, Record},
    stage::Staged,
    store::{Found, Store},
};

/// How often to make a directory again that another process prunes.
const ATTEMPTS: usize = 100;

/// What a value takes over from the one it replaces.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    modified: Nanos,
    created: Nanos,
}

impl Store {
    /// Appends pieces to what is staged already, or to a new file.
    pub(crate) fn append(&self, staged: Option<Staged>, pieces: &[Bytes]) -> Result<Staged> {
        let mut staged = staged.map_or_else(|| self.writing()?.staging.stage(), Ok)?;
        staged.append(pieces)?;
        Ok(staged)
    }

    /// Makes what is staged the value of a key. It is visible afterwards, and durable once `changes` are settled.
    pub(crate) fn commit(
        &self,
        key: &Key,
        mut staged: Staged,
        options: PutOptions,
        changes: &mut Changes,
        commit: &Commit,
    ) -> Result<Entry> {
        let now = record::now(self.limits.time_granularity);
        let metadata = options.metadata.unwrap_or_default();
        // Syncing takes long and happens before the lock. Should the value that is replaced turn out to be another one then,
        // it is done again.
        let mut sealed = None;
        if self.durable {
            let times = times(now, self.find(key)?.as_ref())?;
            sealed = Some((times, self.seal(&staged, times, &metadata)?));
        }
        let _guard = self.lock(key)?;
        let current = self.find(key)?;
        self.check(key, options.condition.as_ref(), current.as_ref(), changes)?;
        let times = times(now, current.as_ref())?;
        let record = match sealed {
            Some((before, record)) if before == times => record,
            _ => self.seal(&staged, times, &metadata)?,
        };
        commit.begin()?;
        self.install(key, &mut staged, current, changes)?;
        let mut entry = Entry::new(key.clone(), record.size);
        entry.modified = Some(record::time(record.modified));
        entry.created = Some(record::time(record.created));
        entry.etag = Some(record.id.to_string().into());
        entry.metadata = Some(record.metadata);
        Ok(entry)
    }

    /// Removes the value of a key, if there is one. It is gone for good once `changes` are settled.
    pub(crate) fn remove(
        &self,
        key: &Key,
        condition: Option<&Condition>,
        changes: &mut Changes,
        commit: &Commit,
    ) -> Result<()> {
        let _guard = self.lock(key)?;
        let current = self.find(key)?;
        self.check(key, condition, current.as_ref(), changes)?;
        let Some(current) = current else {
            // Whoever removed it may not have synced that yet.
            self.note_places(key, None, changes);
            return Ok(());
        };
        commit.begin()?;
        // Both places are taken only if another program put a file into the natural one. The annex is cleared first, and for
        // good, lest its older value show again. So it is where the next value of the key may lie elsewhere.
        let annex = name::annex(key.as_str());
        if self.unlink(&annex, changes)? && self.naming.natural(key.as_str()).is_some() {
            changes.sync(&self.tree)?;
        }
        if current.path != annex {
            self.unlink(&current.path, changes)?;
        }
        Ok(())
    }

    /// Copies a value, with its metadata unless others are given.
    pub(crate) fn copy(&self, from: &Key, to: &Key, options: CopyOptions, commit: &Commit) -> Result<Entry> {
        let staging = &self.writing()?.staging;
        let missing = || {
            let what = "the source of the copy does not exist";
            Error::new(ErrorKind::NotFound, what).with_key(from)
        };
        self.check_writable()?;
        let source = self.find(from)?.ok_or_else(missing)?;
        let entry = source.entry(from)?.sound()?;
        if from == to && options == CopyOptions::new() {
            return Ok(entry);
        }
        let mut staged = staging.stage()?;
        let copied = staged.append_file(&source.file)?;
        source.check_unchanged()?;
        if copied != entry.size {
            return Err(error::changed());
        }
        let mut put = PutOptions::new();
        put.metadata = options.metadata.or(entry.metadata);
        put.condition = options.condition;
        let mut changes = Changes::default();
        let written = self.commit(to, staged, put, &mut changes, commit);
        changes.settle(&self.tree)?;
        written
    }

    fn seal(&self, staged: &Staged, times: Times, metadata: &Arc<Metadata>) -> Result<Record> {
        staged.seal(times.modified, times.created, metadata.clone(), self.durable)
    }

    /// Moves what is staged to where the current value is, or else to the natural place or, where that is not possible, to the
    /// annex.
    fn install(&self, key: &Key, staged: &mut Staged, current: Option<Found>, changes: &mut Changes) -> Result<()> {
        let natural = self.naming.natural(key.as_str());
        let annex = name::annex(key.as_str());
        let mut path = match &current {
            Some(found) => found.path.as_str(),
            None => natural.unwrap_or(&annex),
        };
        for _ in 0..ATTEMPTS {
            let (parent, name) = split(path);
            let moved = self.tree.make_directory(parent).and_then(|directory| {
                staged.place(&directory, name)?;
                Ok(directory)
            });
            match moved {
                Ok(directory) => {
                    changes.note(parent, directory, false);
                    // What takes the natural place must stay there: an older value would be found first.
                    if let Some(natural) = natural.filter(|natural| path != *natural) {
                        changes.note_seen(split(natural).0);
                    }
                    return Ok(());
                }
                // A directory has the name, or a file that of one of the directories; or the filesystem takes shorter names
                // than it says.
                Err(Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY | Errno::NAMETOOLONG)
                    if path != annex =>
                {
                    path = &annex;
                }
                Err(Errno::NOENT) => self.check_root()?,
                Err(e) => return Err(error::os(e)),
            }
        }
        Err(error::os(Errno::NOENT))
    }

    /// Removes a file and says whether it was there.
    fn unlink(&self, path: &str, changes: &mut Changes) -> Result<bool> {
        let (parent, name) = split(path);
        let removed = self.tree.directory(parent).and_then(|directory| {
            unlinkat(&directory, name, AtFlags::empty())?;
            Ok(directory)
        });
        match removed {
            Ok(directory) => {
                changes.note(parent, directory, true);
                Ok(true)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(false),
            Err(e) => Err(error::os(e)),
        }
    }

    /// Whether a write may happen over the current value. A refusal tells of a write that may not be durable yet.
    fn check(
        &self,
        key: &Key,
        condition: Option<&Condition>,
        current: Option<&Found>,
        changes: &mut Changes,
    ) -> Result<()> {
        let Some(condition) = condition else { return Ok(()) };
        let entry = current.map(|found| found.entry(key)).transpose()?;
        condition.check(entry.as_ref()).inspect_err(|_| self.note_places(key, current, changes))
    }

    /// Notes that an answer rests on where a value is, or on that there is none.
    fn note_places(&self, key: &Key, current: Option<&Found>, changes: &mut Changes) {
        if let Some(current) = current {
            return changes.note_seen(split(&current.path).0);
        }
        if let Some(natural) = self.naming.natural(key.as_str()) {
            changes.note_seen(split(natural).0);
        }
        changes.note_seen(split(&name::annex(key.as_str())).0);
    }
}

/// The times of a value that replaces another: first written when that was, and not before it.
fn times(now: Nanos, replaced: Option<&Found>) -> Result<Times> {
    let Some(found) = replaced else {
        return Ok(Times { modified: now, created: now });
    };
    let record = match Record::read(&found.file) {
        // Writing the value again is how to mend it.
        Err(e) if e.kind() == ErrorKind::Corrupt => None,
        other => other?,
    };
    Ok(Times { modified: now.max(record::modified(&found.stat)), created: record.map_or(now, |record| record.created) })
}
