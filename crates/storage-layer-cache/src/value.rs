//! A value as it is kept, and how it answers.

use storage_core::{Bytes, Entry, GetOptions, Metadata, Object, Result};
use tokio::time::Instant;

/// What the cache needs for a value beside its bytes, about: the entry, its strings, and the tables.
pub(crate) const OVERHEAD: usize = 512;

pub(crate) struct Value {
    pub(crate) entry: Entry,
    /// Whether the entry is all of it. The answer to a write may lack dates: then only the etag, the size and the version are used.
    pub(crate) whole_entry: bool,
    pub(crate) bytes: Bytes,
    /// When everything was last forgotten before this was kept.
    pub(crate) epoch: u64,
    /// `None` when that is too far away for the clock.
    pub(crate) expires: Option<Instant>,
}

impl Value {
    /// What it takes of the budget.
    pub(crate) fn weight(&self) -> u32 {
        let metadata = self.entry.metadata.as_deref().map_or(0, Metadata::size);
        let bytes = OVERHEAD + self.entry.key.as_str().len() + metadata + self.bytes.len();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// The same value with its whole entry.
    pub(crate) fn completed(&self, entry: Entry) -> Self {
        Self { entry, whole_entry: true, bytes: self.bytes.clone(), epoch: self.epoch, expires: self.expires }
    }

    /// Whether it has what such a read asks for.
    pub(crate) fn answers(&self, options: &GetOptions) -> bool {
        self.whole_entry || !options.entry
    }

    /// The current value as the backend would give it.
    pub(crate) fn answer(&self, options: &GetOptions) -> Result<Option<Object>> {
        options.check_current(Some(&self.entry))?;
        let bytes = match options.range {
            None => self.bytes.clone(),
            Some(range) => {
                let range = range.resolve(self.entry.size)?;
                // The bytes are as many as the entry says, so the range fits.
                self.bytes.slice(range.start as usize..range.end as usize)
            }
        };
        Ok(Some(Object::new(self.entry.clone(), bytes)))
    }
}
