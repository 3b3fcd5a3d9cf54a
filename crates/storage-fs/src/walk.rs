//! A walk over one of the two trees of values, in the order of keys, one directory at a time.

use rustix::io::Errno;
use storage_core::{Key, ListOptions, Result};

use crate::{
    error,
    name::{RESERVED, annex_chunk, annex_directory, annex_end},
    store::Store,
};

/// Which tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Keys are paths.
    Natural,
    /// Keys are hexadecimal.
    Annex,
}

/// Yields the keys that have a prefix and lie behind a start. It holds the names of the directories on the way to where it is.
#[derive(Debug)]
pub(crate) struct Walk {
    layout: Layout,
    prefix: Vec<u8>,
    after: Vec<u8>,
    /// Keys that start with this are left out.
    passed: Option<Vec<u8>>,
    /// The open directories; the first is read when the walk begins.
    frames: Vec<Frame>,
    /// Of a walk that clears: what it has come to so far.
    pub(crate) clearing: Option<Clearing>,
}

/// What a walk has seen that is to be cleared.
#[derive(Debug, Default)]
pub(crate) struct Clearing {
    /// The directories read since this was last taken.
    pub(crate) read: Vec<String>,
    /// A directory that could not be read, so that there may be keys left.
    pub(crate) denied: bool,
}

#[derive(Debug)]
struct Frame {
    path: String,
    /// What the keys below start with.
    start: Vec<u8>,
    /// `None` until read; then those that are left, the next one last.
    names: Option<Vec<String>>,
}

enum Step {
    Into(Frame),
    Key(Key),
    Skip(&'static str),
    Nothing,
}

impl Walk {
    pub(crate) fn new(layout: Layout, options: &ListOptions) -> Self {
        let prefix = options.prefix.as_bytes();
        let (path, start) = match layout {
            Layout::Natural => {
                let end = options.prefix.rfind('/').map_or(0, |slash| slash + 1);
                let path = options.prefix[..end].strip_suffix('/').unwrap_or("");
                (path.to_owned(), &prefix[..end])
            }
            Layout::Annex => annex_directory(prefix),
        };
        let first = Frame { path, start: start.to_vec(), names: None };
        Self {
            layout,
            prefix: prefix.to_vec(),
            after: options.start_after.clone().unwrap_or_default().into_bytes(),
            passed: None,
            frames: vec![first],
            clearing: None,
        }
    }

    /// Leaves out all keys with this prefix from now on.
    pub(crate) fn pass(&mut self, prefix: &str) {
        self.passed = Some(prefix.as_bytes().to_vec());
    }

    /// The next key.
    pub(crate) fn next(&mut self, store: &Store) -> Result<Option<Key>> {
        while let Some(mut frame) = self.frames.pop() {
            let mut names = match frame.names.take() {
                Some(names) => names,
                None => self.names(store, &frame)?,
            };
            let Some(name) = names.pop() else { continue };
            let step = self.step(store, &frame, &name);
            if let Step::Skip(why) = step {
                warn(&frame.path, &name, why);
            }
            frame.names = Some(names);
            self.frames.push(frame);
            match step {
                Step::Key(key) if self.wants(key.as_str().as_bytes()) => return Ok(Some(key)),
                Step::Into(frame) if self.may_want(&frame.start) => self.frames.push(frame),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The names in a directory, the next one last.
    fn names(&mut self, store: &Store, frame: &Frame) -> Result<Vec<String>> {
        let Frame { path, start, .. } = frame;
        // The directory of a prefix may be none that a natural key can have.
        let natural = self.layout == Layout::Natural;
        if natural && !start.is_empty() && store.naming.natural(path).is_none() {
            return Ok(Vec::new());
        }
        let skip = |name: &str, why: &str| warn(path, name, why);
        let mut names = match store.tree.names(path, skip) {
            Err(Errno::LOOP) => {
                warn(path, "", "symbolic links are not followed");
                Vec::new()
            }
            // Such as `lost+found`, in which nobody keeps values. That the root itself is unreadable is an error.
            Err(Errno::ACCESS) if natural && !path.is_empty() => {
                warn(path, "", "access is denied");
                if let Some(clearing) = self.clearing.as_mut().filter(|_| path != "lost+found") {
                    clearing.denied = true;
                }
                Vec::new()
            }
            names => names.map_err(error::os)?,
        };
        if let Some(clearing) = &mut self.clearing {
            clearing.read.push(path.clone());
        }
        if natural {
            // A large directory is not held in memory longer than needed.
            let key = |name: &String| [start, name.as_bytes()].concat();
            names.retain(|name| {
                let key = key(name);
                if name.ends_with('/') { self.may_want(&key) } else { self.wants(&key) }
            });
        }
        names.reverse();
        Ok(names)
    }

    /// What a name stands for.
    fn step(&self, store: &Store, frame: &Frame, name: &str) -> Step {
        let (name, is_directory) = match name.strip_suffix('/') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let part = match self.layout {
            Layout::Natural if frame.path.is_empty() && name == RESERVED => {
                return Step::Nothing;
            }
            Layout::Natural if !store.naming.is_segment(name) => None,
            Layout::Natural => Some(name.as_bytes().to_vec()),
            Layout::Annex if is_directory => annex_chunk(name),
            Layout::Annex => annex_end(name),
        };
        let Some(mut part) = part else {
            return Step::Skip("a value of that key would have another name");
        };
        if is_directory && self.layout == Layout::Natural {
            part.push(b'/');
        }
        let key = [frame.start.as_slice(), &part].concat();
        if key.len() > Key::MAX_LEN {
            return Step::Skip("its path is too long for a key");
        }
        if is_directory {
            let path = if frame.path.is_empty() { name.to_owned() } else { format!("{}/{name}", frame.path) };
            return Step::Into(Frame { path, start: key, names: None });
        }
        match String::from_utf8(key).ok().and_then(|key| Key::parse(&key).ok()) {
            Some(key) => Step::Key(key),
            None => Step::Skip("its name is not that of a key"),
        }
    }

    /// Whether a key is to be yielded.
    fn wants(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && key > self.after.as_slice() && !self.is_passed(key)
    }

    /// Whether any key with this prefix can still match.
    fn may_want(&self, start: &[u8]) -> bool {
        (start.starts_with(&self.prefix) || self.prefix.starts_with(start))
            && (start > self.after.as_slice() || self.after.starts_with(start))
            && !self.is_passed(start)
    }

    fn is_passed(&self, key: &[u8]) -> bool {
        self.passed.as_ref().is_some_and(|passed| key.starts_with(passed))
    }
}

fn warn(directory: &str, name: &str, why: &str) {
    tracing::warn!(directory, name, why, "skipped in a listing");
}
