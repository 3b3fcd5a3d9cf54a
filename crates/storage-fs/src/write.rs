//! Putting, copying and deleting: stage, lock, check, move into place, sync.

use std::{
    fs::{File, FileTimes},
    os::unix::fs::MetadataExt,
    sync::Arc,
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, renameat, unlinkat},
    io::Errno,
};
use storage_core::{
    Condition, CopyOptions, Entry, Error, ErrorKind, Key, Metadata, PutOptions, RenameOptions, Result, pending::Commit,
};

use crate::{
    changes::Changes,
    error,
    name::{self, split},
    record::{self, Nanos, Record, Renamed},
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
            let times = times(now, key, self.find(key)?.as_ref())?;
            sealed = Some((times, self.seal(&staged, times, &metadata)?));
        }
        let _guard = self.lock(key)?;
        let current = self.find(key)?;
        self.check(key, options.condition.as_ref(), current.as_ref(), changes)?;
        let times = times(now, key, current.as_ref())?;
        let record = match sealed {
            Some((before, record)) if before == times => record,
            _ => self.seal(&staged, times, &metadata)?,
        };
        commit.begin()?;
        self.install(key, |directory, name| staged.place(directory, name), current, changes)?;
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
        let (source, entry) = self.look(from)?.ok_or_else(missing)?;
        let entry = entry.sound()?;
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

    /// Moves a value by giving its file another name. `None` where that cannot be, and the value must be copied and deleted: of a file
    /// that another program wrote or changed, that has several names or places, or whose record has no room for two keys.
    pub(crate) fn rename(
        &self,
        from: &Key,
        to: &Key,
        options: &RenameOptions,
        commit: &Commit,
    ) -> Result<Option<Entry>> {
        let now = record::now(self.limits.time_granularity);
        let _guards = self.lock_both([from, to])?;
        let missing = || Error::new(ErrorKind::NotFound, "the source of the rename does not exist").with_key(from);
        let source = self.find(from)?.ok_or_else(missing)?;
        // What is damaged is left to the copy, which says so.
        let Some(record) = Record::read(&source.file).ok().flatten().filter(|record| record.is_of(&source.stat)) else {
            return Ok(None);
        };
        let annex = name::annex(from.as_str());
        if source.stat.nlink() != 1 || source.path != annex && self.tree.identity_of(&annex).is_ok() {
            return Ok(None);
        }
        let current = self.find(to)?;
        let mut changes = Changes::default();
        if let Err(e) = self.check(to, options.condition.as_ref(), current.as_ref(), &mut changes) {
            changes.settle(&self.tree)?;
            return Err(e);
        }
        let times = times(now, to, current.as_ref())?;
        let (id, modified, created) = record.under(from);
        let renamed = Renamed {
            to: to.clone(),
            id: self.writing()?.staging.id(),
            modified: times.modified,
            created: times.created,
        };
        let etag = renamed.id.to_string();
        let record = Record { id, modified, created, renamed: Some(renamed), ..record };
        commit.begin()?;
        // All of this is seen only once the file has its new name.
        let date = |nanos| source.file.set_times(FileTimes::new().set_modified(record::time(nanos)));
        // The date may be that of an earlier attempt, of which the new record knows nothing.
        let prepared = date(modified).is_ok()
            && record.write(&source.file).is_ok()
            && date(times.modified).is_ok()
            && (!self.durable || source.file.sync_all().is_ok());
        let (parent, name) = split(&source.path);
        let moved = match self.tree.directory(parent) {
            Ok(directory) if prepared => {
                let place = |target: &File, new_name: &str| renameat(&directory, name, target, new_name);
                self.install(to, place, current, &mut changes).map(|()| directory)
            }
            _ => Err(error::changed()),
        };
        let Ok(directory) = moved else {
            // If the date stays, it is that of an attempt to rename it.
            let _ = date(modified);
            return Ok(None);
        };
        changes.note(parent, directory, true);
        changes.settle(&self.tree)?;
        let mut entry = Entry::new(to.clone(), record.size);
        entry.modified = Some(record::time(times.modified));
        entry.created = Some(record::time(times.created));
        entry.etag = Some(etag.into());
        entry.metadata = Some(record.metadata);
        Ok(Some(entry))
    }

    fn seal(&self, staged: &Staged, times: Times, metadata: &Arc<Metadata>) -> Result<Record> {
        staged.seal(times.modified, times.created, metadata.clone(), self.durable)
    }

    /// Moves a file, by `place`, to where the current value is, or else to the natural place or, where that is not possible, to the
    /// annex.
    fn install(
        &self,
        key: &Key,
        mut place: impl FnMut(&File, &str) -> rustix::io::Result<()>,
        current: Option<Found>,
        changes: &mut Changes,
    ) -> Result<()> {
        let natural = self.naming.natural(key.as_str());
        let annex = name::annex(key.as_str());
        let mut path = match &current {
            Some(found) => found.path.as_str(),
            None => natural.unwrap_or(&annex),
        };
        for _ in 0..ATTEMPTS {
            let (parent, name) = split(path);
            let moved = self.tree.make_directory(parent).and_then(|directory| {
                place(&directory, name)?;
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
fn times(now: Nanos, key: &Key, replaced: Option<&Found>) -> Result<Times> {
    let Some(found) = replaced else {
        return Ok(Times { modified: now, created: now });
    };
    let record = match Record::read(&found.file) {
        // Writing the value again is how to mend it.
        Err(e) if e.kind() == ErrorKind::Corrupt => None,
        other => other?,
    };
    let created = record.map_or(now, |record| record.under(key).2);
    Ok(Times { modified: now.max(record::modified(&found.stat)), created })
}
