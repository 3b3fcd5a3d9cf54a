//! A value in memory, and how a read is answered from it.

use bytes::Bytes;
use storage_core::{Entry, GetOptions, Key, Object, Result};

/// What a value takes beside its bytes, key and metadata, roughly.
const FIXED: usize = 256;

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    bytes: Bytes,
}

impl Held {
    /// `None` when the entry does not describe the bytes completely, so that it could not answer for the backend.
    pub(crate) fn new(entry: Entry, bytes: Bytes) -> Option<Self> {
        let complete = entry.size == bytes.len() as u64 && entry.metadata.is_some();
        complete.then_some(Self { entry, bytes })
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self, key: &Key) -> u32 {
        let metadata = self.entry.metadata.as_ref().map_or(0, |metadata| metadata.size());
        u32::try_from(self.bytes.len() + 2 * key.as_str().len() + metadata + FIXED).unwrap_or(u32::MAX)
    }

    /// The answer to a read without a version.
    pub(crate) fn answer(&self, options: &GetOptions) -> Result<Object> {
        options.check_current(Some(&self.entry))?;
        let bytes = match options.range {
            None => self.bytes.clone(),
            Some(range) => {
                let range = range.resolve(self.entry.size)?;
                self.bytes.slice(range.start as usize..range.end as usize)
            }
        };
        Ok(Object::new(self.entry.clone(), bytes))
    }
}
